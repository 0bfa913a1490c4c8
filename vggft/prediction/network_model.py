"""A tuned network as a model: it reads the cached outputs of its split point."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.network import between
from featurize.backend import load_keras, require_no_fork
from featurize.disk import durable
from featurize.engines import CPU_BATCH
from featurize.errors import VggftError, reason
from featurize.process import interrupts
from featurize.process.per_process import PerProcess
from finetune.network import LOGITS_LAYER, head_of
from finetune.store import NETWORK, Run
from heads.head import probabilities
from heads.history import Epoch
from heads.metrics import Metrics
from heads.specs import Pooling
from vggft.prediction.model import CachedImages, Dissected, Model, Predictor
from vggft.workspace.folder import workspace_flag

# Several threads load a network once, and Keras compiles it once.
_USING_KERAS = PerProcess(threading.Lock)


@dataclass(frozen=True)
class NetworkModel(Model):
    """A tuned network of a workspace.

    Attributes:
        run: the run that tuned it.
        start_present: the head that it started from is in the workspace, with the same weights.
    """

    run: Run
    start_present: bool = False

    @property
    def network(self) -> Path:
        """Its Keras file, from pixels to scores."""
        return self.folder / NETWORK

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def kind(self) -> Literal["tuned"]:
        return "tuned"

    @property
    def classes(self) -> tuple[str, ...]:
        return self.run.classes

    @property
    def seconds(self) -> float:
        return self.run.seconds

    @property
    def parameters(self) -> int:
        return self.run.parameters

    @property
    def validation(self) -> Metrics:
        return self.run.validation

    @property
    def history(self) -> Sequence[Epoch]:
        return self.run.history

    @property
    def kept_epoch(self) -> Epoch:
        return self.run.history[self.run.best_epoch]

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.run.settings.provenance

    @property
    def layer(self) -> str | None:
        return self.run.split_point

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        return ()

    @property
    def start(self) -> str:
        return self.run.start

    @property
    def unchanged(self) -> bool:
        return self.run.best_epoch == 0 and self.start_present

    @property
    def files(self) -> Sequence[Path]:
        return [self.network]

    def predictor(self) -> Predictor:
        return partial(_predict, self._part(LOGITS_LAYER))

    def dissected(self, convolution: str) -> Dissected:
        part = self._part(convolution)
        head = head_of(self._part(LOGITS_LAYER), self.name, self.classes)
        return Dissected(self.layer, partial(_outputs, part), head)

    def load(self) -> Any:
        """Read the whole network: keras.Model, pixels → scores.

        Raises:
            VggftError: as `predictor`.
        """
        with self._readable(), _USING_KERAS():
            return _whole(self.network, self.run.network_sha256)

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what Keras raises for a file that it cannot load into a VggftError."""
        try:
            yield
        except (ValueError, OSError, TypeError, KeyError, BadZipFile) as error:
            raise VggftError(
                f"{self.network}: Keras cannot load it ({reason(error)}). {_tune_again(self.network)}"
            ) from None

    def predict_cached(self, images: CachedImages) -> NDArray[np.float64]:
        predict = self.predictor()  # a damaged network is reported before anything is read
        return np.concatenate([predict(outputs) for outputs in images.outputs(self.layer)])

    def _part(self, output: str) -> Any:
        """Return the Keras model above the split point, up to a layer.

        Raises:
            VggftError: as in `predictor`.
        """
        with self._readable(), _USING_KERAS():
            changed = self.network.stat().st_mtime_ns
            return _load(self.network, changed, self.run.network_sha256, self.run.split_point)(output)


def _predict(part: Any, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return class probabilities (n, classes), by a network that ends in logits, of inputs of any numeric type."""
    return probabilities(_outputs(part, inputs))


def _outputs(part: Any, inputs: NDArray[Any]) -> NDArray[np.float32]:
    """Return the outputs of a network for inputs of any numeric type, in batches."""
    require_no_fork()
    batches = []
    for first in range(0, len(inputs), CPU_BATCH):
        interrupts.check()
        batch = inputs[first : first + CPU_BATCH].astype(np.float32)
        with _USING_KERAS():
            batches.append(np.asarray(part.predict_on_batch(batch), np.float32))
    return np.concatenate(batches)


@lru_cache(maxsize=1)  # a comparison asks for the same part once per perturbation
def _load(path: Path, changed: int, sha256: str, split_point: str | None) -> Callable[[str], Any]:
    """Return what gives the Keras model above the split point, up to a layer; `changed`: when the file was written."""
    network = _whole(path, sha256)
    return cache(lambda output: between(network, split_point, [output]))


def _tune_again(network: Path) -> str:
    return f"Tune again: vggft finetune{workspace_flag(network.parents[2])}"


def _whole(path: Path, sha256: str) -> Any:
    if sha256 and durable.sha256(path) != sha256:
        raise VggftError(f"{path}: not the file that training wrote. {_tune_again(path)}")
    return load_keras().saving.load_model(path, compile=False)
