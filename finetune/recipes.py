"""Recipes of `vggft finetune --recipe`: named sets of settings that reproduce how others fine-tuned.

Cheap to import: the options of every command need the names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from featurize.errors import VggftError
from featurize.options import offered
from featurize.options.choices import FULL_PRECISION, Preprocess
from finetune.plan import SCRATCH, Plan
from heads.specs import CLASSIC, DenseSpec

RecipeName = Literal["original"]


@dataclass(frozen=True)
class Recipe:
    """How somebody fine-tuned.

    Attributes:
        preprocess: of the features in the workspace.
        unfreeze: the lowest tuned layer.
        head: what training starts from, with random weights.
        plan: settings of the training, whose offered ones can be overridden.
    """

    preprocess: Preprocess
    unfreeze: str
    head: DenseSpec
    plan: Plan

    def options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of `vggft finetune` (by their names) that the recipe means together with those that are given.

        Args:
            name: of the recipe, for messages.

        Raises:
            VggftError: a given option contradicts the recipe.
        """
        fixed = {
            "start": (SCRATCH, "--from", "starts from a head with random weights"),
            "unfreeze": (self.unfreeze, "--unfreeze", f"tunes {self.unfreeze} and all layers above it"),
        }
        for option, (value, flag, what) in fixed.items():
            if given.get(option, value) != value:
                raise VggftError(
                    f"--recipe {name} with {flag} {given[option]}: the recipe {what}. Leave out one of them."
                )
        if "patience" in given:
            raise VggftError(
                f"--recipe {name} with --patience: the recipe trains all epochs and keeps the last. Leave out --patience; "
                "--epochs sets how many."
            )
        settings = {field.name: getattr(self.plan, field.attribute) for field in offered(Plan)}
        settings["precision"] = FULL_PRECISION
        return {**settings, **{option: value for option, (value, _, _) in fixed.items()}, **given}

    def planned(self, plan: Plan) -> Plan:
        """Return a plan made from `options` with what no option says: the last epoch is kept, whatever the validation."""
        return replace(plan, keep=self.plan.keep)


# The script in docs/history.md. Keras's `model.layers[:16]` were frozen; the last of them is block5_conv1.
RECIPES: dict[str, Recipe] = {
    "original": Recipe(
        preprocess="raw",
        unfreeze="block5_conv2",
        head=CLASSIC,
        plan=Plan(
            epochs=20,
            batch_size=64,
            optimizer="sgd",
            learning_rate=1e-4,
            momentum=0.9,
            schedule="constant",
            dropout=0.5,
            patience=20,
            keep="last",
        ),
    )
}
