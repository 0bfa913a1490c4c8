"""How much room features will take, before they are computed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featurize.cache.feature_cache import FeatureCache
from featurize.errors import VggftError
from featurize.wording import counted, size


def bytes_needed(cache: FeatureCache, layers: Sequence[str], images: int) -> int:
    """Estimate the bytes on disk of some layers of so many images: as in this cache so far, or as photographs take."""
    return int(images * sum(cache.bytes_per_row(name) or _typical(cache, name) for name in layers))


def require_room(folder: Path, needed: int, images: int) -> None:
    """See that a disk holds what is to be computed.

    Raises:
        VggftError: it does not.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise VggftError(
            f"{folder}: the features of {counted(images, 'image')} will take about {size(needed)}, and {size(free)} are free "
            "there. Free some space, put the workspace on another disk with --workspace, or keep fewer "
            "layers with --layers."
        )


def _typical(cache: FeatureCache, name: str) -> float:
    layer = cache.architecture.layer(name)
    values = np.prod(layer.shape(cache.fingerprint.size))
    return float(values * np.dtype(cache.fingerprint.dtype).itemsize / layer.compression)
