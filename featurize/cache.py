"""The HDF5 feature cache: rows found by (fingerprint, layer, digest) in shards that never change once written.

A shard is called by the sha256 of its bytes, so its name is its checksum. Layout, below the cache folder:

    <fingerprint>/fingerprint.json   what the fingerprint stands for
    <fingerprint>/shards/<sha256>.h5 `digest` (rows, 32) uint8, and one dataset a layer, (rows, H, W, C), a row a chunk
    <fingerprint>/index.h5           digest → shard, row, for each layer (`featurize.index`)
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from featurize import durable, index
from featurize.errors import VggftError
from featurize.fingerprint import Fingerprint

SHARD_VERSION = 1

# Zstandard level 1, on float16 features of 397 photographs: 3.0× smaller for block4_pool and 5.6× for block5_pool (LZ4, in
# the same run: 2.1× and 3.7×). LZ4 reads faster; either takes far less time than any engine here needs to compute them.
_COMPRESSION = hdf5plugin.Zstd(clevel=1)


class FeatureCache:
    """The cached rows of one fingerprint. One writer at a time; the workspace's lock sees to that."""

    def __init__(self, folder: Path, fingerprint: Fingerprint) -> None:
        """Open the cache below `folder`; nothing is written before the first `write`.

        Raises:
            VggftError: a damaged shard (named, with what to do).
        """
        self.fingerprint = fingerprint
        self.folder = folder / fingerprint.key
        self._shards = self.folder / "shards"
        self._sound: set[str] = set()
        self._index, self._index_saved = self._open_index()

    @property
    def layers(self) -> list[str]:
        """Names of the layers that have any rows."""
        return self._index.layer_names

    def missing(self, layers: Sequence[str], digests: Sequence[str]) -> list[str]:
        """Return the digests, each once, in order, that lack a row for any of the layers."""
        digests = list(dict.fromkeys(digests))
        packed = index.pack(digests)
        absent = np.zeros(len(digests), bool)
        for layer in layers:
            absent |= self._index.locate(layer, packed)[0] < 0
        return [digest for digest, gone in zip(digests, absent, strict=True) if gone]

    def read(self, layer: str, digests: Sequence[str]) -> NDArray[np.float16]:
        """Return the rows of `digests`, in their order (repeats allowed), as one array (n, height, width, filters).

        Raises:
            VggftError: a digest without a row, or a damaged shard.
        """
        packed = index.pack(digests)
        shards, rows = self._index.locate(layer, packed)
        if (shards < 0).any() or not len(packed):
            raise VggftError(
                f"{self.folder}: no {layer} for {int((shards < 0).sum())} of {len(packed)} images. Run: vggft featurize"
            )
        result: NDArray[np.float16] | None = None
        for number in np.unique(shards):
            wanted = np.flatnonzero(shards == number)
            with self._open(self._index.shards[number]) as file:
                held = file["digest"][...].reshape(-1).view(packed.dtype)
                if (rows[wanted] >= len(held)).any() or (held[rows[wanted]] != packed[wanted]).any():
                    raise VggftError(
                        f"{self.folder / 'index.h5'}: out of step with its shards. Delete it; it is remade."
                    )
                values = file[layer]
                if result is None:
                    result = np.empty((len(packed), *values.shape[1:]), values.dtype)
                unique, back = np.unique(rows[wanted], return_inverse=True)
                # Whole-array reads are much faster than long lists of rows; unpacking a few rows too many costs less.
                block = values[unique] if 4 * len(unique) < len(values) else values[...][unique]
                result[wanted] = block[back]
        assert result is not None  # there is at least one digest, hence one shard
        return result

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], made: Mapping[str, str]
    ) -> None:
        """Commit one shard: when this returns, its rows survive a power cut.

        Args:
            digests: one a row.
            features: layer → array (rows, height, width, filters) of the fingerprint's dtype.
            made: how the numbers were made (engine, batch size), kept as attributes. No times, no host names.
        """
        packed = index.pack(digests)
        data = _shard(packed, features, {"fingerprint": self.fingerprint.json, **made})
        name = hashlib.sha256(data).hexdigest()
        self._shards.mkdir(parents=True, exist_ok=True)
        if not (self.folder / "fingerprint.json").is_file():
            durable.write_json(self.folder / "fingerprint.json", asdict(self.fingerprint))
        durable.write_bytes(self._path(name), data)
        if name not in self._index.shards:
            self._index.add(name, list(features), packed)
        self._sound.add(name)
        self._index_saved = False

    def save_index(self) -> None:
        """Write the index if shards were added since it was last written."""
        if not self._index_saved:
            self._index.save(self.folder / "index.h5")
            self._index_saved = True

    def _path(self, shard: str) -> Path:
        return self._shards / f"{shard}.h5"

    def _open_index(self) -> tuple[index.Index, bool]:
        present = sorted(path.stem for path in self._shards.glob("[0-9a-f]*.h5"))
        stored = index.load(self.folder / "index.h5")
        if stored is not None and sorted(stored.shards) == present:
            return stored, True
        fresh = index.Index()
        for name in present:
            with self._open(name) as file:
                layers = [key for key in file if key != "digest"]
                fresh.add(name, layers, file["digest"][...].reshape(-1).view("S32"))
        return fresh, not present

    def _open(self, shard: str) -> h5py.File:
        """Open a shard for reading; its bytes are checked against its name the first time."""
        path = self._path(shard)
        try:
            if shard not in self._sound and durable.sha256(path) != shard:
                raise VggftError(
                    f"{path}: damaged (its sha256 is not its name). Delete it and run vggft featurize: only its images are "
                    "computed again."
                )
            self._sound.add(shard)
            # The lock that HDF5 itself would take is refused by some network file systems, and shards never change.
            return h5py.File(path, "r", locking=False)
        except OSError as error:
            raise VggftError(f"{path}: cannot be read ({error}). Run vggft featurize to compute it again.") from None


def _shard(
    digests: NDArray[np.bytes_], features: Mapping[str, NDArray[np.float16]], attributes: Mapping[str, str]
) -> bytes:
    data = io.BytesIO()
    # Closed before its bytes are taken: the image of an open file in the latest format has a wrong superblock checksum.
    with h5py.File(data, "w", libver="latest") as file:
        file.attrs["version"] = SHARD_VERSION
        for key, value in attributes.items():
            file.attrs[key] = value
        file["digest"] = digests.view(np.uint8).reshape(-1, digests.dtype.itemsize)
        for layer, array in features.items():
            file.create_dataset(layer, data=array, chunks=(1, *array.shape[1:]), compression=_COMPRESSION)
    return data.getvalue()
