"""How far cached rows are from the same rows computed again."""

import contextlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from featurize.cache import shards
from featurize.cache.feature_cache import FeatureCache

# Each engine is within a relative error of 1e-3 of Keras in float32, so two engines are within twice as much of each other.
BOUND = 2e-3


class Recomputed:
    """A sink for `featurize.runner` that compares rows with those of a cache, and writes nothing.

    Attributes:
        errors: layer → relative error of each row: ‖again − cached‖₂ / ‖cached‖₂.
        engines: engine → number of rows that it computed for the cache.
    """

    def __init__(self, cache: FeatureCache) -> None:
        """Compare with a cache that has a row for every image that is computed."""
        self.errors: dict[str, list[float]] = defaultdict(list)
        self.engines: Counter[str] = Counter()
        self._cache = cache

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], attributes: Mapping[str, str]
    ) -> None:
        """Compare some rows."""
        for layer, again in features.items():
            cached = self._cache.read(layer, digests).astype(np.float64).reshape(len(digests), -1)
            distance = np.linalg.norm(again.astype(np.float64).reshape(cached.shape) - cached, axis=1)
            self.errors[layer] += (distance / np.maximum(np.linalg.norm(cached, axis=1), np.finfo(float).tiny)).tolist()
            self._count_engines(layer, digests)

    def writing_in_processes(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that does nothing."""
        return contextlib.nullcontext()

    def _count_engines(self, layer: str, digests: Sequence[str]) -> None:
        index = self._cache.positions
        names, numbers = list(index.shards), index.locate(layer, shards.pack(digests))[0]
        for number, count in zip(*np.unique(numbers, return_counts=True), strict=True):
            with self._cache.open(names[number]) as file:
                self.engines[str(shards.attributes_of(file).get("engine", "unknown"))] += int(count)
