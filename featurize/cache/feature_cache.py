"""The HDF5 feature cache: rows by (fingerprint, layer, digest), in immutable shards.

Layout of the cache folder:

    <fingerprint>/fingerprint.json   the settings of the fingerprint
    <fingerprint>/shards/<sha256>.h5 rows of features (`featurize.cache.shards`)
    <fingerprint>/index.h5           digest → shard and row for each layer (`featurize.cache.index`)
    <fingerprint>/damaged/           quarantined files, until `vggft cache prune`

Opening a cache does not read shards whose stamp is in the index. Before the first row is read from a shard, its hash is checked,
so damaged rows are never returned.
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.cache import index, shards
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.shards import Damaged
from featurize.disk import durable, forms
from featurize.disk.digests import pack, unpack
from featurize.disk.stamp import Stamp
from featurize.errors import VggftError
from featurize.process import cores, interrupts
from featurize.process.workers import Ended, Workers
from featurize.wording import counted

FINGERPRINT_FILE = "fingerprint.json"
INDEX_FILE = "index.h5"
_TRIES = 10  # to read rows beside a prune
DISTRUSTED_FILE = "index.old.h5"  # an invalidated index, used only for its list of shards

Digests = Sequence[str] | NDArray[np.bytes_]  # hexadecimal, or packed (`featurize.disk.digests`)


class FeatureCache:
    """The cached rows of one fingerprint, for one writer (guaranteed by the workspace's lock) and any number of readers.

    Attributes:
        damaged: shards that were damaged when the cache was opened → reason. Their rows count as missing.
        lost: shards in the index that no longer exist. Their rows count as missing.
        lost_rows: layer → digests of the rows in damaged and lost shards, according to the index.
    """

    def __init__(
        self, folder: Path, fingerprint: Fingerprint, architecture: Architecture, *, recheck: bool = False
    ) -> None:
        """Open a cache. Nothing is written before the first `write`.

        Args:
            folder: the cache folder, with one folder per fingerprint.
            fingerprint: the settings of the features.
            architecture: the network whose outputs are cached.
            recheck: verify all shards, including unchanged ones.
        """
        self.fingerprint = fingerprint
        self.architecture = architecture
        self.folder = folder / fingerprint.key
        self.shards = self.folder / "shards"
        self.damaged: dict[str, str] = {}
        self.lost: list[str] = []
        self.lost_rows: dict[str, frozenset[str]] = {}
        self._sound: set[str] = set()  # shards verified by this process
        self._distrusted = False
        self._workers: Workers | None = None
        self._guard = threading.RLock()  # one thread may write rows while another reads
        self._load(recheck)

    @property
    def positions(self) -> index.Index:
        """The positions of all rows."""
        return self._index

    @property
    def layers(self) -> list[str]:
        """Names of the cached layers, in the order of the network."""
        with self._guard:
            return sorted(self._index.layer_names, key=self.architecture.position)

    def missing(self, layers: Sequence[str], digests: Digests) -> list[str]:
        """Return the digests without a row for one or more of the layers, in order, without repeats."""
        packed = pack(digests)
        return list(dict.fromkeys(unpack(packed[self.lacks(layers, packed)])))

    def lacks(self, layers: Sequence[str], digests: Digests) -> NDArray[np.bool_]:
        """Return for each digest whether it has no row for one or more of the layers."""
        with self._guard:
            return self._index.lacking(layers, pack(digests))

    def pieces(self, layer: str, digests: Digests, size: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float16]]]:
        """Yield (indices into `digests`, their rows), `size` rows at a time, in the order of the rows on disk.

        Raises:
            VggftError: as in `read`.
        """
        packed = pack(digests)
        order = self._order(layer, packed)
        for first in range(0, len(order), size):
            indices = order[first : first + size]
            yield indices, self.read(layer, packed[indices])

    def in_order(self, layer: str, digests: Sequence[str]) -> list[str]:
        """Return digests in the order of their rows on disk."""
        return [digests[i] for i in self._order(layer, pack(digests))]

    def _order(self, layer: str, packed: NDArray[np.bytes_]) -> NDArray[np.intp]:
        return np.lexsort(self._locate(layer, packed)[::-1])

    def rows(self, layer: str, digests: Sequence[str], size: int) -> Iterator[tuple[str, NDArray[np.float16]]]:
        """Yield (digest, row) in the order of the rows on disk, reading `size` rows at a time."""
        for indices, rows in self.pieces(layer, digests, size):
            yield from zip((digests[i] for i in indices), rows, strict=True)

    def read(self, layer: str, digests: Digests) -> NDArray[np.float16]:
        """Return the rows of `digests` as one array (n, height, width, filters); of `POOLED` (n, 2, filters). Digests may repeat.

        Raises:
            VggftError: a digest has no row, or a shard is damaged.
        """
        packed = pack(digests)
        deleted = ""
        for _ in range(_TRIES):
            try:
                return self._read(layer, packed)
            except FileNotFoundError as error:  # prune has moved the rows to another shard
                deleted = error.filename
                with self._guard:
                    self._load()
        raise VggftError(f"{deleted}: deleted while reading it. Run the command again.")

    def write(
        self, digests: Sequence[str], features: Mapping[str, NDArray[np.float16]], attributes: Mapping[str, str]
    ) -> None:
        """Commit one shard. When this returns, its rows survive a power failure.

        Args:
            digests: the digest of each row.
            features: layer → array (rows, height, width, filters), of `POOLED` (rows, 2, filters), of the fingerprint's dtype.
            attributes: how the rows were computed (engine, batch size), stored in the shard. Equal rows must have equal
                attributes, so no times and no host names.
        """
        packed = pack(digests)
        self.shards.mkdir(parents=True, exist_ok=True)
        with self._guard:
            self.describe()
        name = self._write_shard(packed, features, {"fingerprint": self.fingerprint.json, **attributes})
        stamp = Stamp.of(shards.path(self.shards, name))
        with self._guard:
            if name not in self._index.shards:
                self._index.add(name, stamp, list(features), packed)
            self._sound.add(name)
            self._index_saved = False

    def adopt(self, name: str) -> None:
        """Index a shard that another process has just written here.

        Raises:
            FileNotFoundError: there is none.
            VggftError: it is no shard of this cache.
        """
        try:
            with shards.open_known(self.shards, name, self.fingerprint, self.architecture) as file, self._guard:
                if name not in self._index.shards:
                    stamp = Stamp.of(shards.path(self.shards, name))
                    self._index.add(name, stamp, shards.layers_of(file), shards.digests_of(file))
                    self._index_saved = False
        except Damaged as error:
            raise VggftError(f"{shards.path(self.shards, name)}: damaged ({error}). Run the command again.") from None

    @contextlib.contextmanager
    def writing_in_processes(self) -> Iterator[None]:
        """Inside the context, each thread that calls `write` compresses and writes in a process of its own."""
        try:
            with contextlib.closing(Workers()) as self._workers:
                yield
        finally:
            self._workers = None

    def _write_shard(
        self, packed: NDArray[np.bytes_], features: Mapping[str, NDArray[np.float16]], attributes: Mapping[str, str]
    ) -> str:
        if self._workers:
            with contextlib.suppress(Ended):
                return self._workers(shards.write, self.shards, packed, features, attributes)
        return shards.write(self.shards, packed, features, attributes)

    def refresh(self) -> None:
        """Take notice of what another process has written or deleted since the cache was opened."""
        with self._guard:
            self._load()

    def save_index(self) -> None:
        """Write the index, if it has changed."""
        with self._guard:
            if not (self._index_saved or self._distrusted):
                self._index.save(self.folder / INDEX_FILE)
                (self.folder / DISTRUSTED_FILE).unlink(missing_ok=True)
                self._index_saved = True

    def forget(self, names: Collection[str]) -> None:
        """Rebuild and save the index without shards that are about to be deleted. The caller must hold the lock."""
        with self._guard:
            self._index = self._build_index(
                {name: stamp for name, stamp in shards.present(self.shards).items() if name not in names}
            )
            self._index_saved = False
        self.save_index()

    def quarantine(self) -> None:
        """Move damaged shards to `damaged/`, and repair `fingerprint.json`. The caller must hold the lock."""
        if self.shards.is_dir():
            self.describe()
        folder = self.folder / "damaged"
        for name in self.damaged:
            folder.mkdir(exist_ok=True)
            shards.path(self.shards, name).replace(folder / f"{name}.h5")
        self.damaged = {}

    def describe(self) -> None:
        """Write `fingerprint.json`, which says how the features were computed; the folder must exist."""
        file, content = self.folder / FINGERPRINT_FILE, asdict(self.fingerprint)
        try:
            if forms.parse_json(durable.read_bytes(file)) == content:
                return
        except (OSError, ValueError):
            pass
        forms.write_json(file, content)

    def computed_from(self, layer: str) -> str | None:
        """Return the layer from which `layer` was computed; None if it was computed from pixels, or is not cached."""
        with self._some_shard(layer) as file:
            source = str(file.attrs.get("computed_from", "pixels")) if file else "pixels"
        return None if source == "pixels" else source

    def bytes_per_row(self, layer: str) -> float | None:
        """Return the average bytes on disk of a row of `layer` in one shard; None if the layer is not cached."""
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
            damaged = f" ({counted(len(self.damaged), 'damaged file')} not counted)" if self.damaged else ""
            raise VggftError(
                f"{self.folder}: no {layer} for {int((at < 0).sum())} of {len(packed)} images{damaged}. Run: vggft featurize"
            )
        result: NDArray[np.float16] | None = None
        for number in np.unique(at):
            indices = np.flatnonzero(at == number)
            with self.open(names[number]) as file:
                in_shard = shards.digests_of(file)
                if (rows[indices] >= len(in_shard)).any() or (in_shard[rows[indices]] != packed[indices]).any():
                    self._invalidate_index()
                    raise VggftError(
                        f"{self.folder / INDEX_FILE}: does not match its shards. Run the command again, which rebuilds the index."
                    )
                values = file[layer]
                if result is None:
                    result = np.empty((len(packed), *values.shape[1:]), values.dtype)
                for source, target in _runs(rows[indices], indices):
                    values.read_direct(result, source, target)
        assert result is not None  # there is at least one digest, hence one shard
        return result

    def open(self, name: str) -> h5py.File:
        """Open a shard for reading. The first time, its hash is checked.

        Raises:
            VggftError: the shard is damaged.
            FileNotFoundError: the shard does not exist.
        """
        try:
            if name not in self._sound:
                shards.check(self.shards, name)
                self._sound.add(name)
            return shards.open_known(self.shards, name, self.fingerprint, self.architecture)
        except Damaged as error:
            self._invalidate_index()
            raise VggftError(
                f"{shards.path(self.shards, name)}: damaged ({error}). Run vggft featurize, which quarantines the file and "
                "recomputes its rows."
            ) from None

    def _invalidate_index(self) -> None:
        self._distrusted = True
        invalidate_index(self.folder)

    def _load(self, recheck: bool = False) -> None:
        """Load the index and add new shards to it; rebuild it if shards that it knows are damaged or gone."""
        stored, present = self._stored_and_present()
        if stored is not None and stored.shards == present and not recheck:
            self._index, self._index_saved = stored, True
            return
        trusted = {} if stored is None or recheck else stored.shards
        former = stored or index.load(self.folder / DISTRUSTED_FILE) or index.Index()
        self.lost = [name for name in former.shards if name not in present]
        untrusted = [name for name in present if trusted.get(name) != present[name]]
        self.damaged = dict(find_damaged(self.shards, untrusted))
        if stored is not None and stored.shards.keys() <= present.keys() - self.damaged.keys():
            self._index = stored
            # Files that were copied have another stamp, and the same contents: their names are their hashes.
            stored.shards.update({name: present[name] for name in stored.shards})
            self._add(stored, {name: stamp for name, stamp in present.items() if name not in stored.shards})
        else:  # a digest of a lost row may have another row, which the index does not know
            self._index = self._build_index(present)
        self._index_saved = stored is None and not present
        unusable = {*self.lost, *self.damaged}
        for layer in former.layer_names if unusable else ():
            rows = former.rows(layer)
            lost = np.isin(rows.shard, [number for number, name in enumerate(former.shards) if name in unusable])
            if lost.any():
                self.lost_rows[layer] = frozenset(unpack(rows.digest[lost]))

    def _stored_and_present(self) -> tuple[index.Index | None, dict[str, Stamp]]:
        """Return the stored index and the existing shards, both of one moment, also beside a prune.

        Prune stores the new index before it deletes shards, so that a shard is missing only if the index does not change.
        """
        stored = index.load(self.folder / INDEX_FILE)
        while True:
            present = shards.present(self.shards)
            if stored is None or stored.shards.keys() <= present.keys():
                return stored, present
            again = index.load(self.folder / INDEX_FILE)
            if again is not None and again.shards == stored.shards:
                return stored, present
            stored = again

    def _build_index(self, present: Mapping[str, Stamp]) -> index.Index:
        """Build an index of the given shards, except damaged ones and shards of other caches, which are added to `damaged`."""
        built = index.Index()
        self._add(built, present)
        return built

    def _add(self, positions: index.Index, present: Mapping[str, Stamp]) -> None:
        for name, stamp in present.items():
            if name not in self.damaged:
                try:
                    with shards.open_known(self.shards, name, self.fingerprint, self.architecture) as file:
                        positions.add(name, stamp, shards.layers_of(file), shards.digests_of(file))
                except FileNotFoundError:  # pruned in the meantime
                    continue
                except Damaged as error:
                    self.damaged[name] = str(error)


def _runs(rows: NDArray[np.int32], targets: NDArray[np.intp]) -> Iterator[tuple[slice, slice]]:
    """Yield matching slices of rows in a file and of their targets in an array, for rows that are consecutive in both.

    Selecting a list of rows in h5py is many times slower, and reading whole datasets needs much memory.
    """
    order = np.argsort(rows, kind="stable")
    rows, targets = rows[order], targets[order]
    ends = np.flatnonzero((np.diff(rows) != 1) | (np.diff(targets) != 1)) + 1
    for first, end in zip([0, *ends], [*ends, len(rows)], strict=True):
        yield slice(rows[first], rows[first] + end - first), slice(targets[first], targets[first] + end - first)


def invalidate_index(folder: Path) -> None:
    """Rename the index of a cache, so that the next process that opens the cache verifies all shards."""
    with contextlib.suppress(OSError):  # the index may not exist, or the folder may not be writable
        (folder / INDEX_FILE).replace(folder / DISTRUSTED_FILE)


def find_damaged(
    folder: Path, names: Sequence[str], progress: Callable[[int], None] = lambda count: None
) -> Iterator[tuple[str, str]]:
    """Verify shards in parallel; yield name and reason of each damaged one.

    Args:
        progress: called with the number of verified shards.
    """

    def damage(name: str) -> str | None:
        try:
            shards.check(folder, name)
        except FileNotFoundError:
            return None  # pruned in the meantime
        except Damaged as error:
            return str(error)
        return None

    with interrupts.threads(cores.usable()) as pool:
        for count, (name, reason) in enumerate(zip(names, pool.map(damage, names), strict=True), 1):
            interrupts.check()
            progress(count)
            if reason:
                yield name, reason
