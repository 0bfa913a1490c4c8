"""Every classifier of a workspace under one roof: heads and tuned networks, fresh or stale, the best first."""

import importlib.metadata
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from featurize.backend import load_keras
from featurize.errors import VggftError
from finetune import store as runs
from finetune.store import Run
from heads import predictions
from heads import store as heads
from heads.history import Epoch
from heads.metrics import Metrics, losses
from heads.predictions import Predictions
from heads.search import Result, best_first, merit
from vggft.workspace.workspace import Workspace

# By how much the log-loss of kept predictions may differ from the one that was found with them: for tuned networks they are
# predicted once more, and a GPU does not compute the same sum twice alike. Other predictions differ by more.
_SAME_LOSS = 1e-3

REPORT = "compare.json"  # of the last comparison, in the report folder


@dataclass(frozen=True)
class Model:
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

    def validation_predictions(self, workspace: Workspace) -> Predictions:
        """Return what it predicted for the validation images when it was made.

        Raises:
            VggftError: missing, damaged, or not what its validation metrics came from.
        """
        folder = (workspace.finetune if self.tuned else workspace.heads) / self.name
        found = predictions.read(folder / predictions.FILE, self.classes)
        difference = abs(float(losses(found.probabilities, found.targets).mean()) - self.validation.log_loss)
        if len(found.targets) != self.validation.n or difference > _SAME_LOSS:
            raise VggftError(f"{folder / predictions.FILE}: not the predictions that {self.name} was judged by.")
        return found


@dataclass(frozen=True)
class Models:
    """All methods of a workspace.

    Attributes:
        heads: made from its present state, the best first.
        networks: tuned ones, made from its present state, the best first.
        stale: made from another state; never compared with the others.
    """

    heads: tuple[Model, ...]
    networks: tuple[Model, ...]
    stale: tuple[Model, ...]

    @property
    def fresh(self) -> tuple[Model, ...]:
        """All that are made from the present state."""
        return (*self.heads, *self.networks)

    @property
    def best(self) -> Model:
        """The best head or the best network, whichever has the lower validation log-loss. There must be one."""
        return min([*self.heads[:1], *self.networks[:1]], key=_rank)

    def named(self, name: str) -> Model:
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


def load(workspace: Workspace, on_damage: Callable[[VggftError], None] | None = None) -> Models:
    """Read all methods of a workspace, the best first.

    Args:
        on_damage: told of damaged ones, which are left out; without it the first is an error.

    Raises:
        VggftError: one of them is damaged.
    """
    results = heads.load_all(workspace.heads, on_damage)
    present = {result.head.digest for result in results}
    fresh, stale = sorted_out(workspace, results)
    networks = []
    for run in runs.load_all(workspace.finetune, on_damage):
        network = workspace.finetune / run.name / runs.NETWORK
        unchanged = run.best_epoch == 0 and run.start_digest in present
        networks.append(
            Model(run.name, "tuned", run.seconds, run.parameters, run.validation, run.history, run, network, unchanged)
        )
    networks.sort(key=_rank)
    now = provenance(workspace)
    outdated = [method for method in networks if not _made_from(now, method.provenance)]
    return Models(
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


def _of_head(r: Result) -> Model:
    return Model(r.head.name, r.head.kind, r.seconds, r.head.parameters, r.validation, r.history, r)


def _rank(method: Model) -> tuple[bool, tuple[float, int]]:
    """Order by `heads.search.merit`; networks that fine-tuning left unchanged come last.

    Their heads are in the list too, and differ from them by rounding only.
    """
    return method.unchanged, merit(method.validation, method.parameters)


@dataclass(frozen=True)
class Choice:
    """A method that is to predict, and why it is this one."""

    method: Model
    why: str


def chosen(workspace: Workspace, name: str | None, on_damage: Callable[[VggftError], None] | None = None) -> Choice:
    """Return the fresh method of that name; without one, what `vggft compare` recommends, or else the best.

    A recommendation holds while all fresh methods are those that were compared, and the best head is still the same.

    Args:
        on_damage: as in `load`.

    Raises:
        VggftError: there is none.
    """
    found = load(workspace, on_damage)
    if name is not None:
        return Choice(found.named(name), "as asked for")
    if not found.fresh:
        fresh_heads(workspace)  # raises, and says which step is missing
    use = _recommended(workspace, found)
    if use is not None:
        return Choice(use, "recommended by vggft compare")
    return Choice(found.best, "the best head or network; vggft compare has not weighed what is here now")


def judged(found: Models) -> dict[str, float]:
    """Return method → validation log-loss: what a recommendation rests on, and is told by to be out of date."""
    return {method.name: method.validation.log_loss for method in found.fresh}


def _recommended(workspace: Workspace, found: Models) -> Model | None:
    """Return what the last comparison recommends; None where there was none, or it is of other methods or data."""
    try:
        report = json.loads((workspace.report / REPORT).read_text())
        contrast = report["contrast"]
        same = (
            _made_from(provenance(workspace), report["provenance"])
            and report["validation_log_loss"] == judged(found)
            and contrast["in_workspace"][contrast["head"]] == found.heads[0].name
        )
        return found.named(report["use"]) if same else None
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, VggftError):
        return None


def fresh_heads(workspace: Workspace) -> tuple[Model, ...]:
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
