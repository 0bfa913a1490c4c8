"""digest → shard and row, for each layer: sorted arrays, made from the shards and kept beside them in one file.

The index is derived: where it is missing, damaged or out of step with the shards, it is made again.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize import durable

INDEX_VERSION = 1
_DIGEST = np.dtype("S32")  # compares as 32 raw bytes; only whole arrays are ever used, so trailing zeros are safe


@dataclass(frozen=True)
class Rows:
    """Where each digest's row of one layer lies: three arrays of one length, sorted by digest."""

    digest: NDArray[np.bytes_]
    shard: NDArray[np.int32]
    row: NDArray[np.int32]


def pack(digests: Iterable[str]) -> NDArray[np.bytes_]:
    """Return hexadecimal sha256 digests as an array of 32 raw bytes each."""
    return np.frombuffer(bytes.fromhex("".join(digests)), _DIGEST)


@dataclass
class Index:
    """Positions of all rows in all shards. `shards` holds names; a row's shard is a position in that list."""

    shards: list[str] = field(default_factory=list)
    layers: dict[str, Rows] = field(default_factory=dict)
    _new: dict[str, list[Rows]] = field(default_factory=dict)

    def add(self, shard: str, layers: Sequence[str], digests: NDArray[np.bytes_]) -> None:
        """Enter a new shard's rows. A digest already known keeps its first place."""
        self.shards.append(shard)
        number = np.full(len(digests), len(self.shards) - 1, np.int32)
        rows = Rows(digests, number, np.arange(len(digests), dtype=np.int32))
        for layer in layers:
            self._new.setdefault(layer, []).append(rows)

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers that have rows, sorted."""
        return sorted({*self.layers, *self._new})

    def _merge(self) -> None:
        """Sort in what was added: once for many shards."""
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
        """Return shard and row of each digest, −1 where there is none."""
        self._merge()
        rows = self.layers.get(layer)
        if rows is None or not len(rows.digest):
            nowhere = np.full(len(digests), -1, np.int32)
            return nowhere, nowhere
        at = np.minimum(np.searchsorted(rows.digest, digests), len(rows.digest) - 1)
        found = rows.digest[at] == digests
        return np.where(found, rows.shard[at], -1), np.where(found, rows.row[at], -1)

    def save(self, path: Path) -> None:
        """Write the index, with a checksum over all it holds."""
        self._merge()
        data = io.BytesIO()
        with h5py.File(data, "w", libver="latest") as file:
            file.attrs["version"] = INDEX_VERSION
            file.attrs["checksum"] = _checksum(self.shards, self.layers)
            file["shards"] = np.array(self.shards, "S64")
            for layer, rows in self.layers.items():
                group = file.create_group(layer)
                group["digest"] = rows.digest.view(np.uint8).reshape(-1, _DIGEST.itemsize)
                group["shard"], group["row"] = rows.shard, rows.row
        durable.write_bytes(path, data.getvalue())


def load(path: Path) -> Index | None:
    """Read an index; None if there is none, or none that can be trusted."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs["version"] != INDEX_VERSION:
                return None
            shards = [name.decode() for name in file["shards"][...]]
            layers = {
                name: Rows(group["digest"][...].reshape(-1).view(_DIGEST), group["shard"][...], group["row"][...])
                for name, group in file.items()
                if isinstance(group, h5py.Group)
            }
            return Index(shards, layers) if file.attrs["checksum"] == _checksum(shards, layers) else None
    except (OSError, KeyError, ValueError, RuntimeError):  # whatever h5py says of a missing or damaged file
        return None


def _checksum(shards: Sequence[str], layers: Mapping[str, Rows]) -> str:
    total = hashlib.sha256("\n".join(shards).encode())
    for name in sorted(layers):
        total.update(name.encode())
        for array in (layers[name].digest, layers[name].shard, layers[name].row):
            total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
