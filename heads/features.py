"""What heads read of a set of images, from the cache, once for all heads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import POOLED
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.pooled import averages_and_maxima
from featurize.data.dataset import Sample, digests_of
from featurize.errors import VggftError
from featurize.process import interrupts
from heads.specs import Pooling

_VALUES_AT_ONCE = 256 * 7 * 7 * 512  # in memory: 13 MB, which are 256 feature maps of VGG16


@dataclass(frozen=True)
class Features:
    """Pooled outputs of the top layer for n images.

    Attributes:
        pooled: pooling → (n, inputs), as `vectors`. "flatten" stays float16, because it is height · width times larger.
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


def vectors(outputs: NDArray[Any], pooling: Pooling) -> NDArray[Any]:
    """Turn cached outputs into what a head reads.

    Averages are rounded to float16, so that a head reads the same numbers from either.

    Args:
        outputs: float16 feature maps (n, height, width, filters), or rows of `POOLED` (n, 2, filters).
        pooling: as in `heads.head.pool`; "flatten" needs feature maps.

    Returns:
        (n, inputs): float32; for "flatten" float16.
    """
    if pooling == "flatten":
        return outputs.reshape(len(outputs), -1)
    rows = outputs if outputs.ndim == 3 else averages_and_maxima(outputs)
    halves = {"avg": rows[:, 0], "max": rows[:, 1], "avgmax": rows.reshape(len(rows), -1)}
    return halves[pooling].astype(np.float32)


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
    for positions, outputs in _outputs(cache, samples, poolings):
        finite = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
        if not finite.all():
            bad = samples[positions[int(np.argmin(finite))]]
            raise VggftError(
                f"{bad.path}: the cached features are NaN or infinite. Expected outputs below 65,504. Check the weights: "
                "featurize with other --weights, or remove the image."
            )
        pools = outputs.ndim == 4 and set(poolings) != {"flatten"}
        rows = averages_and_maxima(outputs) if pools else outputs  # once for all poolings
        for pooling in poolings:
            values = vectors(outputs if pooling == "flatten" else rows, pooling)
            if pooling not in pooled:
                pooled[pooling] = np.empty((len(samples), values.shape[1]), values.dtype)
            pooled[pooling][positions] = values
        count += len(positions)
        interrupts.check()
        progress(count)
    return Features(pooled, np.asarray(targets, np.int64), samples)


def _outputs(
    cache: FeatureCache, samples: Sequence[Sample], poolings: Sequence[Pooling]
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float16]]]:
    """Yield positions in `samples` and their outputs: of `POOLED` where that suffices and is there, else of the last layer."""
    digests, architecture = digests_of(samples), cache.architecture
    if "flatten" in poolings:
        from_maps = np.ones(len(digests), bool)
    elif architecture.top in cache.layers or POOLED not in cache.layers:
        from_maps = cache.lacks([POOLED], digests)
    else:
        from_maps = np.zeros(len(digests), bool)
    for layer, of_layer in ((POOLED, np.flatnonzero(~from_maps)), (architecture.top, np.flatnonzero(from_maps))):
        size = max(1, _VALUES_AT_ONCE // int(np.prod(architecture.layer(layer).shape(cache.fingerprint.size))))
        for positions, outputs in cache.pieces(layer, digests[of_layer], size):
            yield of_layer[positions], outputs
