"""What heads read of a set of images, from the cache, once for all heads."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import POOLED, Architecture
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
    kept: Collection[str] = (),
) -> Features:
    """Read and pool the cached features of some images. Besides the result, only a few feature maps are in memory at a time.

    Args:
        targets: index of each sample's class.
        poolings: the poolings to compute.
        progress: called with the number of images read so far.
        kept: layers that featurize caches for every image; an image without features is reported to lack one of these.

    Raises:
        VggftError: an image has no cached features, or features that are not finite; the message names the image.
    """
    pooled: dict[Pooling, NDArray[Any]] = {}
    count = 0
    for of_poolings, positions, outputs in _outputs(cache, samples, poolings, kept):
        finite = np.isfinite(outputs.reshape(len(outputs), -1)).all(axis=1)
        if not finite.all():
            bad = samples[positions[int(np.argmin(finite))]]
            raise VggftError(
                f"{bad.path}: the cached features are NaN or infinite. Expected outputs below 65,504. Check the weights: "
                "featurize with other --weights, or remove the image."
            )
        pools = outputs.ndim == 4 and of_poolings != ["flatten"]
        rows = averages_and_maxima(outputs) if pools else outputs  # once for all poolings
        for pooling in of_poolings:
            values = vectors(outputs if pooling == "flatten" else rows, pooling)
            if pooling not in pooled:
                pooled[pooling] = np.empty((len(samples), values.shape[1]), values.dtype)
            pooled[pooling][positions] = values
        interrupts.check()
        if "flatten" in of_poolings or "flatten" not in poolings:  # else these images are read once more
            count += len(positions)
            progress(count)
    return Features(pooled, np.asarray(targets, np.int64), samples)


def layers_of(architecture: Architecture, pooling: Pooling) -> Sequence[str]:
    """Return the layers that heads with this pooling can read, in the order in which `sources` prefers them."""
    return [architecture.top] if pooling == "flatten" else [POOLED, architecture.top]


def sources(
    cache: FeatureCache, digests: NDArray[np.bytes_], layers: Sequence[str], otherwise: str
) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield each layer and the positions of the digests that are read from it: the first of `layers` that is cached.

    Training, prediction and comparison all use this: rows of two engines differ by rounding, so all have to read the same ones.

    Args:
        otherwise: the layer of digests that have a row in none of them.
    """
    left = np.arange(len(digests))
    for layer in layers:
        lacking = cache.lacks([layer], digests[left])
        yield layer, left[~lacking]
        left = left[lacking]
    yield otherwise, left


def _outputs(
    cache: FeatureCache, samples: Sequence[Sample], poolings: Sequence[Pooling], kept: Collection[str]
) -> Iterator[tuple[Sequence[Pooling], NDArray[np.intp], NDArray[np.float16]]]:
    """Yield poolings, positions in `samples` and the outputs that these poolings read."""
    digests, architecture = digests_of(samples), cache.architecture
    halves = [pooling for pooling in poolings if pooling != "flatten"]
    reads: list[tuple[Sequence[Pooling], str, NDArray[np.intp]]] = []
    unread = np.ones(len(digests), bool)  # by flatten
    if halves:
        otherwise = architecture.read_by_heads(kept)
        for layer, positions in sources(cache, digests, layers_of(architecture, halves[0]), otherwise):
            maps = layer == architecture.top  # read once for all poolings
            reads.append((poolings if maps else halves, layer, positions))
            unread[positions] &= not maps
    if "flatten" in poolings:
        reads.append((["flatten"], architecture.top, np.flatnonzero(unread)))
    for of_poolings, layer, positions in reads:
        size = max(1, _VALUES_AT_ONCE // int(np.prod(architecture.layer(layer).shape(cache.fingerprint.size))))
        for indices, outputs in cache.pieces(layer, digests[positions], size):
            yield of_poolings, positions[indices], outputs
