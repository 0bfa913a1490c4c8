"""The index of a cache: digest → shard and row for each layer, as sorted arrays in one file beside the shards.

The index is derived from the shards, and rebuilt if it is missing, damaged or out of date. It also stores the stamp of each
shard when it was last verified, so that unchanged files need not be hashed again.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize.cache.shards import DIGEST, Stamp
from featurize.disk import durable

INDEX_VERSION = 2


@dataclass(frozen=True)
class Rows:
    """Positions of the rows of one layer: digest, shard number and row number, sorted by digest."""

    digest: NDArray[np.bytes_]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]


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

    def _merge(self) -> None:
        """Merge added rows into the sorted arrays, once for many shards."""
        for layer, new in self._new.items():
            parts = [*([self.layers[layer]] if layer in self.layers else []), *new]
            digests = np.concatenate([part.digest for part in parts])
            _, first = np.unique(digests, return_index=True)
            self.layers[layer] = Rows(
                digests[first],
                np.concatenate([part.shard for part in parts])[first],
                np.concatenate([part.row for part in parts])[first],
            )
        self._new.clear()

    def locate(self, layer: str, digests: NDArray[np.bytes_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return shard and row number of each digest, −1 for digests without a row."""
        self._merge()
        rows = self.layers.get(layer)
        if rows is None or not len(rows.digest):
            none = np.full(len(digests), -1, np.int32)
            return none, none
        at = np.minimum(np.searchsorted(rows.digest, digests), len(rows.digest) - 1)
        present = rows.digest[at] == digests
        return np.where(present, rows.shard[at], -1), np.where(present, rows.row[at], -1)

    def save(self, path: Path) -> None:
        """Write the index with a checksum of its contents."""
        self._merge()
        data = io.BytesIO()
        with h5py.File(data, "w", libver="latest") as file:
            file.attrs["version"] = INDEX_VERSION
            file.attrs["checksum"] = _checksum(self)
            file["shards"] = np.array(list(self.shards), "S64")
            file["stamps"] = np.array([astuple(stamp) for stamp in self.shards.values()], np.uint64).reshape(-1, 3)
            for layer, rows in self.layers.items():
                group = file.create_group(layer)
                group["digest"] = rows.digest.view(np.uint8).reshape(-1, DIGEST.itemsize)
                group["shard"], group["row"] = rows.shard, rows.row
        durable.write_bytes(path, data.getvalue())


def load(path: Path) -> Index | None:
    """Read an index; return None if it is missing, damaged or of another version."""
    try:
        durable.require_regular(path)  # h5py would wait for a pipe, and no other thread could run meanwhile
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs["version"] != INDEX_VERSION:
                return None
            names = [name.decode() for name in file["shards"][...]]
            stamps = [Stamp(*map(int, row)) for row in file["stamps"][...]]
            layers = {
                name: Rows(group["digest"][...].reshape(-1).view(DIGEST), group["shard"][...], group["row"][...])
                for name, group in file.items()
                if isinstance(group, h5py.Group)
            }
            index = Index(dict(zip(names, stamps, strict=True)), layers)
            return index if file.attrs["checksum"] == _checksum(index) else None
    except (OSError, KeyError, ValueError, RuntimeError):  # what h5py raises for missing and damaged files
        return None


def _checksum(index: Index) -> str:
    sha256 = hashlib.sha256("\n".join(f"{name} {stamp}" for name, stamp in index.shards.items()).encode())
    for name in sorted(index.layers):
        rows = index.layers[name]
        sha256.update(name.encode())
        for array in (rows.digest, rows.shard, rows.row):
            sha256.update(np.ascontiguousarray(array).view(np.uint8).data)
    return sha256.hexdigest()
