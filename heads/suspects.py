"""Suspected label errors: images for which most heads, not trained on them, predict another class."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample

# Fraction of the heads that must disagree with the label.
AGREEMENT = 0.75


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong, the class that the heads predict instead, and a score from 0 to 1.

    The score is 1 minus the mean probability of the label over the heads.
    """

    path: str
    label: str
    predicted: str
    score: float

    def as_json(self) -> dict[str, Any]:
        """Return {path, label, predicted, score}."""
        return asdict(self)


def find(
    samples: Sequence[Sample],
    classes: Sequence[str],
    predictions: Sequence[NDArray[np.float64]],
) -> list[Suspect]:
    """Return suspected label errors, highest score first.

    Args:
        samples: n images.
        predictions: out-of-fold probabilities (n, classes), one array per head.
    """
    p = np.stack(predictions)  # (heads, n, classes)
    labels = np.array([classes.index(sample.label) for sample in samples])
    disagreement = (p.argmax(axis=2) != labels).mean(axis=0)
    mean = p.mean(axis=0)
    rows = np.arange(len(samples))
    score = 1 - mean[rows, labels]
    mean[rows, labels] = -1
    other = mean.argmax(axis=1)
    suspected = sorted(np.flatnonzero(disagreement >= AGREEMENT).tolist(), key=lambda i: -score[i])
    return [Suspect(samples[i].path, samples[i].label, classes[other[i]], float(score[i])) for i in suspected]
