"""Data leaks: identical files under two labels or in two splits, and near-duplicate images across splits."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import SPLITS, Sample
from featurize.data.splits import conflicts
from heads.features import Features

# Images whose average-pooled top-layer outputs have at least this cosine similarity count as near-duplicates. Measured with VGG16
# on 397 photographs (benchmarks/near_duplicates.py): no two different photographs are above 0.87. Of copies saved again at JPEG
# quality 30, mirrored, or cropped by 2.5% on each side, 98% or more are above 0.95; of copies at half size, 92%. Series of
# similar drawings are above it, too.
THRESHOLD = 0.95

_ROWS_AT_ONCE = 256

Kind = Literal["same-bytes-two-labels", "same-bytes-two-splits", "near-duplicate"]


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


def near(samples: Sequence[Sample], pooled: NDArray[np.float32], threshold: float = THRESHOLD) -> list[Leak]:
    """Return near-duplicates across splits, most similar first: each image with its most similar image in an earlier split.

    The order of splits is train, validate, test. Identical files are left to `exact`.

    Args:
        samples: n images.
        pooled: their average-pooled features (n, filters).
    """
    unit = _unit(pooled)
    rank = np.array([SPLITS.index(sample.split) for sample in samples])
    digests = np.array([sample.digest for sample in samples])
    leaks = []
    for split in (1, 2):
        later, earlier = np.flatnonzero(rank == split), np.flatnonzero(rank < split)
        if not len(earlier):
            continue
        for first in range(0, len(later), _ROWS_AT_ONCE):
            rows = later[first : first + _ROWS_AT_ONCE]
            similar = unit[rows] @ unit[earlier].T
            similar[digests[rows][:, None] == digests[earlier]] = -1
            nearest = similar.argmax(axis=1)
            for row, column, value in zip(rows, nearest, similar[np.arange(len(rows)), nearest], strict=True):
                if value >= threshold:
                    pair = (samples[earlier[column]].path, samples[row].path)
                    leaks.append(Leak("near-duplicate", pair, min(1.0, float(value))))
    return sorted(leaks, key=lambda leak: -leak.similarity)


def together(features: Features, threshold: float = THRESHOLD) -> Features:
    """Return the same images with near-duplicates merged into one group, so that no fold divides them.

    Otherwise one of two near-identical pictures with the same wrong label could be in training while the other is held out.

    Args:
        features: must include "avg" pooling.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unit, groups = _unit(features.pooled["avg"]), features.groups
    joined = np.unique(groups, return_inverse=True)[1]  # group number of each image
    for first in range(0, len(unit), _ROWS_AT_ONCE):
        row, other = np.nonzero(unit[first : first + _ROWS_AT_ONCE] @ unit.T >= threshold)
        pairs = (joined[first + row], joined[other])
        graph = coo_array((np.ones(len(row), bool), pairs), shape=(joined.max() + 1,) * 2)
        joined = connected_components(graph, directed=False)[1][joined]
    names = [groups[i] for i in np.unique(joined, return_index=True)[1]]
    samples = [replace(sample, group=names[number]) for sample, number in zip(features.samples, joined, strict=True)]
    return replace(features, samples=samples)


def _unit(pooled: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(pooled, axis=1, keepdims=True)
    unit: NDArray[np.float32] = pooled / np.maximum(norms, np.finfo(np.float32).tiny)
    return unit
