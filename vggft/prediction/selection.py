"""Which model predicts: the one that is named, else the one that `vggft compare` recommends, else the best.

Which models are shown side by side: those that are named, else the best head and the best tuned network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from featurize.disk import checked
from featurize.errors import VggftError, reason
from vggft.prediction import models
from vggft.prediction.model import Model
from vggft.prediction.models import Models
from vggft.workspace import provenance
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

REPORT = "compare.json"  # of the last comparison, in the report folder


@dataclass(frozen=True)
class Choice:
    """The model that is to predict.

    Attributes:
        reason: why this one.
        age: where it is stale, a sentence that says so; else empty.
    """

    model: Model
    reason: str
    age: str = ""


def choose(workspace: Workspace, name: str | None, on_damage: Callable[[VggftError], None] | None = None) -> Choice:
    """Return the model of that name; without a name the one that `vggft compare` recommends, or else the best.

    Where no model is fresh, a stale one predicts whose classes and features are still the present ones. A recommendation holds
    as long as the models are those that were compared, and the best head is the same.

    Args:
        on_damage: as in `models.load`.

    Raises:
        VggftError: there is none.
    """
    present = models.load(workspace, on_damage)
    if name is not None:
        return _named(workspace, present, name)
    available = _available(workspace, present, on_damage)
    recommended = _recommended(workspace, available, on_damage)
    if recommended is not None:
        return _aged(workspace, Choice(recommended, "recommended by vggft compare"))
    reason = "lowest validation log-loss; run vggft compare for a recommendation"
    return _aged(workspace, Choice(available.best, reason))


def contrasted(
    workspace: Workspace, names: Sequence[str], on_damage: Callable[[VggftError], None] | None = None
) -> list[Choice]:
    """Return the models of these names; without names the best head and, where there is one, the best tuned network.

    These two are what `vggft compare` contrasts; where they are the same model, it is there once. Stale models as in `choose`.

    Args:
        on_damage: as in `models.load`.

    Raises:
        VggftError: there is none, or none of such a name.
    """
    present = models.load(workspace, on_damage)
    if names:
        return [_named(workspace, present, name) for name in dict.fromkeys(names)]
    available = _available(workspace, present, on_damage)
    best = [Choice(model, "best head") for model in available.heads[:1]]
    for network in available.networks[:1]:
        if best and network.equals(best[0].model.name):
            best = [replace(best[0], reason=f"best head; {network.name} is the same model")]
        else:
            best.append(Choice(network, "best tuned network"))
    return [_aged(workspace, choice) for choice in best]


def _named(workspace: Workspace, present: Models, name: str) -> Choice:
    unfit = [model for model in present.stale if model.name == name and model not in present.fitting]
    if unfit:
        why = provenance.difference(workspace, unfit[0].classes, unfit[0].provenance)
        raise VggftError(f"model {name!r} is stale: {why}. {_replacing(workspace, unfit[0])}")
    return _aged(workspace, Choice(present.named(name), "--model"))


def _available(workspace: Workspace, present: Models, on_damage: Callable[[VggftError], None] | None) -> Models:
    """Return the models that can predict: the fresh ones, else those of the state that was trained on last."""
    available = present if present.fresh else present.earlier()
    if available is None:
        models.fresh_heads(workspace, on_damage)  # raises, and names the step that is missing
        raise VggftError(f"{workspace.root}: no model here. Run first: vggft head{workspace_flag(workspace.root)}")
    return available


def _aged(workspace: Workspace, choice: Choice) -> Choice:
    """Add the sentence about the age of a stale model."""
    model = choice.model
    if provenance.matches(provenance.current(workspace), model.provenance):
        return choice
    why = provenance.difference(workspace, model.classes, model.provenance)
    return replace(choice, age=f"{model.name} is stale: {why}. {_replacing(workspace, model)}")


def _replacing(workspace: Workspace, model: Model) -> str:
    """Return a sentence with the command that trains a head again, or another network."""
    if model.tuned:
        return f"To tune another network: vggft finetune{workspace_flag(workspace.root)}"
    return f"To train it again: {models.training(workspace, model.name)}"


def _recommended(workspace: Workspace, present: Models, on_damage: Callable[[VggftError], None] | None) -> Model | None:
    """Return what the last comparison recommends; None where there was none, or it was of other models or data.

    Raises:
        VggftError: its file is damaged, and `on_damage` is None.
    """
    report = current_report(workspace, present, on_damage)
    try:
        return present.named(report["use"]) if report else None
    except (KeyError, TypeError, VggftError):
        return None


def current_report(
    workspace: Workspace, present: Models, on_damage: Callable[[VggftError], None] | None = None
) -> dict[str, Any] | None:
    """Return the last comparison, as compare.json has it; None where there was none, or it was of other models or data.

    Args:
        present: the models of the workspace, of which it has to be.

    Raises:
        VggftError: its file is damaged, and `on_damage` is None.
    """
    path = workspace.report / REPORT
    try:
        report: dict[str, Any] = checked.read_json(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        damage = VggftError(
            f"{path}: damaged ({reason(error)}). Its recommendation is unknown; run again: "
            f"vggft compare{workspace_flag(workspace.root)}"
        )
        if on_damage is None:
            raise damage from None
        on_damage(damage)
        return None
    try:
        contrast = report["contrast"]
        state = provenance.current(workspace) | {"manifest": present.heads[0].provenance["manifest"]}
        holds = (
            provenance.matches(state, report["provenance"])
            and report["validation_log_loss"] == present.validation_log_loss
            and contrast["in_workspace"][contrast["head"]] == present.heads[0].name
        )
        return report if holds else None
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
