"""How sure the order of models on the same images is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heads.metrics import losses, losses_otherwise
from vggft.comparison.statistics import resample


@dataclass(frozen=True)
class Certainty:
    """How sure it is that the first model is the best.

    Attributes:
        first: share of the draws, of whole groups of images, in which it has the lowest log-loss.
        alike: positions of the models that are not significantly worse: the 95% interval of the difference of log-loss,
            on the same images, contains 0.
    """

    first: float
    alike: tuple[int, ...]


def certainty(
    probabilities: Sequence[NDArray[np.float64]], targets: NDArray[np.int64], groups: Sequence[str]
) -> Certainty:
    """Resample the images as `vggft compare` does.

    Args:
        probabilities: (n, classes) of each model, the best one first.
        targets: (n,), indices of the true classes.
        groups: n names; images of one group are drawn together.
    """
    loss = np.stack([losses(p, targets) for p in probabilities], axis=1)
    otherwise = np.stack([losses_otherwise(p, targets) for p in probabilities], axis=1)
    right = np.stack([p.argmax(axis=1) == targets for p in probabilities], axis=1)
    resampled = resample(loss, otherwise, right, groups)
    first = float(np.mean(resampled.log_loss.argmin(axis=1) == 0))
    alike = (i for i in range(1, len(probabilities)) if resampled.log_loss_interval(0, i)[1] >= 0)
    return Certainty(first, tuple(alike))
