"""Zstandard compression in parallel threads; HDF5 itself compresses under a global lock.

The compressor is the one in hdf5plugin's filter library, so it gives the same bytes as the filter. If the library does not
export it, HDF5 compresses.
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
    """Return a function that compresses a C-contiguous array without holding the GIL; None if the filter does not export it."""
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
        length = compress(out.ctypes.data, out.nbytes, array.ctypes.data, array.nbytes, level)
        if failed(length):
            raise MemoryError(f"Zstandard failed on {array.nbytes} bytes")
        return out[:length].tobytes()

    return frame
