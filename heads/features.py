"""Pooled features of a set of images, read from the cache once for all heads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample, digests_of
from featurize.errors import VggftError
from featurize.process import interrupts
from heads.head import pool
from heads.specs import Pooling

_ROWS_AT_ONCE = 256  # feature maps in memory at once: 13 MB


@dataclass(frozen=True)
class Features:
    """Pooled outputs of the top layer for n images.

    Attributes:
        pooled: pooling → (n, inputs), float32. "flatten" is float16, as cached, because it is height · width times larger.
        targets: (n,), indices of the true classes.
        samples: the n images.
        views: `pooled` of each view of the n images.
    """

    pooled: Mapping[Pooling, NDArray[Any]]
    targets: NDArray[np.int64]
    samples: Sequence[Sample]
    views: Sequence[Mapping[Pooling, NDArray[Any]]] = ()

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def groups(self) -> list[str]:
        """The group of each image; cross-validation never divides a group."""
        return [sample.group for sample in self.samples]

    def with_views(self, number: int) -> "Features":
        """Return the images with no more than their first views."""
        return replace(self, views=self.views[:number])

    def take(self, rows: slice | NDArray[np.integer[Any]]) -> "Features":
        """Return the images at `rows`; a slice makes no copy."""
        samples = self.samples[rows] if isinstance(rows, slice) else [self.samples[i] for i in rows]
        pooled, *views = [{name: x[rows] for name, x in pooled.items()} for pooled in (self.pooled, *self.views)]
        return Features(pooled, self.targets[rows], samples, tuple(views))


def read(
    cache: FeatureCache,
    samples: Sequence[Sample],
    targets: Sequence[int],
    poolings: Sequence[Pooling],
    progress: Callable[[int], None] = lambda count: None,
) -> Features:
    """Read and pool the cached features of some images. Besides the result, only a few feature maps are in memory at a time.

    Args:
        targets: index of each sample's class.
        poolings: the poolings to compute.
        progress: called with the number of images read so far.

    Raises:
        VggftError: an image has no cached features, or features that are not finite; the message names the image.
    """
    pooled: dict[Pooling, NDArray[Any]] = {}
    count = 0
    for positions, maps in cache.pieces(cache.architecture.top, digests_of(samples), _ROWS_AT_ONCE):
        finite = np.isfinite(maps).all(axis=(1, 2, 3))
        if not finite.all():
            bad = samples[positions[int(np.argmin(finite))]]
            raise VggftError(
                f"{bad.path}: the cached features are NaN or infinite. Expected outputs below 65,504. Check the weights: "
                "featurize with other --weights, or remove the image."
            )
        for pooling in poolings:
            values = maps.reshape(len(maps), -1) if pooling == "flatten" else pool(maps, pooling)
            if pooling not in pooled:
                pooled[pooling] = np.empty((len(samples), values.shape[1]), values.dtype)
            pooled[pooling][positions] = values
        count += len(positions)
        interrupts.check()
        progress(count)
    return Features(pooled, np.asarray(targets, np.int64), samples)
