"""Data leaks: identical files and near-duplicate images under two labels or in two splits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import SPLITS, Sample
from featurize.data.splits import conflicts
from heads import near_duplicates

Kind = Literal["same-bytes-two-labels", "same-bytes-two-splits", "near-duplicate", "near-duplicate-two-labels"]


@dataclass(frozen=True)
class Leak:
    """Files with the same or nearly the same picture; `similarity` is 1 for identical bytes."""

    kind: Kind
    paths: tuple[str, ...]
    similarity: float

    def as_json(self) -> dict[str, Any]:
        """Return {kind, paths, similarity}."""
        return {**asdict(self), "paths": list(self.paths)}


def exact(samples: Sequence[Sample]) -> list[Leak]:
    """Return identical files under two labels or in two splits, including duplicates that were set aside."""
    leaks = []
    for copies in conflicts(samples):
        paths = tuple(sample.path for sample in copies)
        if len({sample.label for sample in copies}) > 1:
            leaks.append(Leak("same-bytes-two-labels", paths, 1.0))
        if len({sample.split for sample in copies}) > 1:
            leaks.append(Leak("same-bytes-two-splits", paths, 1.0))
    return leaks


def near(samples: Sequence[Sample], pooled: NDArray[np.floating[Any]]) -> list[Leak]:
    """Return near-duplicates across splits and labels, most similar first. Identical files are left to `exact`.

    Across splits, each image is returned with its most similar image in an earlier split; the order of splits is train,
    validate, test.

    Args:
        samples: n images.
        pooled: their average-pooled features (n, filters).
    """
    across_splits: dict[int, Leak] = {}
    across_labels = []
    for pair in near_duplicates.pairs(samples, pooled):  # nearest first
        first, second = pair.first, pair.second
        if samples[first].digest == samples[second].digest:
            continue
        if SPLITS.index(samples[first].split) > SPLITS.index(samples[second].split):
            first, second = second, first
        paths = (samples[first].path, samples[second].path)
        if samples[first].label != samples[second].label:
            across_labels.append(Leak("near-duplicate-two-labels", paths, pair.similarity))
        if samples[first].split != samples[second].split and second not in across_splits:
            across_splits[second] = Leak("near-duplicate", paths, pair.similarity)
    return sorted([*across_labels, *across_splits.values()], key=lambda leak: -leak.similarity)
