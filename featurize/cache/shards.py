"""One file of the cache: rows of features under their images' digests, called by the sha256 of its own bytes.

So its name is its checksum, and nothing that ever changed a bit of it goes unnoticed. Layout:

    digest        (rows, 32) uint8, sha256 of each image's file
    <layer>       (rows, height, width, filters), one dataset a layer, a row a chunk, compressed with Zstandard
    attributes    version, fingerprint (JSON), and how the numbers were made: engine, batch_size, computed_from
"""

import contextlib
import errno
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from h5py._objects import phil
from numpy.typing import NDArray

from featurize import durable
from featurize.cache import zstd
from featurize.errors import VggftError

SHARD_VERSION = 1
_FILE_NAME = re.compile(r"[0-9a-f]{64}\.h5")
DIGEST = np.dtype("S32")  # compares as 32 raw bytes; only whole arrays are ever used, so trailing zeros are safe

# Zstandard level 1, on float16 outputs of VGG16 for 397 photographs: 3.0× smaller for block4_pool and 5.6× for block5_pool
# (LZ4, in the same run: 2.1× and 3.7×). LZ4 reads faster; either takes far less time than any engine here needs to compute
# them.
_LEVEL = 1
_COMPRESSION = hdf5plugin.Zstd(clevel=_LEVEL)
_AT_ONCE = 16  # rows that a thread compresses before it asks for more


class Damaged(Exception):
    """A file that is no sound shard; the message says in what way."""


@dataclass(frozen=True)
class Stamp:
    """What tells that a file was not touched since its bytes were last read: size in bytes, time in ns, inode."""

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Stamp":
        """Look at a file. Raises OSError."""
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


def pack(digests: Iterable[str]) -> NDArray[np.bytes_]:
    """Return hexadecimal sha256 digests as an array of 32 raw bytes each."""
    return np.frombuffer(bytes.fromhex("".join(digests)), DIGEST)


def unpack(digests: NDArray[np.bytes_]) -> list[str]:
    """Return packed digests in hexadecimal."""
    text = np.ascontiguousarray(digests).tobytes().hex()
    return [text[i : i + 64] for i in range(0, len(text), 64)]


def write(
    folder: Path,
    digests: NDArray[np.bytes_],
    features: Mapping[str, NDArray[np.float16]],
    attributes: Mapping[str, str],
) -> str:
    """Write one shard durably and return its name. The same rows and attributes give the same bytes, and so the same name."""
    data = io.BytesIO()
    # Closed before its bytes are taken: the image of an open file in the latest format has a wrong superblock checksum.
    with _new_file(data) as file:
        file.attrs["version"] = SHARD_VERSION
        for key, value in attributes.items():
            file.attrs[key] = value
        file["digest"] = digests.view(np.uint8).reshape(-1, DIGEST.itemsize)
        for layer, array in features.items():
            _store(file, layer, np.ascontiguousarray(array))
    view = data.getbuffer()
    name = hashlib.sha256(view).hexdigest()
    durable.write_bytes(path(folder, name), view)
    return name


def _new_file(data: io.BytesIO) -> h5py.File:
    """Create an HDF5 file in memory without a timestamp, which h5py's own `File(data, "w")` puts into the root group."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, data)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(b"shard", h5py.h5f.ACC_TRUNC, creation, access))


def _store(file: h5py.File, layer: str, array: NDArray[np.float16]) -> None:
    """Write a layer, its rows compressed in parallel. The bytes are those that HDF5 writes."""
    dataset = file.create_dataset(
        layer, array.shape, array.dtype, chunks=(1, *array.shape[1:]), compression=_COMPRESSION
    )
    compress = zstd.compressor(_LEVEL)
    if compress is None:
        dataset[...] = array
        return
    pieces = [array[first : first + _AT_ONCE] for first in range(0, len(array), _AT_ONCE)]
    with ThreadPoolExecutor(os.cpu_count(), "compress") as pool:
        frames = [frame for piece in pool.map(lambda rows: [compress(row) for row in rows], pieces) for frame in piece]
    with phil:  # h5py 3.14 does not take HDF5's lock for these calls itself
        for row, frame in enumerate(frames):
            dataset.id.write_direct_chunk((row, *(0 for _ in array.shape[1:])), frame)


def path(folder: Path, name: str) -> Path:
    """Return where the shard called `name` lies."""
    return folder / f"{name}.h5"


def present(folder: Path) -> dict[str, Stamp]:
    """Return the shards in a folder, by name: files of another name, and links, are none."""
    found = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # no folder yet
        for entry in entries:
            if _FILE_NAME.fullmatch(entry.name) and not entry.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # prune has just replaced it
                    found[entry.name[:-3]] = Stamp.of(Path(entry.path))
    return dict(sorted(found.items()))


def is_shard(path: Path) -> bool:
    """Return whether a file is a sound shard: a regular file whose sha256 is its name. Reads all of it."""
    try:
        regular = path.is_file() and not path.is_symlink()
        return regular and bool(_FILE_NAME.fullmatch(path.name)) and durable.sha256(path) == path.stem
    except OSError:
        return False


def may_be_damaged_shard(path: Path) -> bool:
    """Return whether a file in `damaged/` has the name that a shard has."""
    return bool(_FILE_NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink()


def check(folder: Path, name: str) -> None:
    """See that a shard's bytes are those it was written with.

    Raises:
        FileNotFoundError: it is gone.
        Damaged: they are not, or the disk cannot give them back.
        VggftError: they cannot be read for another reason.
    """
    try:
        if durable.sha256(path(folder, name)) != name:
            raise Damaged("its sha256 is not its name")
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EISDIR):
            raise VggftError(f"{path(folder, name)}: cannot be read ({error.strerror or error})") from None
        raise Damaged(f"cannot be read: {error.strerror or error}") from None


def open_sound(folder: Path, name: str, fingerprint: str) -> h5py.File:
    """Open a shard whose bytes were checked.

    Raises:
        FileNotFoundError: it is gone.
        Damaged: it is no shard of this fingerprint, or one from a newer vggft.
    """
    try:
        # The lock that HDF5 itself would take is refused by some network file systems, and shards never change.
        file = h5py.File(path(folder, name), "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(f"no HDF5 file ({error})") from None
    found = file.attrs.get("version"), file.attrs.get("fingerprint")
    if found != (SHARD_VERSION, fingerprint):
        file.close()
        raise Damaged(f"not of this cache: version {found[0]} of {SHARD_VERSION}, fingerprint {found[1]}")
    return file


def layers_of(file: h5py.File) -> list[str]:
    """Return the names of the layers that a shard holds."""
    return [key for key in file if key != "digest"]


def digests_of(file: h5py.File) -> NDArray[np.bytes_]:
    """Return the packed digests of a shard's rows."""
    packed: NDArray[np.bytes_] = file["digest"][...].reshape(-1).view(DIGEST)
    return packed


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Return how a shard's numbers were made, as it was handed to `write`."""
    return {key: value for key, value in file.attrs.items() if key != "version"}
