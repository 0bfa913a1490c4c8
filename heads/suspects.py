"""Images whose label the heads agree is wrong, from predictions of heads that never saw them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample

# Part of the heads that must predict another class than the label.
AGREEMENT = 0.75


@dataclass(frozen=True)
class Suspect:
    """An image whose label may be wrong: what the heads say instead, and how sure of it they are (0 to 1)."""

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
    """Return the suspects, the worst first.

    Args:
        samples: n images.
        predictions: out-of-fold probabilities (n, classes) of each head.
    """
    p = np.stack(predictions)  # (heads, n, classes)
    labels = np.array([classes.index(sample.label) for sample in samples])
    against = (p.argmax(axis=2) != labels).mean(axis=0)
    mean = p.mean(axis=0)
    rows = np.arange(len(samples))
    score = 1 - mean[rows, labels]
    mean[rows, labels] = -1
    other = mean.argmax(axis=1)
    chosen = sorted(np.flatnonzero(against >= AGREEMENT).tolist(), key=lambda i: -score[i])
    return [Suspect(samples[i].path, samples[i].label, classes[other[i]], float(score[i])) for i in chosen]
