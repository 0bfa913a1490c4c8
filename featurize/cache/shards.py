"""Shards, the immutable files of the cache: rows of features and the digests of their images.

The name of a shard is the sha256 of its bytes, so any damage is detected. Layout:

    digest        (rows, 32) uint8, sha256 of each image file
    <layer>       (rows, height, width, filters), one dataset per layer, one chunk per row, compressed with Zstandard;
                  pooled (rows, 2, filters), 64 rows per chunk
    attributes    version, fingerprint (JSON), and how the rows were computed: engine, batch_size, computed_from
"""

import contextlib
import errno
import hashlib
import io
import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from h5py._objects import phil
from numpy.typing import NDArray

from featurize.backbone.architecture import POOLED, Architecture
from featurize.cache import zstd
from featurize.cache.fingerprint import Fingerprint
from featurize.disk import durable
from featurize.disk.digests import DIGEST
from featurize.disk.stamp import Stamp
from featurize.errors import VggftError
from featurize.process import cores

SHARD_VERSION = 1
_FILE_NAME = re.compile(r"[0-9a-f]{64}\.h5")

# Zstandard level 1 compresses float16 outputs of VGG16 for 397 photographs 3.0× for block4_pool and 5.6× for block5_pool (LZ4:
# 2.1× and 3.7×). LZ4 decompresses faster, but both take far less time than any engine takes to compute the rows.
_LEVEL = 1
_COMPRESSION = hdf5plugin.Zstd(clevel=_LEVEL)
_ROWS_PER_TASK = 16  # compressed by a thread
# Of layers with small rows: for 512 rows of VGG16, one a chunk took ten times as long to read, and 6% more room. From 16 rows a
# chunk on, there was no difference.
_ROWS_PER_CHUNK = {POOLED: 64}


class Damaged(Exception):
    """A file that is not a valid shard; the message is the reason."""


def write(
    folder: Path,
    digests: NDArray[np.bytes_],
    features: Mapping[str, NDArray[np.float16]],
    attributes: Mapping[str, str],
) -> str:
    """Write a shard durably and return its name. Equal rows and attributes give the same bytes, so the same name."""
    data = io.BytesIO()
    # The file is closed before its bytes are hashed: while open, the latest format has a wrong superblock checksum.
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
    """Create an HDF5 file in memory without the timestamp that h5py's `File(data, "w")` stores in the root group."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, data)
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    return h5py.File(h5py.h5f.create(b"shard", h5py.h5f.ACC_TRUNC, creation, access))


def _store(file: h5py.File, layer: str, array: NDArray[np.float16]) -> None:
    """Write a layer, compressing its chunks in parallel. The bytes are the same as with HDF5's own compression."""
    of_chunk = chunk(layer, array.shape)
    dataset = file.create_dataset(layer, array.shape, array.dtype, chunks=of_chunk, compression=_COMPRESSION)
    compress = zstd.compressor(_LEVEL)
    if compress is None:
        dataset[...] = array
        return
    padding = np.zeros((-len(array) % of_chunk[0], *of_chunk[1:]), array.dtype)  # HDF5 stores whole chunks
    chunks = (np.concatenate([array, padding]) if len(padding) else array).reshape(-1, *of_chunk)
    tasks = [chunks[first : first + _ROWS_PER_TASK] for first in range(0, len(chunks), _ROWS_PER_TASK)]
    with ThreadPoolExecutor(cores.usable(), "compress") as pool:
        frames = [frame for task in pool.map(lambda some: [compress(each) for each in some], tasks) for frame in task]
    with phil:  # h5py 3.14 does not acquire HDF5's lock for these calls
        for number, frame in enumerate(frames):
            dataset.id.write_direct_chunk((number * of_chunk[0], *(0 for _ in array.shape[1:])), frame)


def chunk(layer: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a chunk of a layer; `shape`: of all its rows in a shard."""
    return (min(_ROWS_PER_CHUNK.get(layer, 1), shape[0]), *shape[1:])


def path(folder: Path, name: str) -> Path:
    """Return the path of the shard `name`."""
    return folder / f"{name}.h5"


def present(folder: Path) -> dict[str, Stamp]:
    """Return the shards in a folder, name → stamp. Links and files with other names are ignored."""
    stamps = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:  # the folder may not exist yet
        for entry in entries:
            if _FILE_NAME.fullmatch(entry.name) and not entry.is_symlink():
                with contextlib.suppress(FileNotFoundError):  # deleted by prune meanwhile
                    stamps[entry.name[:-3]] = Stamp.of(Path(entry.path))
    return dict(sorted(stamps.items()))


def is_shard(path: Path) -> bool:
    """Return whether a file is an undamaged shard: a regular file whose sha256 is its name. Reads the whole file."""
    try:
        regular = path.is_file() and not path.is_symlink()
        return regular and bool(_FILE_NAME.fullmatch(path.name)) and durable.sha256(path) == path.stem
    except OSError:
        return False


def may_be_damaged_shard(path: Path) -> bool:
    """Return whether a regular file has a shard's name; for files in `damaged/`."""
    return bool(_FILE_NAME.fullmatch(path.name)) and path.is_file() and not path.is_symlink()


def check(folder: Path, name: str) -> None:
    """Verify the hash of a shard.

    Raises:
        FileNotFoundError: the shard does not exist.
        Damaged: the hash differs, or the disk has a read error.
        VggftError: the shard cannot be read for another reason, such as permissions.
    """
    try:
        if durable.sha256(path(folder, name)) != name:
            raise Damaged("sha256 differs from the file name")
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EISDIR, errno.EINVAL):
            raise VggftError(
                f"{path(folder, name)}: cannot be read ({error.strerror or error}). Check its permissions, and run the command "
                "again."
            ) from None
        raise Damaged(f"cannot be read: {error.strerror or error}") from None


def open_sound(folder: Path, name: str, fingerprint: str) -> h5py.File:
    """Open a shard whose hash has been verified.

    Raises:
        FileNotFoundError: the shard does not exist.
        Damaged: the file is not HDF5, or a shard of another fingerprint or version.
    """
    try:
        durable.require_regular(path(folder, name))
        # Without HDF5's lock, which some network file systems refuse; shards never change.
        file = h5py.File(path(folder, name), "r", locking=False)
    except FileNotFoundError:
        raise
    except OSError as error:
        if not path(folder, name).exists():  # deleted while HDF5 opened it
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path(folder, name))) from None
        raise Damaged(f"not an HDF5 file ({error})") from None
    stored = file.attrs.get("version"), file.attrs.get("fingerprint")
    if stored != (SHARD_VERSION, fingerprint):
        file.close()
        raise Damaged(
            f"not from this cache: version {stored[0]}, expected {SHARD_VERSION}; fingerprint {stored[1]}, expected {fingerprint}"
        )
    return file


def open_known(folder: Path, name: str, fingerprint: Fingerprint, architecture: Architecture) -> h5py.File:
    """Open a shard whose hash has been verified, and check that it holds what `write` writes, before any row is read.

    Raises:
        FileNotFoundError, Damaged: as `open_sound`; Damaged also for anything but rows of layers of the architecture.
    """
    file = open_sound(folder, name, fingerprint.json)
    try:
        _check_layout(file, {layer.name: layer.shape(fingerprint.size) for layer in architecture.cacheable})
    except Damaged:
        file.close()
        raise
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
    ) as error:  # what h5py raises for files that it cannot use
        file.close()
        raise Damaged(f"not readable as a shard ({error})") from None
    return file


def _check_layout(file: h5py.File, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check names, types, shapes and storage: sizes that memory is taken for, and links to other files.

    Raises:
        Damaged: not a shard of these layers.
    """
    source = file.attrs.get("computed_from", "pixels")
    if not isinstance(source, str) or (source != "pixels" and source not in shapes):
        raise Damaged(f"computed from an unknown layer, {source!r}")
    digests = _stored(file, "digest")
    rows = digests.shape[0] if digests.ndim else 0
    if digests.shape != (rows, DIGEST.itemsize) or digests.dtype != np.uint8 or digests.nbytes != _bytes_in(digests):
        raise Damaged(f"digests of shape {digests.shape}, {digests.dtype}")
    for name in layers_of(file):
        if name not in shapes:
            raise Damaged(f"an unknown layer, {name!r}")
        data = _stored(file, name)
        expected = (rows, *shapes[name])
        of_chunk = chunk(name, expected)
        if data.shape != expected or data.dtype != np.float16 or data.chunks != of_chunk:
            raise Damaged(f"{name} of shape {data.shape}, {data.dtype}, expected {expected}, float16")
        number, stored = -(-rows // of_chunk[0]), data.id.get_num_chunks()
        if stored != number:  # HDF5 would return zeros
            raise Damaged(f"{name} has {stored} of {number} chunks")


def _stored(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset whose numbers are in this file: not behind a link, and not in other files."""
    link = file.get(name, getlink=True)
    data = file.get(name) if isinstance(link, h5py.HardLink) else None
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
        raise Damaged(f"{name} is missing, or not stored in this file")
    return data


def _bytes_in(data: h5py.Dataset) -> int:
    """Return the bytes that a dataset takes in its file."""
    return int(data.id.get_storage_size())


def layers_of(file: h5py.File) -> list[str]:
    """Return the names of the layers in a shard."""
    return [key for key in file if key != "digest"]


def digests_of(file: h5py.File) -> NDArray[np.bytes_]:
    """Return the packed digests of a shard's rows."""
    packed: NDArray[np.bytes_] = file["digest"][...].reshape(-1).view(DIGEST)
    return packed


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Return the attributes that were passed to `write`."""
    return {key: value for key, value in file.attrs.items() if key != "version"}
