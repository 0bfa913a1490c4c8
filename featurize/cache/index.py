"""The index of a cache: digest → shard and row for each layer, as sorted arrays in one file beside the shards.

The index is derived from the shards, and rebuilt if it is missing or damaged; new shards are added to it. It also stores the
stamp of each shard when it was last verified, so that unchanged files need not be hashed again. Layers that were computed
together have the same rows, and share their arrays: 40 bytes a row, in the file and in memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize.disk import arrays
from featurize.disk.digests import DIGEST
from featurize.disk.stamp import Stamp

INDEX_VERSION = 3
_NUMBERS = 1 << 64  # of 64 bits: an inode may use all of them, and a time before 1970 is negative


@dataclass(frozen=True)
class Rows:
    """Positions of the rows of one layer: digest, shard number and row number, sorted by digest."""

    digest: NDArray[np.bytes_]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]

    def with_new(self, new: "Rows") -> "Rows":
        """Return these rows and those of `new`, in any order, whose digests are not among these."""
        _, first = np.unique(new.digest, return_index=True)
        at = np.searchsorted(self.digest, new.digest[first])
        if len(self.digest):
            lacking = self.digest[np.minimum(at, len(self.digest) - 1)] != new.digest[first]
            first, at = first[lacking], at[lacking]
        return Rows(
            np.insert(self.digest, at, new.digest[first]),
            np.insert(self.shard, at, new.shard[first]),
            np.insert(self.row, at, new.row[first]),
        )


_NONE = Rows(np.empty(0, DIGEST), np.empty(0, np.int32), np.empty(0, np.int32))


@dataclass
class Index:
    """Positions of all rows in all shards. `shards` maps name → stamp; shard numbers count in its order."""

    shards: dict[str, Stamp] = field(default_factory=dict)
    layers: dict[str, Rows] = field(default_factory=dict)
    _new: dict[str, list[Rows]] = field(default_factory=dict)

    def add(self, shard: str, stamp: Stamp, layers: Sequence[str], digests: NDArray[np.bytes_]) -> None:
        """Add the rows of a new shard. A digest that is already indexed keeps its first position."""
        self.shards[shard] = stamp
        number = np.full(len(digests), len(self.shards) - 1, np.int32)
        rows = Rows(digests, number, np.arange(len(digests), dtype=np.int32))
        for layer in layers:
            self._new.setdefault(layer, []).append(rows)

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers that have rows, sorted."""
        return sorted({*self.layers, *self._new})

    def rows(self, layer: str) -> Rows:
        """Return the positions of all rows of a layer.

        Raises:
            KeyError: the layer has no rows.
        """
        self._merge()
        return self.layers[layer]

    def a_shard_with(self, layer: str) -> str | None:
        """Return the name of a shard that contains a layer, or None."""
        if layer not in self.layer_names:
            return None
        return list(self.shards)[int(self.rows(layer).shard[0])]

    def by_shard(self, layer: str) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """Yield the name of each shard, and the indices into `rows(layer)` of its rows."""
        shard = self.rows(layer).shard
        order = np.argsort(shard, kind="stable")
        bounds = np.searchsorted(shard[order], np.arange(len(self.shards) + 1))
        for number, name in enumerate(self.shards):
            yield name, order[bounds[number] : bounds[number + 1]]

    def images(self) -> int:
        """Return the number of digests that have a row of any layer."""
        distinct: list[NDArray[np.bytes_]] = []
        for layer in self.layer_names:
            digests = self.rows(layer).digest
            if not any(np.array_equal(digests, other) for other in distinct):
                distinct.append(digests)
        return len(distinct[0]) if len(distinct) == 1 else len(np.unique(np.concatenate([*distinct, _NONE.digest])))

    def _merge(self) -> None:
        """Merge added rows into the sorted arrays, once for many shards and once for all layers with the same rows."""
        merged: dict[tuple[int, ...], Rows] = {}
        for layer, new in self._new.items():
            before = self.layers.get(layer, _NONE)
            parts = (id(before), *map(id, new))
            if parts not in merged:
                added = (np.concatenate([getattr(rows, name) for rows in new]) for name in ("digest", "shard", "row"))
                merged[parts] = before.with_new(Rows(*added))
            self.layers[layer] = merged[parts]
        self._new.clear()

    def locate(self, layer: str, digests: NDArray[np.bytes_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return shard and row number of each digest, −1 for digests without a row."""
        self._merge()
        rows = self.layers.get(layer)
        if rows is None or not len(rows.digest):
            none = np.full(len(digests), -1, np.int32)
            return none, none
        # Neighbours are searched in the same part of memory: 10 million take a third of the time.
        order = np.argsort(digests)
        at = np.empty(len(digests), np.intp)
        at[order] = np.searchsorted(rows.digest, digests[order])
        np.minimum(at, len(rows.digest) - 1, out=at)
        present = rows.digest[at] == digests
        return np.where(present, rows.shard[at], -1), np.where(present, rows.row[at], -1)

    def lacking(self, layers: Sequence[str], digests: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Return whether each digest lacks a row of one or more of the layers."""
        lacking = np.zeros(len(digests), bool)
        searched: list[Rows] = []
        for layer in layers:
            rows = self.rows(layer) if layer in self.layer_names else _NONE
            if not any(rows is other for other in searched):
                searched.append(rows)
                lacking |= self.locate(layer, digests)[0] < 0
        return lacking

    def save(self, path: Path) -> None:
        """Write the index. Layers that share their arrays share them in the file: they are hard links to one group."""
        self._merge()

        def fill(file: h5py.File) -> None:
            file.attrs["version"] = INDEX_VERSION
            file["shards"] = np.array(list(self.shards), "S64")
            stamps = [(stamp.size, stamp.mtime_ns % _NUMBERS, stamp.inode) for stamp in self.shards.values()]
            file["stamps"] = np.array(stamps, np.uint64).reshape(-1, 3)
            written: dict[int, h5py.Group] = {}
            for layer, rows in self.layers.items():
                if id(rows) in written:
                    file[layer] = written[id(rows)]
                else:
                    group = written[id(rows)] = file.create_group(layer)
                    group["digest"] = rows.digest.view(np.uint8).reshape(-1, DIGEST.itemsize)
                    group["shard"], group["row"] = rows.shard, rows.row

        arrays.write(path, fill)


def load(path: Path) -> Index | None:
    """Read an index; return None if it is missing, damaged or of another version.

    HDF5 may hang in a damaged file, so it gets none whose checksum is wrong.
    """
    try:
        with arrays.reading(path) as (file, data):
            return _read(file, data) if file.attrs["version"] == INDEX_VERSION else None
    except (OSError, KeyError, ValueError, RuntimeError):  # what h5py raises for missing and damaged files
        return None


def _read(file: h5py.File, data: bytearray) -> Index:
    names = [name.decode() for name in file["shards"][...]]
    sizes, times, inodes = file["stamps"][...].T
    stamps = map(Stamp, sizes.tolist(), times.astype(np.int64).tolist(), inodes.tolist())
    read: dict[int, Rows] = {}  # address of a group in the file → its arrays
    layers = {}
    for name, group in file.items():
        if isinstance(group, h5py.Group):
            address = h5py.h5o.get_info(group.id).addr
            if address not in read:
                digest, shard, row = (arrays.array(group[part], data) for part in ("digest", "shard", "row"))
                read[address] = Rows(digest.reshape(-1).view(DIGEST), shard, row)
            layers[name] = read[address]
    return Index(dict(zip(names, stamps, strict=True)), layers)
