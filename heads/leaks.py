"""Images that are in two places at once: the same bytes, or nearly the same picture, on both sides of a split."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import SPLITS, Sample
from featurize.data.splits import conflicts
from heads.features import Features

# Cosine similarity of average-pooled outputs of the top layer from which two images count as near-duplicates. Measured with
# VGG16 on 397 photographs (benchmarks/near_duplicates.py): no two different ones are above 0.87; of copies that were saved
# again at JPEG quality 30, mirrored, or had 2.5% cut off each side, 98% or more are above 0.95, of halved ones 92%. Series of
# like drawings are, too.
THRESHOLD = 0.95

_ROWS_AT_ONCE = 256

Kind = Literal["same-bytes-two-labels", "same-bytes-two-splits", "near-duplicate"]


@dataclass(frozen=True)
class Leak:
    """Files that hold the same picture, or nearly; `similarity` is 1 for the same bytes."""

    kind: Kind
    paths: tuple[str, ...]
    similarity: float

    def as_json(self) -> dict[str, Any]:
        """Return {kind, paths, similarity}."""
        return {**asdict(self), "paths": list(self.paths)}


def exact(samples: Sequence[Sample]) -> list[Leak]:
    """Return the contents that occur under two labels or in two splits (duplicates that were set aside included)."""
    found = []
    for own in conflicts(samples):
        paths = tuple(sample.path for sample in own)
        if len({sample.label for sample in own}) > 1:
            found.append(Leak("same-bytes-two-labels", paths, 1.0))
        if len({sample.split for sample in own}) > 1:
            found.append(Leak("same-bytes-two-splits", paths, 1.0))
    return found


def near(samples: Sequence[Sample], pooled: NDArray[np.float32], threshold: float = THRESHOLD) -> list[Leak]:
    """Return near-duplicates across splits, the most similar first: for each image the most similar one of an earlier split.

    Earlier means validate before test, train before both. Copies (one digest) are `exact`'s.

    Args:
        samples: n images; pooled: their average-pooled features (n, filters).
    """
    unit = _unit(pooled)
    rank = np.array([SPLITS.index(sample.split) for sample in samples])
    digests = np.array([sample.digest for sample in samples])
    found = []
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
                    found.append(Leak("near-duplicate", pair, min(1.0, float(value))))
    return sorted(found, key=lambda leak: -leak.similarity)


def together(features: Features, threshold: float = THRESHOLD) -> Features:
    """Return the same images with near-duplicates in one group, so that no fold holds out what another one learnt.

    Two copies of a wrongly labelled picture would otherwise vouch for each other.

    Args:
        features: with "avg" pooled.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    unit, groups = _unit(features.pooled["avg"]), features.groups
    joined = np.unique(groups, return_inverse=True)[1]  # a number for each image, the same within a group
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
