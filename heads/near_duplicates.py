"""Near-duplicates: pairs of images that are much more alike than different images of their class are, and groups of such images.

The distance of two images is 1 minus the cosine similarity of the square roots of their average-pooled features (the Hellinger
kernel; Arandjelović and Zisserman, CVPR 2012). The square root keeps a few strong filters from deciding alone. Scans, digits or
tiles of a map differ far less from each other than photographs do, so no distance is short in itself: distances are compared
with the typical distance between images of the same class. The numbers below are measured on photographs, drawings,
handwritten digits, and synthetic X-ray and satellite pictures (benchmarks/near_duplicates.py, docs/heads.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from featurize.process import interrupts
from featurize.wording import counted
from heads.features import Features

# Two images are near-duplicates up to this share of the typical distance; as are two that are each other's nearest image by a
# wide margin, up to a larger share. Two images of one group are never farther apart than `_DIAMETER` of it: without this limit,
# a class of similar images becomes one group through a chain of neighbours.
SHARE = 0.25
_SHARE_BY_MARGIN, _MARGIN = 0.4, 2 / 3
_DIAMETER = 0.5

_ROUNDING = 1e-6  # distance of features that are equal to rounding, whatever is typical
_FEW = 3  # other images of a class; with fewer, the typical distance is that to the images of all classes
# Where most images of a class are copies of one picture, their median distance is that between copies: far below this quantile
# of their distances and the median distance in the other classes. The smaller of the two is then what is typical.
_FAR = 0.9
_REFERENCES = 1_000  # images of a class that the typical distance is measured to
_NEIGHBOURS = 32  # of an image that are examined
_MEMBERS = 64  # of a group that are compared with those of another one
_ROWS_AT_ONCE = 256

Floats = NDArray[np.float32]
Positions = Sequence[int] | NDArray[np.intp]


@dataclass(frozen=True)
class Pair:
    """Positions of two near-duplicates, first < second, and their cosine similarity."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class Grouping:
    """What near-duplicates change about the groups of n images.

    Attributes:
        images: number of images.
        joined: number of images that are in one group with another image only because they are near-duplicates.
        groups: number of groups with near-duplicates joined.
        two_labels: for each group with near-duplicates of different classes, the paths of its images.
    """

    images: int
    joined: int
    groups: int
    two_labels: Sequence[Sequence[str]]

    def sentences(self) -> list[str]:
        """Return warnings for display: groups of two classes, and folds that grouping changes much."""
        two_labels = [f"near-duplicates under two labels, kept in one group: {', '.join(g)}" for g in self.two_labels]
        return [*two_labels, *self.about_folds()]

    def about_folds(self) -> list[str]:
        """Return a warning for display if grouping changes the folds much: for 10% of the images."""
        if 10 * self.joined < self.images:
            return []
        return [
            f"near-duplicates change the folds: {self.joined} of {counted(self.images, 'image')} are nearly identical to "
            f"another one, and no fold divides them ({counted(self.groups, 'group')} of images)"
        ]


def pairs(samples: Sequence[Sample], pooled: NDArray[np.floating[Any]]) -> list[Pair]:
    """Return the near-duplicates among n images, nearest first. Identical files are no pairs.

    Args:
        samples: n images; digests, labels and groups matter.
        pooled: their average-pooled features (n, filters).
    """
    similarities = _Similarities(samples, pooled)
    return [
        Pair(min(i, j), max(i, j), similarities.between([first], [second]).item())
        for first, second in _alike(similarities)
        for i in similarities.copies[first]
        for j in similarities.copies[second]
    ]


def together(features: Features) -> tuple[Features, Grouping]:
    """Return the same images with near-duplicates merged into one group, so that no fold divides them, and what that changes.

    Otherwise one of two near-identical pictures with the same wrong label could be in training while the other is held out.

    Args:
        features: must include "avg" pooling.
    """
    samples = features.samples
    similarities = _Similarities(samples, features.pooled["avg"])
    cluster_of, files = list(range(len(similarities.unit))), [[i] for i in range(len(similarities.unit))]
    for i, j in _alike(similarities):
        a, b = cluster_of[i], cluster_of[j]
        if a != b and similarities.within(files[a], files[b], _DIAMETER):
            for member in files[b]:
                cluster_of[member] = a
            files[a] += files[b]
            files[b] = []
    clusters = [sorted(i for file in cluster for i in similarities.copies[file]) for cluster in files]
    groups = features.groups
    near = [cluster for cluster in clusters if len({groups[i] for i in cluster}) > 1]
    named = _joined(groups, near)
    two_labels = [
        [samples[i].path for i in cluster] for cluster in near if len({samples[i].label for i in cluster}) > 1
    ]
    grouping = Grouping(len(samples), sum(map(len, near)), len(set(named)), two_labels)
    grouped = [replace(sample, group=group) for sample, group in zip(samples, named, strict=True)]
    return replace(features, samples=grouped), grouping


def _joined(groups: Sequence[str], clusters: Sequence[Sequence[int]]) -> list[str]:
    """Return the group of each image, where the groups of the images of each cluster are one group."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            group = parent[group]
        return group

    for cluster in clusters:
        first = root(groups[cluster[0]])
        for i in cluster[1:]:
            parent[root(groups[i])] = first
    return [root(group) for group in groups]


class _Similarities:
    """Cosine similarities between m different files, computed in blocks.

    Attributes:
        copies: the positions of the images with the bytes of each file.
        unit: roots of their features, normalised to length 1 (m, filters).
        groups, labels: numbers (m,).
        typical: the typical distance of each file to different images (m,).
    """

    def __init__(self, samples: Sequence[Sample], pooled: NDArray[np.floating[Any]]) -> None:
        copies: dict[str, list[int]] = {}
        groups, labels = [], []  # of the first image with the bytes of each file
        for i, sample in enumerate(samples):
            if sample.digest not in copies:
                groups.append(sample.group)
                labels.append(sample.label)
            copies.setdefault(sample.digest, []).append(i)
        self.copies = list(copies.values())
        files = [positions[0] for positions in self.copies]
        roots = np.sqrt(np.maximum(pooled[files], 0).astype(np.float32))
        length = np.linalg.norm(roots, axis=1, keepdims=True)
        self.unit: Floats = roots / np.maximum(length, np.finfo(np.float32).tiny)
        self.groups = np.unique(groups, return_inverse=True)[1]
        self.labels = np.unique(labels, return_inverse=True)[1]
        self.typical = self._typical()

    def between(self, rows: Positions, columns: Positions) -> Floats:
        """Return the similarities of two sets of images (rows, columns)."""
        similar: Floats = np.minimum(self.unit[rows] @ self.unit[columns].T, 1)
        return similar

    def within(self, rows: Sequence[int], columns: Sequence[int], share: float) -> bool:
        """Return whether every image of one set is near every image of the other: up to this share of the typical distance.

        Of a large set, evenly spaced images are looked at.
        """
        rows, columns = (each[:: -(-len(each) // _MEMBERS)] for each in (rows, columns))
        limit = np.maximum(share * np.minimum.outer(self.typical[rows], self.typical[columns]), _ROUNDING)
        return bool((1 - self.between(rows, columns) <= limit).all())

    def blocks(
        self, rows: NDArray[np.intp], columns: NDArray[np.intp], same: NDArray[np.intp]
    ) -> Iterator[tuple[NDArray[np.intp], Floats]]:
        """Yield some of the rows, and their distances to the columns; infinite where `same`, a number an image, is equal."""
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            interrupts.check()
            part = rows[first : first + _ROWS_AT_ONCE]
            distances = 1 - self.between(part, columns)
            distances[same[part][:, None] == same[columns]] = np.inf
            yield part, distances

    def _typical(self) -> Floats:
        """Return the median distance of each image to the other images of its class, or of all classes if those are few.

        In place of a median that is the distance between copies, return what is far in the class, at most the median elsewhere.
        """
        typical, far = np.zeros((2, len(self.unit)), np.float32)
        for label in np.unique(self.labels):
            members = np.flatnonzero(self.labels == label)
            for rows, distances in self.blocks(members, _evenly(members), self.groups):
                distances.sort(axis=1)
                typical[rows], far[rows] = _quantile(distances, 0.5, _FEW), _quantile(distances, _FAR, _FEW)
        few = np.flatnonzero(typical < 0)
        for rows, distances in self.blocks(few, _evenly(np.arange(len(self.unit))), self.groups):
            distances.sort(axis=1)
            typical[rows] = np.maximum(_quantile(distances, 0.5, 1), 0)
        elsewhere = np.zeros_like(typical)
        for label in np.unique(self.labels):
            if (others := self.labels != label).any():
                elsewhere[~others] = np.median(typical[others])
        wider = np.minimum(far, elsewhere)
        return np.where(typical < SHARE * wider, wider, typical)


def _evenly(positions: NDArray[np.intp]) -> NDArray[np.intp]:
    return positions[:: -(-len(positions) // _REFERENCES)]


def _quantile(distances: Floats, share: float, least: int) -> Floats:
    """Return a lower quantile of the finite numbers of each row, which are in order; -1 for a row with fewer than `least`."""
    number = np.isfinite(distances).sum(axis=1)
    positions = (share * np.maximum(number - 1, 0)).astype(np.intp)
    quantile: Floats = distances[np.arange(len(distances)), positions]
    quantile[number < least] = -1
    return quantile


def _alike(similarities: _Similarities) -> list[tuple[int, int]]:
    """Return the positions of near-duplicates, first < second, nearest first."""
    n, typical = len(similarities.unit), similarities.typical
    if n < 2:
        return []
    examined = min(n, _NEIGHBOURS)
    nearest, to_nearest, to_next = np.zeros(n, np.intp), np.full(n, np.inf), np.full(n, np.inf)
    near: dict[tuple[int, int], float] = {}
    for rows, distances in similarities.blocks(np.arange(n), np.arange(n), np.arange(n)):
        columns = np.argpartition(distances, examined - 1, axis=1)[:, :examined]
        columns = np.take_along_axis(
            columns, np.take_along_axis(distances, columns, 1).argsort(axis=1, kind="stable"), 1
        )
        ordered = np.take_along_axis(distances, columns, 1)
        nearest[rows], to_nearest[rows], to_next[rows] = columns[:, 0], ordered[:, 0], ordered[:, 1]
        limit = np.maximum(SHARE * np.minimum(typical[rows][:, None], typical[columns]), _ROUNDING)
        for row, column in np.argwhere(ordered <= limit).tolist():
            near[_ordered(int(rows[row]), int(columns[row, column]))] = float(ordered[row, column])
    to_next = np.minimum(to_next, to_next[nearest])
    limit = np.minimum(_MARGIN * to_next, _SHARE_BY_MARGIN * np.minimum(typical, typical[nearest]))
    by_margin = (nearest[nearest] == np.arange(n)) & np.isfinite(to_next) & (to_nearest <= limit)
    for i in np.flatnonzero(by_margin).tolist():
        near[_ordered(i, int(nearest[i]))] = float(to_nearest[i])
    return sorted(near, key=lambda pair: (near[pair], pair))


def _ordered(i: int, j: int) -> tuple[int, int]:
    return (i, j) if i < j else (j, i)
