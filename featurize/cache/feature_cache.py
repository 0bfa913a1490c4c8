"""The HDF5 feature cache: rows found by (fingerprint, layer, digest) in shards that never change once written.

Layout, below the cache folder:

    <fingerprint>/fingerprint.json   what the fingerprint stands for
    <fingerprint>/shards/<sha256>.h5 rows of features (`featurize.cache.shards`)
    <fingerprint>/index.h5           digest → shard, row, for each layer (`featurize.cache.index`)
    <fingerprint>/damaged/           what was found damaged, out of the way until `vggft cache prune`

Shards whose stamp is the one in the index are taken for sound without reading them; but whoever reads rows first checks
the hash of the file they are in, so that no damaged number is ever returned.
"""

import contextlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize import durable, interrupts
from featurize.backbone.architecture import Architecture
from featurize.cache import index, shards
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.shards import Damaged, Stamp
from featurize.errors import VggftError

FINGERPRINT_FILE = "fingerprint.json"
INDEX_FILE = "index.h5"
DISTRUSTED_FILE = "index.old.h5"  # an index that is only asked which shards there were


class FeatureCache:
    """The cached rows of one fingerprint. One writer at a time (the workspace's lock sees to that), any number of readers.

    Attributes:
        damaged: shards that were found damaged when the cache was opened, with the reason. Their rows count as missing.
        lost: shards that the index knew and that are gone. Their rows count as missing, too.
        lost_rows: layer → digests of what the damaged and the lost ones held, as far as the index knew.
    """

    def __init__(
        self, folder: Path, fingerprint: Fingerprint, architecture: Architecture, *, recheck: bool = False
    ) -> None:
        """Open the cache below `folder`; nothing is written before the first `write`.

        Args:
            folder: holds a folder a fingerprint.
            fingerprint: how the features are made.
            architecture: whose layers they are outputs of.
            recheck: read every shard again, also those that look untouched.
        """
        self.fingerprint = fingerprint
        self.architecture = architecture
        self.folder = folder / fingerprint.key
        self.shards = self.folder / "shards"
        self.damaged: dict[str, str] = {}
        self.lost: list[str] = []
        self.lost_rows: dict[str, frozenset[str]] = {}
        self._sound: set[str] = set()  # checked by this process
        self._distrusted = False
        self._guard = threading.RLock()  # rows are written by one thread while another reads
        self._load(recheck)

    @property
    def positions(self) -> index.Index:
        """Where every row lies."""
        return self._index

    @property
    def layers(self) -> list[str]:
        """Names of the layers that have any rows, lowest first."""
        with self._guard:
            return sorted(self._index.layer_names, key=self.architecture.position)

    def missing(self, layers: Sequence[str], digests: Sequence[str]) -> list[str]:
        """Return the digests, each once, in order, that lack a row for any of the layers."""
        digests = list(dict.fromkeys(digests))
        packed = shards.pack(digests)
        absent = np.zeros(len(digests), bool)
        for layer in layers:
            absent |= self._locate(layer, packed)[0] < 0
        return [digest for digest, gone in zip(digests, absent, strict=True) if gone]

    def pieces(
        self, layer: str, digests: Sequence[str], at_once: int
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float16]]]:
        """Yield (positions in `digests`, their rows) in the order in which the rows lie on the disk, so many at once.

        Raises:
            VggftError: as `read`.
        """
        order = np.lexsort(self._locate(layer, shards.pack(digests))[::-1])
        for first in range(0, len(order), at_once):
            piece = order[first : first + at_once]
            yield piece, self.read(layer, [digests[i] for i in piece])

    def rows(self, layer: str, digests: Sequence[str], at_once: int) -> Iterator[tuple[str, NDArray[np.float16]]]:
        """Yield (digest, row) as `pieces` does, one by one."""
        for positions, rows in self.pieces(layer, digests, at_once):
            yield from zip((digests[i] for i in positions), rows, strict=True)

    def read(self, layer: str, digests: Sequence[str]) -> NDArray[np.float16]:
        """Return the rows of `digests`, in their order (repeats allowed), as one array (n, height, width, filters).

        Raises:
            VggftError: a digest without a row, or a damaged shard.
        """
        packed = shards.pack(digests)
        try:
            return self._read(layer, packed)
        except FileNotFoundError:  # pruned under our feet: its rows are in a new shard now
            with self._guard:
                self._load()
        try:
            return self._read(layer, packed)
        except FileNotFoundError as error:
            raise VggftError(f"{error.filename}: gone while it was read. Run the command again.") from None

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], made: Mapping[str, str]
    ) -> None:
        """Commit one shard: when this returns, its rows survive a power cut.

        Args:
            digests: one a row.
            features: layer → array (rows, height, width, filters) of the fingerprint's dtype.
            made: how the numbers were made (engine, batch size), kept as attributes. No times, no host names.
        """
        packed = shards.pack(digests)
        self.shards.mkdir(parents=True, exist_ok=True)
        with self._guard:
            self._write_fingerprint()
        name = shards.write(self.shards, packed, features, {"fingerprint": self.fingerprint.json, **made})
        stamp = Stamp.of(shards.path(self.shards, name))
        with self._guard:
            if name not in self._index.shards:
                self._index.add(name, stamp, list(features), packed)
            self._sound.add(name)
            self._index_saved = False

    def save_index(self) -> None:
        """Write the index if it is not what lies on the disk."""
        with self._guard:
            if not (self._index_saved or self._distrusted):
                self._index.save(self.folder / INDEX_FILE)
                (self.folder / DISTRUSTED_FILE).unlink(missing_ok=True)
                self._index_saved = True

    def forget(self, gone: Collection[str]) -> None:
        """Make and write the index as it is without some shards, which are about to be deleted. The lock must be held."""
        with self._guard:
            self._index = self._made_of(
                {name: s for name, s in shards.present(self.shards).items() if name not in gone}
            )
            self._index_saved = False
        self.save_index()

    def set_aside(self) -> None:
        """Move damaged shards out of the way, and mend the file that says what they are. The lock must be held."""
        if self.shards.is_dir():
            self._write_fingerprint()
        aside = self.folder / "damaged"
        for name in self.damaged:
            aside.mkdir(exist_ok=True)
            shards.path(self.shards, name).replace(aside / f"{name}.h5")
        self.damaged = {}

    def _write_fingerprint(self) -> None:
        file, content = self.folder / FINGERPRINT_FILE, asdict(self.fingerprint)
        try:
            if json.loads(file.read_text(encoding="utf-8")) == content:
                return
        except (OSError, ValueError):
            pass
        durable.write_json(file, content)

    def computed_from(self, layer: str) -> str | None:
        """Return the layer from whose outputs the rows of `layer` were computed; None for pixels, or where there are none."""
        with self._some_shard(layer) as file:
            found = str(file.attrs.get("computed_from", "pixels")) if file else "pixels"
        return None if found == "pixels" else found

    def bytes_per_row(self, layer: str) -> float | None:
        """Return what a row of a layer takes on disk, from one shard of this cache; None where there is none."""
        with self._some_shard(layer) as file:
            return float(file[layer].id.get_storage_size() / len(file[layer])) if file else None

    def _some_shard(self, layer: str) -> contextlib.AbstractContextManager[h5py.File | None]:
        with self._guard:
            name = self._index.a_shard_with(layer)
        return self.open(name) if name else contextlib.nullcontext()

    def _locate(self, layer: str, packed: NDArray[np.bytes_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        with self._guard:
            return self._index.locate(layer, packed)

    def _read(self, layer: str, packed: NDArray[np.bytes_]) -> NDArray[np.float16]:
        with self._guard:
            at, rows = self._index.locate(layer, packed)
            names = list(self._index.shards)
        if (at < 0).any() or not len(packed):
            damage = f" ({len(self.damaged)} damaged files there hold none)" if self.damaged else ""
            raise VggftError(
                f"{self.folder}: no {layer} for {int((at < 0).sum())} of {len(packed)} images{damage}. Run: vggft featurize"
            )
        result: NDArray[np.float16] | None = None
        for number in np.unique(at):
            wanted = np.flatnonzero(at == number)
            with self.open(names[number]) as file:
                held = shards.digests_of(file)
                if (rows[wanted] >= len(held)).any() or (held[rows[wanted]] != packed[wanted]).any():
                    self._distrust()
                    raise VggftError(
                        f"{self.folder / INDEX_FILE}: was out of step with its shards. It was put away, and is made anew by "
                        "the next command: run it again."
                    )
                values = file[layer]
                if result is None:
                    result = np.empty((len(packed), *values.shape[1:]), values.dtype)
                for here, there in _runs(rows[wanted], wanted):
                    values.read_direct(result, here, there)
        assert result is not None  # there is at least one digest, hence one shard
        return result

    def open(self, name: str) -> h5py.File:
        """Open a shard for reading; its bytes are checked against its name the first time.

        Raises:
            VggftError: it is damaged.
            FileNotFoundError: it is gone.
        """
        try:
            if name not in self._sound:
                shards.check(self.shards, name)
                self._sound.add(name)
            return shards.open_sound(self.shards, name, self.fingerprint.json)
        except Damaged as damage:
            self._distrust()
            raise VggftError(
                f"{shards.path(self.shards, name)}: damaged ({damage}). Run vggft featurize: it sets the file aside and computes "
                "its images again, and only those."
            ) from None

    def _distrust(self) -> None:
        self._distrusted = True
        distrust(self.folder)

    def _load(self, recheck: bool = False) -> None:
        """Take the index from the disk if it fits the shards that are there; else make it from them."""
        present = shards.present(self.shards)
        stored = index.load(self.folder / INDEX_FILE)
        if stored is not None and stored.shards == present and not recheck:
            self._index, self._index_saved = stored, True
            return
        trusted = {} if stored is None or recheck else stored.shards
        former = stored or index.load(self.folder / DISTRUSTED_FILE) or index.Index()
        self.lost = [name for name in former.shards if name not in present]
        self.damaged = dict(damage(self.shards, [name for name in present if trusted.get(name) != present[name]]))
        self._index = self._made_of(present)
        self._index_saved = stored is None and not present
        without = {*self.lost, *self.damaged}
        for layer in former.layer_names if without else ():
            rows = former.rows(layer)
            there = np.isin(rows.shard, [number for number, name in enumerate(former.shards) if name in without])
            if there.any():
                self.lost_rows[layer] = frozenset(shards.unpack(rows.digest[there]))

    def _made_of(self, present: Mapping[str, Stamp]) -> index.Index:
        """Make the index of some shards; those that turn out to be none of this cache are damaged."""
        made = index.Index()
        for name, stamp in present.items():
            if name not in self.damaged:
                try:
                    with shards.open_sound(self.shards, name, self.fingerprint.json) as file:
                        made.add(name, stamp, shards.layers_of(file), shards.digests_of(file))
                except FileNotFoundError:  # pruned in the meantime
                    continue
                except Damaged as found:
                    self.damaged[name] = str(found)
        return made


def _runs(rows: NDArray[np.int32], places: NDArray[np.intp]) -> Iterator[tuple[slice, slice]]:
    """Yield slices of rows in a file, and of the places they go to, that follow each other in both.

    h5py's own selection by a list of rows takes many times as long, and reading whole arrays much memory.
    """
    order = np.argsort(rows, kind="stable")
    rows, places = rows[order], places[order]
    ends = np.flatnonzero((np.diff(rows) != 1) | (np.diff(places) != 1)) + 1
    for first, end in zip([0, *ends], [*ends, len(rows)], strict=True):
        yield slice(rows[first], rows[first] + end - first), slice(places[first], places[first] + end - first)


def distrust(folder: Path) -> None:
    """Put the index of one fingerprint away, after damage was found: whoever opens that cache next checks every shard."""
    with contextlib.suppress(OSError):  # it may be gone already, or not ours to change
        (folder / INDEX_FILE).replace(folder / DISTRUSTED_FILE)


def damage(
    folder: Path, names: Sequence[str], progress: Callable[[int], None] = lambda done: None
) -> Iterator[tuple[str, str]]:
    """Check the bytes of shards, as many at a time as there are cores; yield name and reason of those that are damaged."""

    def reason(name: str) -> str | None:
        try:
            shards.check(folder, name)
        except FileNotFoundError:
            return None  # pruned in the meantime
        except Damaged as found:
            return str(found)
        return None

    with interrupts.threads(os.cpu_count()) as pool:
        for done, (name, found) in enumerate(zip(names, pool.map(reason, names), strict=True), 1):
            interrupts.check()
            progress(done)
            if found:
                yield name, found
