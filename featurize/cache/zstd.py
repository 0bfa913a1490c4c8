"""Zstandard frames as HDF5's filter makes them, but in many threads at once: HDF5 itself compresses under a global lock.

The compressor is the one inside hdf5plugin's filter, so the bytes are the filter's own. Where it cannot be called (a filter
that does not export it), HDF5 compresses, to the same bytes.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import hdf5plugin
import numpy as np
from numpy.typing import NDArray


@functools.cache
def compressor(level: int) -> Callable[[NDArray[Any]], bytes] | None:
    """Return what compresses a C-contiguous array, without Python's lock; None where the filter does not export it."""
    try:
        library = ctypes.CDLL(hdf5plugin.get_config().registered_filters["zstd"])
        bound, compress, failed = library.ZSTD_compressBound, library.ZSTD_compress, library.ZSTD_isError
    except (KeyError, OSError, AttributeError):
        return None
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    bound.argtypes, bound.restype = [size], size
    failed.argtypes, failed.restype = [size], ctypes.c_uint
    compress.argtypes, compress.restype = [pointer, size, pointer, size, ctypes.c_int], size

    def frame(array: NDArray[Any]) -> bytes:
        out = np.empty(bound(array.nbytes), np.uint8)
        taken = compress(out.ctypes.data, out.nbytes, array.ctypes.data, array.nbytes, level)
        if failed(taken):
            raise MemoryError(f"Zstandard failed on {array.nbytes} bytes")
        return out[:taken].tobytes()

    return frame
