"""Below which score a prediction is unsure: chosen on the validation images, by one stated rule."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# How often predictions that are not marked were right on the validation images, at least.
RIGHT = 0.95

# The threshold where no score will do: above 1, which no prediction reaches.
NEVER = 1.01


@dataclass(frozen=True)
class Band:
    """The unsure scores: those below a threshold.

    The accuracy is that of the images that chose the threshold, so it is an optimistic one.

    Attributes:
        threshold: a top score below it is unsure. 0: none is; `NEVER`: all are.
        images: how many validation images chose it.
        sure: how many of them have a top score at or above it.
        accuracy: of those; None where there are none.
    """

    threshold: float
    images: int
    sure: int
    accuracy: float | None

    def unsure(self, score: float) -> bool:
        """Say whether a prediction with this top score is unsure."""
        return score < self.threshold

    def as_json(self) -> dict[str, Any]:
        """Return the rule, its outcome and what it rests on, for JSON."""
        return {"right_at_least": RIGHT, **asdict(self)}

    def __str__(self) -> str:
        """Say it in one line."""
        on = f"{self.images} validation images"
        if self.accuracy is None:
            return f"all predictions are unsure (?): the highest scores of the {on} were right less than {RIGHT:.0%} of the time"
        right = f"right {self.accuracy:.1%} of the time"
        if not self.threshold:
            return f"no prediction is unsure: on {on} this model was {right}, at least {RIGHT:.0%} is asked for"
        return f"unsure (?) is a score below {self.threshold:.4f}: the {self.sure} of {on} that are not were {right}"


def choose(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> Band:
    """Choose the lowest threshold at or above which predictions were right `RIGHT` of the time.

    Thresholds are the top scores that occur, images of equal score standing or falling together; and 0, where all images
    together were right that often.

    Args:
        probabilities: (n, classes) of validation images; n ≥ 1.
        targets: (n,), positions of the true classes.
    """
    right = probabilities.argmax(axis=1) == targets
    scores, own = np.unique(probabilities.max(axis=1), return_inverse=True)  # rising
    n = np.bincount(own)[::-1].cumsum()[::-1]  # images at or above each score
    accuracy = np.bincount(own, weights=right)[::-1].cumsum()[::-1] / n
    enough = np.flatnonzero(accuracy >= RIGHT)
    if not len(enough):
        return Band(NEVER, len(targets), 0, None)
    lowest = int(enough[0])
    threshold = float(scores[lowest]) if lowest else 0.0
    return Band(threshold, len(targets), int(n[lowest]), float(accuracy[lowest]))
