"""The unsure band: the score below which a prediction is unsure, chosen on the validation images by one stated rule."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.errors import VggftError
from vggft.prediction.model import Model
from vggft.ui.console import Ui

# Accuracy, at least, of the predictions on validation images that are not unsure.
RIGHT = 0.95

# Of scores that are told apart: computed in batches of another size, they differ by less.
_DIGITS = 6

# The threshold where no score is high enough: above 1, which no prediction reaches.
NEVER = 1.01


@dataclass(frozen=True)
class Band:
    """The band of unsure scores.

    The accuracy is optimistic, because the same images chose the threshold.

    Attributes:
        threshold: a top score below it is unsure; 0: none is; `NEVER`: all are.
        images: number of validation images that chose it.
        sure: number of those with a top score above it.
        accuracy: on those; None where there are none.
    """

    threshold: float
    images: int
    sure: int
    accuracy: float | None

    def unsure(self, score: float) -> bool:
        """Return whether a prediction with this top score is unsure."""
        return score < self.threshold

    def as_json(self) -> dict[str, Any]:
        """Return the rule, its result and the number of images behind it, for JSON."""
        return {"right_at_least": RIGHT, **asdict(self)}

    def __str__(self) -> str:
        """Return the rule's result in one line."""
        if self.accuracy is None:
            few = f"no threshold reaches an accuracy of {RIGHT:.0%} on the {self.images} validation images"
            return f"all predictions are marked as unsure (?): {few}"
        if not self.threshold:
            return f"no prediction is marked as unsure: accuracy is {self.accuracy:.1%} on all {self.images} validation images"
        above = f"accuracy is {self.accuracy:.1%} on the {self.sure} of {self.images} validation images above it"
        return f"predictions with a score below {self.threshold:.4f} are marked as unsure (?): {above}"


def choose(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> Band:
    """Choose the lowest threshold with an accuracy of at least `RIGHT` on the images above it.

    A threshold is 0 or lies halfway between two top scores that occur: on one of them, the size of a batch would decide about
    that image.

    Args:
        probabilities: (n, classes) of validation images; n ≥ 1.
        targets: (n,), positions of the true classes.
    """
    right = probabilities.argmax(axis=1) == targets
    scores, position = np.unique(probabilities.max(axis=1).round(_DIGITS), return_inverse=True)  # rising
    n = np.bincount(position)[::-1].cumsum()[::-1]  # images at or above each score
    accuracy = np.bincount(position, weights=right)[::-1].cumsum()[::-1] / n
    enough = np.flatnonzero(accuracy >= RIGHT)
    if not len(enough):
        return Band(NEVER, len(targets), 0, None)
    lowest = int(enough[0])
    threshold = float(scores[lowest - 1 : lowest + 1].mean()) if lowest else 0.0
    return Band(threshold, len(targets), int(n[lowest]), float(accuracy[lowest]))


def of_model(model: Model, ui: Ui) -> Band | None:
    """Choose the band of a model, and report it; None, with a warning, where its validation predictions cannot be used."""
    try:
        validation = model.validation_predictions()
    except VggftError as error:
        ui.warn(f"{error} Without them no prediction can be marked as unsure.")
        return None
    chosen = choose(validation.probabilities, validation.targets)
    ui.say(str(chosen))
    return chosen
