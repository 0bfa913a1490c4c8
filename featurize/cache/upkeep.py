"""Cache maintenance: summary, verification, and deletion of rows and files that are no longer needed."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.cache import index, shards, timings
from featurize.cache.feature_cache import (
    DISTRUSTED_FILE,
    FINGERPRINT_FILE,
    INDEX_FILE,
    Digests,
    FeatureCache,
    find_damaged,
    invalidate_index,
)
from featurize.cache.fingerprint import Fingerprint
from featurize.cache.index import Index
from featurize.cache.shards import Damaged
from featurize.disk import checked, durable, forms, listing
from featurize.disk.digests import pack
from featurize.errors import VggftError
from featurize.options import records

_TRIES = 10  # to read the shards beside a prune

Progress = Callable[[int, int], None]

_CACHE_NAME = re.compile(r"[0-9a-f]{16}")  # `Fingerprint.key`
_SHARDS, _DAMAGED = "shards", "damaged"
_FILES = frozenset({FINGERPRINT_FILE, INDEX_FILE, DISTRUSTED_FILE, timings.FILE, checked.CHECKSUMS})


@dataclass(frozen=True)
class LayerInfo:
    """Rows of one layer, their compressed bytes on disk, and their uncompressed bytes."""

    rows: int
    stored: int
    raw: int


@dataclass(frozen=True)
class Info:
    """Summary of one fingerprint's cache.

    Attributes:
        fingerprint: None if `fingerprint.json` cannot be read.
        images: images with features of at least one layer.
        files: number of shards.
        stored: bytes of the shards.
        damaged: number of damaged and lost shards.
        set_aside: number of quarantined files.
        layers: layer name → rows and bytes.
    """

    folder: Path
    fingerprint: Fingerprint | None
    images: int = 0
    files: int = 0
    stored: int = 0
    damaged: int = 0
    set_aside: int = 0
    layers: Mapping[str, LayerInfo] = field(default_factory=dict)


def fingerprints(folder: Path) -> dict[Path, Fingerprint | None]:
    """Return the caches in a cache folder → their fingerprints, or None for a fingerprint that cannot be read.

    Links and folders with other names are ignored, because vggft did not create them.

    Raises:
        VggftError: the cache folder cannot be read.
    """
    paths = (path for path in listing.folders(folder) if _CACHE_NAME.fullmatch(path.name) and not path.is_symlink())
    return {path: _fingerprint(path) for path in paths}


def _fingerprint(folder: Path) -> Fingerprint | None:
    try:
        fingerprint = records.build(Fingerprint, forms.parse_json(durable.read_bytes(folder / FINGERPRINT_FILE)))
    except (OSError, ValueError):
        return None
    return fingerprint if fingerprint.key == folder.name else None


def info(folder: Path, fingerprint: Fingerprint | None, architecture: Architecture) -> Info:
    """Summarise one fingerprint's cache, from the metadata of its shards, without reading rows.

    Raises:
        VggftError: a shard is damaged, or shards are deleted faster than they can be read.
    """
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):  # beside a prune, whose new shards the next try finds
            return _info(folder, fingerprint, architecture)
    raise VggftError(f"{folder}: another process is deleting files there. Run the command again.")


def _info(folder: Path, fingerprint: Fingerprint | None, architecture: Architecture) -> Info:
    set_aside = len(list((folder / "damaged").glob("*.h5")))
    if fingerprint is None:
        files = list((folder / "shards").glob("*.h5"))
        return Info(folder, None, files=len(files), stored=sum(f.stat().st_size for f in files), set_aside=set_aside)
    cache = FeatureCache(folder.parent, fingerprint, architecture)
    layers: dict[str, LayerInfo] = {}
    for name in cache.positions.shards:
        try:
            with shards.open_known(cache.shards, name, fingerprint, architecture) as file:
                for layer in shards.layers_of(file):
                    data, total = file[layer], layers.get(layer, LayerInfo(0, 0, 0))
                    layers[layer] = LayerInfo(
                        total.rows + len(data), total.stored + data.id.get_storage_size(), total.raw + data.nbytes
                    )
        except Damaged as error:
            raise VggftError(f"{cache.shards / name}.h5: {error}. Run: vggft cache verify") from None
    return Info(
        folder,
        fingerprint,
        images=cache.positions.images(),
        files=len(cache.positions.shards),
        stored=sum(stamp.size for stamp in cache.positions.shards.values()),
        damaged=len(cache.damaged) + len(cache.lost),
        set_aside=set_aside,
        layers={layer: layers[layer] for layer in cache.layers},
    )


@dataclass(frozen=True)
class Finding:
    """A damaged or missing file."""

    path: Path
    reason: str


def verify(
    folder: Path, fingerprint: Fingerprint | None, architecture: Architecture, progress: Progress
) -> list[Finding]:
    """Verify all files of one fingerprint's cache. Shards are not changed.

    If anything is damaged, the index is invalidated, so that the next `vggft featurize` verifies all shards, quarantines the
    damaged ones and recomputes their rows.
    """
    folder_of_shards = folder / "shards"
    if fingerprint is None:
        return [Finding(folder / FINGERPRINT_FILE, "missing or damaged: the settings of these features are unknown")]
    names = list(shards.present(folder_of_shards))
    damaged = dict(find_damaged(folder_of_shards, names, lambda count: progress(count, len(names))))
    findings = [Finding(shards.path(folder_of_shards, name), f"damaged: {reason}") for name, reason in damaged.items()]
    digests: dict[str, NDArray[np.bytes_]] = {}
    for name in names:
        if name not in damaged:
            try:
                with shards.open_known(folder_of_shards, name, fingerprint, architecture) as file:
                    digests[name] = shards.digests_of(file)
            except FileNotFoundError:
                continue  # pruned in the meantime
            except Damaged as error:
                findings.append(Finding(shards.path(folder_of_shards, name), f"damaged: {error}"))
    index_file = folder / INDEX_FILE
    stored = index.load(index_file)
    if stored is None and index_file.exists():
        findings.append(Finding(index_file, "damaged; the next command rebuilds it"))
    findings += [Finding(shards.path(folder_of_shards, name), "missing") for name in _lost(folder, stored)]
    if stored is not None and not _matches(stored, digests):
        findings.append(Finding(index_file, "does not match the shards; the next command rebuilds it"))
    if findings:
        invalidate_index(folder)
    return findings


def _lost(folder: Path, stored: Index | None) -> list[str]:
    """Return the shards in the index (or in an invalidated index) that do not exist."""
    indexed = stored or index.load(folder / DISTRUSTED_FILE) or Index()
    lost = indexed.shards.keys() - shards.present(folder / "shards").keys()
    if lost:  # prune removes shards from the index before it deletes them, so the index may be newer now
        indexed = index.load(folder / INDEX_FILE) or indexed
    return [name for name in indexed.shards if name in lost]


def _matches(stored: Index, digests: Mapping[str, NDArray[np.bytes_]]) -> bool:
    """Return whether every position in an index has the right digest.

    Args:
        digests: name → digests of the rows of each readable shard; other shards are skipped.
    """
    for layer in stored.layer_names:
        rows = stored.rows(layer)
        for name, indices in stored.by_shard(layer):
            in_shard = digests.get(name)
            if in_shard is None:  # damaged, deleted, or written in the meantime
                continue
            if (rows.row[indices] >= len(in_shard)).any():
                return False
            if (in_shard[rows.row[indices]] != rows.digest[indices]).any():
                return False
    return True


@dataclass(frozen=True)
class Surplus:
    """Rows that prune would delete from one cache.

    Attributes:
        rows: number of rows to delete.
        keep: for each shard with rows to delete, a mask (rows,) that is True for rows to keep.
    """

    rows: int
    keep: Mapping[str, NDArray[np.bool_]]


def surplus(cache: FeatureCache, wanted: Digests) -> Surplus:
    """Find rows of other digests than `wanted`, and rows that another shard has, too. Nothing is changed."""
    packed = pack(wanted)
    needed: dict[str, list[NDArray[np.int32]]] = {name: [] for name in cache.positions.shards}
    for layer in cache.layers:
        rows = cache.positions.rows(layer)
        is_wanted = np.isin(rows.digest, packed)
        for name, indices in cache.positions.by_shard(layer):
            needed[name].append(rows.row[indices[is_wanted[indices]]])
    keep, deleted = {}, 0
    for name, needed_rows in needed.items():
        with cache.open(name) as file:
            mask = np.zeros(len(file["digest"]), bool)
        mask[np.concatenate(needed_rows)] = True
        if not mask.all():
            keep[name] = mask
            deleted += int((~mask).sum())
    return Surplus(deleted, keep)


def drop(cache: FeatureCache, unneeded: Surplus, progress: Progress) -> None:
    """Delete surplus rows: write new shards, save the index, delete the old shards. The caller must hold the lock.

    If the process is killed in between, some rows exist twice, and the next prune deletes them. A reader may lose a shard once.
    """
    written = set()  # may include an old shard, if an interrupted prune has already written the new one
    for count, (name, mask) in enumerate(unneeded.keep.items(), 1):
        if mask.any():
            with cache.open(name) as file:
                digests = shards.digests_of(file)[mask]
                features = {layer: file[layer][...][mask] for layer in shards.layers_of(file)}
                attributes = shards.attributes_of(file)
            written.add(shards.write(cache.shards, digests, features, attributes))
        progress(count, len(unneeded.keep))
    replaced = unneeded.keep.keys() - written
    cache.forget(replaced)
    for name in replaced:
        shards.path(cache.shards, name).unlink(missing_ok=True)
    durable.sync_folder(cache.shards)


def occupied(folder: Path) -> int:
    """Return the total size in bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def remove(folder: Path) -> list[Path]:
    """Delete all files of one fingerprint's cache that vggft provably wrote; return the remaining paths.

    The folder's name must match its `fingerprint.json`, and a shard's name must be the sha256 of its bytes.
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

    # fingerprint.json is deleted last, so that an interrupted prune can be continued.
    remaining = [*durable.remove_known(folder / _SHARDS, known), *durable.remove_known(folder / _DAMAGED, known)]
    return remaining or durable.remove_known(folder, known)


def remove_quarantined(folder: Path) -> list[Path]:
    """Delete the quarantined shards in a folder `damaged/`; return the remaining paths."""
    return durable.remove_known(folder, lambda path: path == folder or shards.may_be_damaged_shard(path))


def quarantine_folders(folder: Path) -> Iterator[Path]:
    """Yield the `damaged/` folders in a cache folder that are beside a valid `fingerprint.json` and empty or contain shards."""
    for path, fingerprint in fingerprints(folder).items():
        damaged = path / _DAMAGED
        if fingerprint and damaged.is_dir() and not damaged.is_symlink():
            files = list(damaged.iterdir())
            if not files or any(map(shards.may_be_damaged_shard, files)):
                yield damaged
