"""Looking after the cache: what it holds, whether all of it is sound, and removing what nobody needs."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize import durable
from featurize.backbone.architecture import Architecture
from featurize.cache import feature_cache as caches
from featurize.cache import index, shards, timings
from featurize.cache.feature_cache import DISTRUSTED_FILE, FINGERPRINT_FILE, INDEX_FILE, FeatureCache
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.index import Index
from featurize.cache.shards import Damaged
from featurize.errors import VggftError

Progress = Callable[[int, int], None]

_CACHE_NAME = re.compile(r"[0-9a-f]{16}")  # `Fingerprint.key`
_SHARDS, _DAMAGED = "shards", "damaged"
_FILES = frozenset({FINGERPRINT_FILE, INDEX_FILE, DISTRUSTED_FILE, timings.FILE})


@dataclass(frozen=True)
class LayerInfo:
    """One layer: rows, their bytes on disk, and the bytes of the numbers in memory."""

    rows: int
    stored: int
    raw: int


@dataclass(frozen=True)
class Info:
    """What the cache of one fingerprint holds. `fingerprint` is None where its file cannot be read."""

    folder: Path
    fingerprint: Fingerprint | None
    images: int = 0
    files: int = 0
    stored: int = 0
    damaged: int = 0
    set_aside: int = 0
    layers: Mapping[str, LayerInfo] = field(default_factory=dict)


def fingerprints(folder: Path) -> dict[Path, Fingerprint | None]:
    """Return the caches below a cache folder, and what they stand for; None where that cannot be read.

    Folders of another name, and links, are not vggft's.
    """
    paths = (path for path in sorted(folder.glob("*/")) if _CACHE_NAME.fullmatch(path.name) and not path.is_symlink())
    return {path: _fingerprint(path) for path in paths if path.is_dir()}


def _fingerprint(folder: Path) -> Fingerprint | None:
    try:
        found = Fingerprint(**json.loads((folder / FINGERPRINT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, VggftError):
        return None
    return found if found.key == folder.name else None


def info(folder: Path, fingerprint: Fingerprint | None, architecture: Architecture) -> Info:
    """Look at the cache of one fingerprint: sizes from every file's own table, without reading the rows."""
    aside = len(list((folder / "damaged").glob("*.h5")))
    if fingerprint is None:
        files = list((folder / "shards").glob("*.h5"))
        return Info(folder, None, files=len(files), stored=sum(f.stat().st_size for f in files), set_aside=aside)
    cache = FeatureCache(folder.parent, fingerprint, architecture)
    layers: dict[str, LayerInfo] = {}
    for name in cache.positions.shards:
        try:
            with shards.open_sound(cache.shards, name, fingerprint.json) as file:
                for layer in shards.layers_of(file):
                    own, before = file[layer], layers.get(layer, LayerInfo(0, 0, 0))
                    layers[layer] = LayerInfo(
                        before.rows + len(own), before.stored + own.id.get_storage_size(), before.raw + own.nbytes
                    )
        except (Damaged, FileNotFoundError) as error:
            raise VggftError(f"{cache.shards / name}.h5: {error}. Run: vggft cache verify") from None
    digests = [cache.positions.rows(layer).digest for layer in cache.layers]
    return Info(
        folder,
        fingerprint,
        images=len(np.unique(np.concatenate(digests))) if digests else 0,
        files=len(cache.positions.shards),
        stored=sum(stamp.size for stamp in cache.positions.shards.values()),
        damaged=len(cache.damaged) + len(cache.lost),
        set_aside=aside,
        layers={layer: layers[layer] for layer in cache.layers},
    )


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it was written."""

    path: Path
    reason: str


def verify(folder: Path, fingerprint: Fingerprint | None, progress: Progress) -> list[Finding]:
    """Read every byte of one fingerprint's cache and compare it with what was written; changes no features.

    Where something is damaged the index, a mere shortcut, is put away: the next `vggft featurize` then checks every file
    itself, sets the damaged ones aside and computes what they held.
    """
    place = folder / "shards"
    if fingerprint is None:
        return [Finding(folder / FINGERPRINT_FILE, "missing or damaged: nothing tells what these features are")]
    present = shards.present(place)
    names = list(present)
    damaged = dict(caches.damage(place, names, lambda done: progress(done, len(names))))
    findings = [Finding(shards.path(place, name), f"damaged: {reason}") for name, reason in damaged.items()]
    held: dict[str, NDArray[np.bytes_]] = {}
    for name in names:
        if name not in damaged:
            try:
                with shards.open_sound(place, name, fingerprint.json) as file:
                    held[name] = shards.digests_of(file)
            except FileNotFoundError:
                continue  # pruned in the meantime
            except Damaged as error:
                findings.append(Finding(shards.path(place, name), f"damaged: {error}"))
    index_file = folder / INDEX_FILE
    stored = index.load(index_file)
    if stored is None and index_file.exists():
        findings.append(Finding(index_file, "damaged; the next command makes it anew"))
    findings += [Finding(shards.path(place, name), "missing") for name in _gone(folder, stored)]
    if stored is not None and not _points_right(stored, held):
        findings.append(Finding(index_file, "points at wrong rows; the next command makes it anew"))
    if findings:
        caches.distrust(folder)
    return findings


def _gone(folder: Path, stored: Index | None) -> list[str]:
    """Return the shards that the index knows and that are gone; the index of an earlier finding counts, too."""
    known = stored or index.load(folder / DISTRUSTED_FILE) or Index()
    gone = known.shards.keys() - shards.present(folder / "shards").keys()
    if gone:  # prune takes them out of the index before it deletes them: one read now knows
        known = index.load(folder / INDEX_FILE) or known
    return [name for name in known.shards if name in gone]


def _points_right(stored: Index, held: Mapping[str, NDArray[np.bytes_]]) -> bool:
    """Tell whether every entry of an index names the row that holds its digest, as far as the files were read."""
    for layer in stored.layer_names:
        rows = stored.rows(layer)
        for name, own in stored.by_shard(layer):
            digests = held.get(name)
            if digests is None:  # damaged, gone, or written in the meantime
                continue
            if (rows.row[own] >= len(digests)).any():
                return False
            if (digests[rows.row[own]] != rows.digest[own]).any():
                return False
    return True


@dataclass(frozen=True)
class Surplus:
    """What prune would remove from one cache: for each file with rows to drop, which of its rows are kept."""

    rows: int
    kept: Mapping[str, NDArray[np.bool_]]


def surplus(cache: FeatureCache, wanted: Sequence[str]) -> Surplus:
    """Find rows that belong to none of the `wanted` digests, or that another file holds as well. Changes nothing."""
    packed = shards.pack(wanted)
    needed: dict[str, list[NDArray[np.int32]]] = {name: [] for name in cache.positions.shards}
    for layer in cache.layers:
        rows = cache.positions.rows(layer)
        keep = np.isin(rows.digest, packed)
        for name, own in cache.positions.by_shard(layer):
            needed[name].append(rows.row[own[keep[own]]])
    kept, dropped = {}, 0
    for name, rows_of_it in needed.items():
        with cache.open(name) as file:
            mask = np.zeros(len(file["digest"]), bool)
        mask[np.concatenate(rows_of_it)] = True
        if not mask.all():
            kept[name] = mask
            dropped += int((~mask).sum())
    return Surplus(dropped, kept)


def drop(cache: FeatureCache, found: Surplus, progress: Progress) -> None:
    """Remove surplus rows: new files first, then the index, then the old files. The workspace's lock must be held.

    Killed in between, it leaves rows twice, and the next prune finds them; readers lose a file at most once.
    """
    written = set()  # the rows of an old file may be those of a file that an interrupted prune wrote
    for done, (name, mask) in enumerate(found.kept.items(), 1):
        if mask.any():
            with cache.open(name) as file:
                digests = shards.digests_of(file)[mask]
                features = {layer: file[layer][...][mask] for layer in shards.layers_of(file)}
                attributes = shards.attributes_of(file)
            written.add(shards.write(cache.shards, digests, features, attributes))
        progress(done, len(found.kept))
    gone = found.kept.keys() - written
    cache.forget(gone)
    for name in gone:
        shards.path(cache.shards, name).unlink(missing_ok=True)
    durable.sync_folder(cache.shards)


def occupied(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def remove(folder: Path) -> list[Path]:
    """Delete the cache of one fingerprint: every file that is provably part of it. Return what is left.

    Proof is `fingerprint.json`, which the folder is named after, and for a shard its name, the sha256 of its bytes.
    """
    if _fingerprint(folder) is None:
        return [folder]

    def known(path: Path) -> bool:
        if path.parent == folder / _SHARDS:
            return shards.is_shard(path)
        if path.parent == folder / _DAMAGED:
            return shards.may_be_damaged_shard(path)
        names = {folder / name for name in (*_FILES, _SHARDS, _DAMAGED)}
        return path == folder or path in names or (path.parent == folder and path.match(durable.TEMPORARY))

    # What proves the rest goes last: a prune that is killed before goes on where it was.
    left = [*durable.remove_known(folder / _SHARDS, known), *durable.remove_known(folder / _DAMAGED, known)]
    return left or durable.remove_known(folder, known)


def remove_set_aside(folder: Path) -> list[Path]:
    """Delete the damaged shards that were set aside in a folder `damaged/`; return what is left."""
    return durable.remove_known(folder, lambda path: path == folder or shards.may_be_damaged_shard(path))


def folders_set_aside(folder: Path) -> Iterator[Path]:
    """Yield the folders of damaged shards below a cache folder: only beside a `fingerprint.json`, and only with such in them."""
    for path, fingerprint in fingerprints(folder).items():
        aside = path / _DAMAGED
        if fingerprint and aside.is_dir() and not aside.is_symlink():
            found = list(aside.iterdir())
            if not found or any(map(shards.may_be_damaged_shard, found)):
                yield aside
