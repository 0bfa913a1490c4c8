"""The cached features of some images, pooled: read once, for all heads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import interrupts
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.errors import VggftError
from heads.head import Pooling, pool

_ROWS_AT_ONCE = 256  # feature maps in memory at once: 13 MB


@dataclass(frozen=True)
class Features:
    """Pooled outputs of the top layer, of n images.

    Attributes:
        pooled: pooling → (n, inputs), float32; "flatten" float16, as cached (it is as many times larger as a map has places).
        targets: (n,), positions of the true classes.
        samples: the n images.
    """

    pooled: Mapping[Pooling, NDArray[Any]]
    targets: NDArray[np.int64]
    samples: Sequence[Sample]

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def groups(self) -> list[str]:
        """The group of each image: no fold parts one."""
        return [sample.group for sample in self.samples]

    def take(self, rows: slice | NDArray[np.integer[Any]]) -> "Features":
        """Return some of the images; a slice copies nothing."""
        samples = self.samples[rows] if isinstance(rows, slice) else [self.samples[i] for i in rows]
        return Features({name: x[rows] for name, x in self.pooled.items()}, self.targets[rows], samples)


def read(
    cache: FeatureCache,
    samples: Sequence[Sample],
    targets: Sequence[int],
    poolings: Sequence[Pooling],
    progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Read and pool what is cached of some images; memory beyond the result is that of a few feature maps.

    Args:
        targets: the class of each sample.
        poolings: those that are wanted.
        progress: told how many images are done.

    Raises:
        VggftError: an image without features, or one (named) whose features are no finite numbers.
    """
    pooled: dict[Pooling, NDArray[Any]] = {}
    done = 0
    for positions, maps in cache.pieces(cache.architecture.top, [sample.digest for sample in samples], _ROWS_AT_ONCE):
        finite = np.isfinite(maps).all(axis=(1, 2, 3))
        if not finite.all():
            bad = samples[positions[int(np.argmin(finite))]]
            raise VggftError(
                f"{bad.path}: its cached features are not finite numbers. Expected outputs below 65,504. Are the weights "
                "right? Remove the image, or featurize with other --weights."
            )
        for pooling in poolings:
            values = maps.reshape(len(maps), -1) if pooling == "flatten" else pool(maps, pooling)
            if pooling not in pooled:
                pooled[pooling] = np.empty((len(samples), values.shape[1]), values.dtype)
            pooled[pooling][positions] = values
        done += len(positions)
        interrupts.check()
        progress(done)
    return Features(pooled, np.asarray(targets, np.int64), samples)
