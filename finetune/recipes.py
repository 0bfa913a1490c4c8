"""Recipes of `vggft finetune --recipe`: named sets of settings that reproduce how others fine-tuned.

Cheap to import: the options of every command need the names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from featurize.backbone.architecture import Architecture
from featurize.errors import VggftError
from featurize.options import offered
from featurize.options.choices import Preprocess
from finetune.plan import SCRATCH, Plan
from heads.specs import CLASSIC, DenseSpec

RecipeName = Literal["original"]


@dataclass(frozen=True)
class Recipe:
    """How somebody fine-tuned.

    Attributes:
        preprocess: of the features in the workspace.
        tuned: number of tuned convolutions, the last ones of the network.
        head: what training starts from, with random weights.
        plan: settings of the training, whose offered ones can be overridden.
    """

    preprocess: Preprocess
    tuned: int
    head: DenseSpec
    plan: Plan

    def options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of `vggft finetune` (by their names) that the recipe means together with those that are given.

        Args:
            name: of the recipe, for messages.

        Raises:
            VggftError: a given option contradicts the recipe.
        """
        start = given.get("start", SCRATCH)
        if start != SCRATCH:
            raise VggftError(
                f"--recipe {name} with --from {start}: the recipe starts from a head with random weights. Leave out one of them."
            )
        if "patience" in given:
            raise VggftError(
                f"--recipe {name} with --patience: the recipe trains all epochs and keeps the last. Leave out --patience; "
                "--epochs sets how many."
            )
        settings = {field.name: getattr(self.plan, field.attribute) for field in offered(Plan)}
        return {**settings, "start": SCRATCH, "precision": self.plan.precision, **given}

    def unfreeze(self, architecture: Architecture) -> str:
        """Return the lowest tuned layer."""
        return architecture.convolutions[-self.tuned].name

    def planned(self, plan: Plan) -> Plan:
        """Return a plan made from `options` with what no option says: the last epoch is kept, whatever the validation."""
        return replace(plan, keep=self.plan.keep)


# The script in docs/history.md. It froze Keras's `model.layers[:16]`, which leaves two convolutions of the last block.
RECIPES: dict[str, Recipe] = {
    "original": Recipe(
        preprocess="raw",
        tuned=2,
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
