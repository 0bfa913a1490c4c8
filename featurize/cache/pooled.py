"""Averages and maxima over the positions of feature maps, as they are cached under `POOLED` and as heads read them.

They are taken of the maps as the cache stores them, so that a row is the same whether it is computed beside the maps, instead
of them, or from cached ones.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def averages_and_maxima(maps: NDArray[Any]) -> NDArray[np.float16]:
    """Return averages and maxima of feature maps.

    Args:
        maps: (n, height, width, filters), float16, or float32 that is rounded to float16 first, as in the cache.

    Returns:
        float16 (n, 2, filters): averages, computed in float32, then maxima, which are exact.
    """
    with np.errstate(over="ignore"):  # infinite rows are found and reported by whoever stores or reads them
        stored = maps.astype(np.float16, copy=False)
    # C order, because the order of the summands, which decides the last bit, follows from the layout in memory.
    values = np.ascontiguousarray(stored, np.float32)
    return np.stack([values.mean(axis=(1, 2)), values.max(axis=(1, 2))], axis=1).astype(np.float16)
