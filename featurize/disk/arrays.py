"""Files of arrays that are derived from other files: HDF5, followed by a checksum of all bytes before it.

HDF5 ignores what follows its last byte, so any HDF5 program reads these files. Arrays are stored as they are in memory, so that
reading one is one copy. The checksum is CRC-32, which finds every flipped byte at 2 GB/s, five times as fast as sha256: it
protects from damage, and nobody gains by forging a file that is derived from others.
"""

import contextlib
import io
import os
import re
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize.disk import durable
from featurize.disk.digests import DIGEST

_END = "crc32 {:08x}\n"  # what follows the last byte of HDF5
_END_BYTES = len(_END.format(0))
_AN_END = re.compile(rb"crc32 [0-9a-f]{8}\n")
_BLOCK = 1 << 20
_WRONG = "damaged: its checksum is wrong"


def write(path: Path, fill: Callable[[h5py.File], None], then: str = durable.AGAIN) -> None:
    """Replace a file; `fill` writes its arrays and attributes. `then` and errors as in `durable.replacing`."""
    with durable.replacing(path, then) as file:
        with h5py.File(file, "w", libver="latest") as stored:
            fill(stored)
        size = file.seek(0, os.SEEK_END)
        file.write(_end(file, size))


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file of `write`, to be passed to h5py.

    Raises:
        OSError: it is missing, or cannot be read.
        ValueError: it is damaged.
    """
    file = durable.open_regular(path)
    try:
        size = file.seek(0, os.SEEK_END) - _END_BYTES
        if size < 0 or _last(file, size) != _end(file, size):
            raise ValueError(_WRONG)
    except BaseException:
        file.close()
        raise
    return file


def may_be_replaced(path: Path) -> bool:
    """Return whether there is no file, or one that ends as those of `write` do, and so is no file of a person."""
    try:
        with durable.open_regular(path) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END_BYTES))
            return _AN_END.fullmatch(file.read()) is not None
    except OSError:  # also what is no file
        return not os.path.lexists(path)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[tuple[h5py.File, bytearray]]:
    """Read a file of `write` into memory; yield it as HDF5, and its bytes, for `array`. Errors as in `open_regular`."""
    with durable.open_regular(path) as file:
        data = bytearray(os.fstat(file.fileno()).st_size)
        size = len(data) - _END_BYTES
        if file.readinto(data) != len(data) or size < 0:
            raise ValueError("truncated")
        if data[size:] != _END.format(zlib.crc32(memoryview(data)[:size])).encode():
            raise ValueError(_WRONG)
        with h5py.File(file, "r") as stored:
            yield stored, data


def array(dataset: h5py.Dataset, data: bytearray) -> NDArray[Any]:
    """Return a dataset of a file whose bytes are in memory, without copying them.

    Raises:
        ValueError: it is not stored as it is in memory, so that `write` did not write it.
    """
    if not dataset.size:
        return np.empty(dataset.shape, dataset.dtype)
    offset = dataset.id.get_offset()
    if offset is None or dataset.id.get_storage_size() != dataset.nbytes:
        raise ValueError(f"{dataset.name}: not one block of numbers")
    return np.frombuffer(data, dataset.dtype, dataset.size, offset).reshape(dataset.shape)


class Stored(Mapping[str, NDArray[Any]]):
    """The arrays of a file of `write_all`, each read when it is first used. The file stays open, and nothing changes in it."""

    def __init__(self, path: Path) -> None:
        """Open a file; errors as in `open_regular`."""
        data = open_regular(path)
        self._file = h5py.File(data, "r")
        self._closed = weakref.finalize(self, _close, self._file, data)
        self.attributes: Mapping[str, Any] = dict(self._file.attrs)
        self._names: list[str] = []
        self._file.visititems(lambda name, x: self._names.append(name) if isinstance(x, h5py.Dataset) else None)
        self._read: dict[str, NDArray[Any]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._read:
            values = self._file[name][...]
            self._read[name] = values.reshape(-1).view(DIGEST) if values.ndim > 1 else values
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def write_all(path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> None:
    """Write a file for `Stored`: arrays of one dimension, of numbers or packed digests. Errors as in `durable.replacing`."""

    def fill(file: h5py.File) -> None:
        file.attrs.update(attributes)
        for name, values in arrays.items():
            file[name] = values.view(np.uint8).reshape(-1, DIGEST.itemsize) if values.dtype == DIGEST else values

    write(path, fill)


def _close(file: h5py.File, data: BinaryIO) -> None:
    file.close()
    data.close()


def _last(file: BinaryIO, size: int) -> bytes:
    file.seek(size)
    return file.read()


def _end(file: BinaryIO, size: int) -> bytes:
    """Return what follows the first `size` bytes of a file; its position is then after them."""
    file.seek(0)
    checksum, left = 0, size
    while left:
        block = file.read(min(left, _BLOCK))
        if not block:
            raise ValueError("truncated")
        checksum, left = zlib.crc32(block, checksum), left - len(block)
    return _END.format(checksum).encode()
