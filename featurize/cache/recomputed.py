"""The relative error of cached rows against the same rows computed again."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize.cache import shards
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import FEATURE_BOUNDS
from featurize.disk.digests import pack


class Recomputed:
    """A sink for `featurize.runner` that compares rows with those of a cache, and writes nothing.

    Attributes:
        bound: the largest relative error that is expected.
        errors: layer → relative error of each row: ‖again − cached‖₂ / ‖cached‖₂.
        far: files of the cache that hold rows beyond the bound.
        engines: engine → number of rows that it computed for the cache.
    """

    def __init__(self, cache: FeatureCache) -> None:
        """Compare with a cache that has a row for every image that is computed."""
        self.bound = FEATURE_BOUNDS[cache.fingerprint.precision]
        self.errors: dict[str, list[float]] = defaultdict(list)
        self.far: set[Path] = set()
        self.engines: Counter[str] = Counter()
        self._cache = cache

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], attributes: Mapping[str, str]
    ) -> None:
        """Compare some rows."""
        for layer, again in features.items():
            cached = self._cache.read(layer, digests).astype(np.float64).reshape(len(digests), -1)
            distance = np.linalg.norm(again.astype(np.float64).reshape(cached.shape) - cached, axis=1)
            errors = distance / np.maximum(np.linalg.norm(cached, axis=1), np.finfo(float).tiny)
            self.errors[layer] += errors.tolist()
            self._note_shards(layer, digests, errors)

    def writing_in_processes(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()

    def _note_shards(self, layer: str, digests: Sequence[str], errors: NDArray[np.float64]) -> None:
        index = self._cache.positions
        names, numbers = list(index.shards), index.locate(layer, pack(digests))[0]
        for number in np.unique(numbers):
            rows = numbers == number
            with self._cache.open(names[number]) as file:
                self.engines[str(shards.attributes_of(file).get("engine", "unknown"))] += int(rows.sum())
            if (errors[rows] > self.bound).any():
                self.far.add(shards.path(self._cache.shards, names[number]))
