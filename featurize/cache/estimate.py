"""How much room features will take, before they are computed."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featurize.backbone.layers import layer
from featurize.cache.feature_cache import FeatureCache
from featurize.errors import VggftError
from featurize.wording import counted, size

# Compression by Zstandard level 1 on 24 photographs of ants and bees, layer by layer from the pixels up: ReLU leaves the
# more zeros the deeper. Drawings compress better.
_RATIO = {
    "block1_conv1": 1.7,
    "block1_conv2": 1.4,
    "block1_pool": 1.2,
    "block2_conv1": 1.4,
    "block2_conv2": 1.7,
    "block2_pool": 1.4,
    "block3_conv1": 1.6,
    "block3_conv2": 1.7,
    "block3_conv3": 2.4,
    "block3_pool": 1.7,
    "block4_conv1": 2.2,
    "block4_conv2": 2.5,
    "block4_conv3": 5.1,
    "block4_pool": 3.0,
    "block5_conv1": 3.0,
    "block5_conv2": 3.5,
    "block5_conv3": 9.4,
    "block5_pool": 5.4,
}


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
            "layers: --layers block5_pool."
        )


def _typical(cache: FeatureCache, name: str) -> float:
    values = np.prod(layer(name).shape(cache.fingerprint.size))
    return float(values * np.dtype(cache.fingerprint.dtype).itemsize / _RATIO[name])
