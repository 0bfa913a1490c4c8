"""Misclassified images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOWN = 5  # in the terminal; the files have all


def mistakes(
    paths: Sequence[str], targets: NDArray[np.int64], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Return {path, label, predicted, score} of the images for which another class was predicted, the most confident ones first.

    Args:
        targets: positions of the labels among the classes (n,).
        probabilities: (n, classes).
    """
    predicted, scores = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != targets)
    return [
        {
            "path": paths[i],
            "label": classes[targets[i]],
            "predicted": classes[predicted[i]],
            "score": float(scores[i]),
        }
        for i in wrong[np.argsort(-scores[wrong], kind="stable")]
    ]
