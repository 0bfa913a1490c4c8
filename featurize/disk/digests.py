"""sha256 digests of files, packed into arrays: 32 bytes each, where the hexadecimal text takes 113 bytes of memory."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

DIGEST = np.dtype("S32")  # 32 raw bytes; NumPy strips trailing zeros of single elements, so only arrays are used
HEX = 2 * DIGEST.itemsize


def pack(digests: Iterable[str] | NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """Convert hexadecimal sha256 digests to an array of 32 raw bytes each; packed ones stay as they are."""
    if isinstance(digests, np.ndarray):
        return digests
    return np.frombuffer(bytes.fromhex("".join(digests)), DIGEST)


def unpack(digests: NDArray[np.bytes_]) -> list[str]:
    """Convert packed digests to hexadecimal."""
    text = np.ascontiguousarray(digests).tobytes().hex()
    return [text[i : i + HEX] for i in range(0, len(text), HEX)]
