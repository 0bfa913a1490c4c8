"""Which model predicts: the one that is named, else the one that `vggft compare` recommends, else the best."""

from collections.abc import Callable
from dataclasses import dataclass

from featurize import durable
from featurize.errors import VggftError
from vggft.prediction import models
from vggft.prediction.model import Model
from vggft.prediction.models import Models
from vggft.workspace import provenance
from vggft.workspace.workspace import Workspace

REPORT = "compare.json"  # of the last comparison, in the report folder


@dataclass(frozen=True)
class Choice:
    """The model that is to predict, and the reason for it."""

    model: Model
    reason: str


def choose(workspace: Workspace, name: str | None, on_damage: Callable[[VggftError], None] | None = None) -> Choice:
    """Return the fresh model of that name; without a name the one that `vggft compare` recommends, or else the best.

    A recommendation holds as long as the fresh models are those that were compared, and the best head is the same.

    Args:
        on_damage: as in `models.load`.

    Raises:
        VggftError: there is none.
    """
    present = models.load(workspace, on_damage)
    if name is not None:
        return Choice(present.named(name), "--model")
    if not present.fresh:
        models.fresh_heads(workspace)  # raises, and names the step that is missing
    recommended = _recommended(workspace, present, on_damage)
    if recommended is not None:
        return Choice(recommended, "recommended by vggft compare")
    return Choice(present.best, "lowest validation log-loss; run vggft compare for a recommendation")


def _recommended(workspace: Workspace, present: Models, on_damage: Callable[[VggftError], None] | None) -> Model | None:
    """Return what the last comparison recommends; None where there was none, or it was of other models or data.

    Raises:
        VggftError: its file is damaged, and `on_damage` is None.
    """
    path = workspace.report / REPORT
    try:
        report = durable.read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        damage = VggftError(f"{path}: damaged ({error}). Its recommendation is unknown; run again: vggft compare")
        if on_damage is None:
            raise damage from None
        on_damage(damage)
        return None
    try:
        contrast = report["contrast"]
        holds = (
            provenance.matches(provenance.current(workspace), report["provenance"])
            and report["validation_log_loss"] == present.validation_log_loss
            and contrast["in_workspace"][contrast["head"]] == present.heads[0].name
        )
        return present.named(report["use"]) if holds else None
    except (KeyError, IndexError, TypeError, AttributeError, VggftError):
        return None
