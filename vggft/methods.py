"""Every classifier of a workspace under one roof: heads and tuned networks, fresh or stale, and how each predicts."""

import importlib.metadata
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featurize.backbone import between
from featurize.backend import load_keras
from featurize.cache import FeatureCache
from featurize.dataset import Sample
from featurize.engines import CPU_BATCH, choose, create
from featurize.errors import VggftError
from featurize.layers import TOP
from finetune import store as runs
from finetune.examples import Rows, from_cache, from_pixels
from finetune.network import LOGITS_LAYER
from finetune.store import Run
from heads import store as heads
from heads.head import probabilities
from heads.history import Epoch
from heads.metrics import Metrics
from heads.search import Result, best_first, merit
from vggft.features import decoder, load_weights
from vggft.workspace import Workspace

Scorer = Callable[[NDArray[np.uint8]], NDArray[np.float64]]


@dataclass(frozen=True)
class Method:
    """A head or a tuned network.

    Attributes:
        made: the head's result, or the run.
        network: the tuned network's file.
        unchanged: a tuned network whose best epoch was 0, so that it is, to rounding, a head that is here too.
    """

    name: str
    kind: Literal["logistic", "dense", "tuned"]
    seconds: float
    parameters: int
    validation: Metrics
    history: Sequence[Epoch]
    made: Result | Run
    network: Path | None = None
    unchanged: bool = False

    @property
    def tuned(self) -> bool:
        """True for a tuned network, False for a head."""
        return self.network is not None

    @property
    def provenance(self) -> Any:
        """What it was made from and how."""
        return self.made.settings.provenance if isinstance(self.made, Run) else self.made.head.provenance

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of its scores."""
        return self.made.classes if isinstance(self.made, Run) else self.made.head.classes

    def judge(self, workspace: Workspace, cache: FeatureCache, samples: Sequence[Sample]) -> NDArray[np.float64]:
        """Return class probabilities (n, classes) of images of the workspace, from as far up as they are cached for it.

        Raises:
            VggftError: features or, for a network that is tuned from the pixels up, image files are missing.
        """
        digests = [sample.digest for sample in samples]
        if isinstance(self.made, Result):
            return self.made.head.predict(cache.read(TOP, digests))
        split_point, network = self.made.split_point, _load_network(self)
        if split_point is None:
            files = {sample.digest: [workspace.dataset.root / sample.path] for sample in samples}
            source = from_pixels(files, decoder(cache.fingerprint), cache.fingerprint.size, digests)
        else:
            source = from_cache(cache, split_point, digests)
        network = between(network, split_point, [LOGITS_LAYER])
        window = 8 * CPU_BATCH
        return np.concatenate(
            [
                predict(network, rows, CPU_BATCH)
                for rows in Rows(source, window).batches(np.arange(len(digests)), window)
            ]
        )

    def from_pixels(self, workspace: Workspace) -> Scorer:
        """Return what turns pictures uint8 (n ≤ `CPU_BATCH`, size, size, 3) into class probabilities (n, classes)."""
        if isinstance(self.made, Run):
            network = between(_load_network(self), None, [LOGITS_LAYER])
            return lambda pictures: predict(network, pictures, CPU_BATCH)
        head = self.made.head
        fingerprint = workspace.settings.fingerprint
        engine = create(choose(precision=fingerprint.precision).name, load_weights(workspace.settings), fingerprint)
        return lambda pictures: head.predict(engine(pictures, [TOP])[0])


def predict(network: Any, inputs: NDArray[Any], batch_size: int) -> NDArray[np.float64]:
    """Return class probabilities (n, classes), by a network that ends in logits, of inputs of any numeric type, in batches."""
    batches = [inputs[first : first + batch_size] for first in range(0, len(inputs), batch_size)]
    return np.concatenate([probabilities(network.predict_on_batch(batch.astype(np.float32))) for batch in batches])


def _load_network(method: Method) -> Any:
    keras = load_keras()

    try:
        return keras.saving.load_model(method.network, compile=False)
    except (ValueError, OSError, TypeError, KeyError) as error:
        raise VggftError(f"{method.network}: Keras cannot load it ({error}). Tune again: vggft finetune") from None


@dataclass(frozen=True)
class Methods:
    """All methods of a workspace.

    Attributes:
        heads: made from its present state, the best first.
        networks: tuned ones, made from its present state, the best first.
        stale: made from another state; never compared with the others.
    """

    heads: tuple[Method, ...]
    networks: tuple[Method, ...]
    stale: tuple[Method, ...]

    @property
    def fresh(self) -> tuple[Method, ...]:
        """All that are made from the present state."""
        return (*self.heads, *self.networks)

    @property
    def best(self) -> Method:
        """The best head or the best network, whichever has the lower validation log-loss. There must be one."""
        return min([*self.heads[:1], *self.networks[:1]], key=_rank)

    def named(self, name: str) -> Method:
        """Return the fresh method called `name`.

        Raises:
            VggftError: there is none; the message lists those there are.
        """
        for method in self.fresh:
            if method.name == name:
                return method
        if any(method.name == name for method in self.stale):
            raise VggftError(f"model {name!r} is stale: made from an earlier state of the data. Train it again.")
        raise VggftError(f"no model {name!r} here. There are: {', '.join(m.name for m in self.fresh) or 'none yet'}.")


def provenance(workspace: Workspace) -> dict[str, str]:
    """Return what marks a method as made from the workspace's present state."""
    return {"manifest": workspace.dataset.identity, "fingerprint": workspace.settings.fingerprint.key}


def versions() -> dict[str, str]:
    """Return what trained a method: kept with it, so that it can be repeated."""
    keras = load_keras()
    import joblib
    import sklearn

    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: importlib.metadata.version(backend),
        "vggft": importlib.metadata.version("vggft"),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "joblib": joblib.__version__,
    }


def load(workspace: Workspace) -> Methods:
    """Read all methods of a workspace, the best first.

    Raises:
        VggftError: one of them is damaged.
    """
    results = heads.load_all(workspace.heads)
    present = {result.head.digest for result in results}
    fresh, stale = sorted_out(workspace, results)
    networks = []
    for run in runs.load_all(workspace.finetune):
        network = workspace.finetune / run.name / runs.NETWORK
        unchanged = run.best_epoch == 0 and run.start_digest in present
        networks.append(
            Method(run.name, "tuned", run.seconds, run.parameters, run.validation, run.history, run, network, unchanged)
        )
    networks.sort(key=_rank)
    now = provenance(workspace)
    outdated = [method for method in networks if not _made_from(now, method.provenance)]
    return Methods(
        tuple(_of_head(result) for result in best_first(fresh)),
        tuple(method for method in networks if _made_from(now, method.provenance)),
        (*(_of_head(result) for result in stale), *outdated),
    )


def sorted_out(workspace: Workspace, results: Sequence[Result]) -> tuple[list[Result], list[Result]]:
    """Return the heads made from the workspace's present state, and the others, stale ones."""
    now = provenance(workspace)
    fresh = [result for result in results if _made_from(now, result.head.provenance)]
    return fresh, [result for result in results if not _made_from(now, result.head.provenance)]


def _made_from(now: Mapping[str, str], made: Mapping[str, Any]) -> bool:
    return all(made.get(key) == value for key, value in now.items())


def _of_head(r: Result) -> Method:
    return Method(r.head.name, r.head.kind, r.seconds, r.head.parameters, r.validation, r.history, r)


def _rank(method: Method) -> tuple[bool, tuple[float, int]]:
    """Order by `heads.search.merit`; networks that fine-tuning left unchanged come last.

    Their heads are in the list too, and differ from them by rounding only.
    """
    return method.unchanged, merit(method.validation, method.parameters)


def fresh_heads(workspace: Workspace) -> tuple[Method, ...]:
    """Return the fresh heads, the best first.

    Raises:
        VggftError: there are none, or only stale ones.
    """
    results = heads.load_all(workspace.heads)
    fresh, stale = sorted_out(workspace, results)
    if fresh:
        return tuple(_of_head(result) for result in best_first(fresh))
    if stale:
        raise VggftError(
            f"{workspace.heads}: all heads were made from an earlier state of the data or with other features "
            "(stale). Train them again: vggft head"
        )
    raise VggftError(f"{workspace.root}: no heads here yet. Run first: vggft head --workspace {workspace.root}")
