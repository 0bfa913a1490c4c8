"""Estimates of disk space for features that have not been computed yet."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featurize.cache.feature_cache import FeatureCache
from featurize.errors import VggftError
from featurize.wording import counted, size


def bytes_needed(cache: FeatureCache, layers: Sequence[str], images: int) -> int:
    """Estimate the bytes on disk of some layers for a number of images, from the rows in this cache or from photographs."""
    return int(images * sum(cache.bytes_per_row(name) or _typical(cache, name) for name in layers))


def require_room(folder: Path, needed: int, images: int) -> None:
    """Check that the disk has enough free space.

    Raises:
        VggftError: it does not.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise VggftError(
            f"{folder}: not enough disk space for the features of {counted(images, 'image')}: {size(free)} free, about "
            f"{size(needed)} needed. Free some space, choose another disk (--cache or --workspace), or fewer layers "
            "(--layers) or views (--views)."
        )


def _typical(cache: FeatureCache, name: str) -> float:
    layer = cache.architecture.layer(name)
    values = np.prod(layer.shape(cache.fingerprint.size))
    return float(values * np.dtype(cache.fingerprint.dtype).itemsize / layer.compression)
