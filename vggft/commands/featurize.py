"""images → cache: scan, compute what is missing, share out over splits, remember."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featurize import assigned as memory
from featurize import engines, splits, weights
from featurize import scan as scanning
from featurize.assigned import Assigned
from featurize.dataset import Dataset, Sample
from featurize.errors import VggftError, require_whole
from featurize.estimate import counted
from featurize.fingerprint import Fingerprint
from featurize.layers import layer
from featurize.runner import SHARD_ROWS
from featurize.splits import Shares
from vggft.console import Advance, Ui
from vggft.features import Filling, fill, require
from vggft.workspace import Settings, Workspace

DEFAULT_LAYERS = ("block4_pool", "block5_pool")
_SHOWN = 5  # rejected files named on the terminal; the manifest has them all


@dataclass(frozen=True)
class Options:
    """What the person asked for; None means: as before in this workspace, or the default."""

    layers: Sequence[str] = DEFAULT_LAYERS
    preprocess: str | None = None
    weights: Path | None = None
    validation: float | None = None
    test: float | None = None
    seed: int | None = None
    group_by: str | None = None
    shard_rows: int = SHARD_ROWS
    engine: str = "auto"
    rehash: bool = False


@dataclass(frozen=True)
class _Before:
    """What the workspace knew: settings (None: a new one), samples of the last scan, and every split ever assigned."""

    settings: Settings | None
    samples: Sequence[Sample] = ()
    assigned: Sequence[Assigned] = ()


class _MadeMeanwhile(Exception):
    """Another process made the workspace while this one was looking at the data."""


def run(workspace: Workspace, data: Path, options: Options, ui: Ui) -> dict[str, Any]:
    """Bring the cache and the manifest up to date with a data folder.

    Raises:
        VggftError: anything wrong with options, folder or weights, before anything is written.
    """
    try:
        return _run(workspace, data, options, ui)
    except _MadeMeanwhile:
        return _run(workspace, data, options, ui)  # with what the other one settled


def _run(workspace: Workspace, data: Path, options: Options, ui: Ui) -> dict[str, Any]:
    with contextlib.ExitStack() as lock:
        if workspace.exists:  # so that nobody changes what is read next; a new one is made only once all is checked
            lock.enter_context(workspace.writing())
            before = _read_before(workspace, ui)
        else:
            before = _Before(None, (), memory.read(workspace.splits))
        return _featurize(workspace, data, options, before, ui, lock)


def _featurize(
    workspace: Workspace, data: Path, options: Options, before: _Before, ui: Ui, lock: contextlib.ExitStack
) -> dict[str, Any]:
    layers = list(dict.fromkeys(layer(name).name for name in options.layers))
    _check(options)
    if workspace.root.resolve().is_relative_to(data.resolve()):
        raise VggftError(
            f"the workspace {workspace.root} lies inside the data folder and would be taken for a class. Choose another place "
            "for it with --workspace."
        )
    shares, reserve = _shares(options, before)
    group_by = _group_by(options, before.settings)
    fingerprint, weights_file = _fingerprint(options, before.settings)
    cache = workspace.cache(fingerprint, recheck=options.rehash)
    if data.is_dir() and not cache.layers:
        weights.locate(weights_file)  # all is still to be computed: without weights, say so before hashing everything

    began = time.perf_counter()
    scan = _scan(data, before.samples if not options.rehash else (), group_by, ui)
    _check_scan(scan, options, before)
    assigned = before.assigned
    if reserve:
        assigned = splits.reserve_test(assigned, {s.digest for s in scan.samples}, shares)
    _split(scan, scan.samples, shares, assigned)  # what is wrong with the split is said before the work, not after

    files: dict[str, list[Path]] = defaultdict(list)
    for sample in scan.samples:
        if sample.digest:
            files[sample.digest].append(scan.root / sample.path)
    doubtful = frozenset(s.digest for s in before.samples if s.status == "rejected" and s.digest)
    filling = Filling(files, layers, weights_file, doubtful, options.shard_rows, options.engine)
    require(cache, filling)
    if before.settings is None:
        lock.enter_context(workspace.writing())
        if workspace.exists:
            raise _MadeMeanwhile
        cache = workspace.cache(fingerprint)  # nobody else writes in it any more
    damaged = len(cache.damaged) + len(cache.lost)
    reused = len(files) - len(cache.missing(layers, list(files)))
    done = fill(cache, filling, ui)
    seconds = time.perf_counter() - began
    samples = [
        replace(s, status="rejected", reason=done.rejected[s.digest]) if s.digest in done.rejected else s
        for s in scan.samples
    ]
    dataset = _split(scan, samples, shares, assigned)
    file = str(weights_file) if weights_file else None
    settings = Settings(str(scan.root), scan.classes, fingerprint, file, shares, group_by, layers=tuple(layers))
    workspace.settle(dataset, settings, memory.remember(assigned, dataset.samples))
    rate = done.computed / seconds if done.computed else None
    _tell(workspace, scan, dataset, ui)
    if reserve:
        moved = sum(old != new for old, new in zip(before.assigned, assigned, strict=True))
        ui.warn(f"reserved for the test from now on, and training images before: {counted(moved, 'image')}")
    if rate is not None:
        ui.print(f"computed {done.computed} in {seconds:.0f} s ({rate:.1f} images/s) on {done.engine}, reused {reused}")
    else:
        ui.print(f"nothing to compute: all {reused} distinct images are in the cache")
    ui.print(f"cache: {cache.folder}")
    return {
        "images": len(dataset.accepted()),
        "computed": done.computed,
        "reused": reused,
        "duplicates": len(dataset.duplicates),
        "rejected": len(dataset.rejected),
        "damaged_files": damaged,
        "classes": list(dataset.classes),
        "splits": dataset.split_counts,
        "layers": layers,
        "engine": done.engine,
        "images_per_second": rate,
        "cache": str(cache.folder),
        "manifest": str(workspace.manifest),
        "conflicts": [[s.path for s in own] for own in splits.conflicts(dataset.samples)],
    }


def _read_before(workspace: Workspace, ui: Ui) -> _Before:
    assigned = memory.read(workspace.splits)
    settings = workspace.settings
    try:
        samples = workspace.dataset.samples
        if not assigned:
            ui.warn(f"{workspace.splits} is gone: the split is taken from {workspace.manifest.name}")
        return _Before(settings, samples, assigned or memory.remember([], samples))
    except VggftError:
        kept = "the split stays" if assigned else f"and so is the split, for {workspace.splits.name} is gone, too"
        ui.warn(f"{workspace.manifest} was missing, damaged or changed by hand: it is made again, {kept}")
        return _Before(settings, (), assigned)


def _check(options: Options) -> None:
    if not 1 <= options.shard_rows <= SHARD_ROWS:
        raise VggftError(f"--shard {options.shard_rows}: expected 1 to {SHARD_ROWS} images.")
    if options.seed is not None:
        require_whole("--seed", options.seed, 0)
    engines.require(options.engine)


def _shares(options: Options, before: _Before) -> tuple[Shares, bool]:
    """Return the shares to hold back, and whether a test split is to be reserved from what was training before."""
    reserve = bool(options.test and before.assigned) and all(entry.split != "test" for entry in before.assigned)
    if before.settings is None:
        default = Shares()
        return Shares(
            default.validate if options.validation is None else options.validation,
            default.test if options.test is None else options.test,
            default.seed if options.seed is None else options.seed,
        ), reserve
    kept = before.settings.shares
    for option, given, stored in (
        ("--validation", options.validation, kept.validate),
        ("--seed", options.seed, kept.seed),
        ("--test", options.test, kept.test or options.test),
    ):
        if given is not None and given != stored:
            raise VggftError(
                f"{option} {given}: the split of this workspace was made with {stored} and stays. Use another --workspace "
                "for another split."
            )
    return replace(kept, test=options.test or kept.test), reserve


def _group_by(options: Options, before: Settings | None) -> str | None:
    if before is None or options.group_by in (None, before.group_by):
        return options.group_by if before is None else before.group_by
    raise VggftError(
        f"--group-by {options.group_by!r}: the split of this workspace was made with {before.group_by!r} and stays. Use "
        "another --workspace for another grouping."
    )


def _fingerprint(options: Options, before: Settings | None) -> tuple[Fingerprint, Path | None]:
    """Return how pixels become features, and the file of the weights (None: the published ones, wherever they lie)."""
    default = before.fingerprint if before else Fingerprint(precision=engines.choose(options.engine).precision)
    default = replace(default, preprocess=options.preprocess or default.preprocess)
    if options.weights is None:
        return default, before.weights_file_path if before else None
    loaded = weights.load(weights.locate(options.weights))
    elsewhere = loaded.published and (weights.keras_cache().is_file() or weights.installed_copy() is not None)
    return replace(default, weights=loaded.digest), None if elsewhere else options.weights.resolve()


def _scan(data: Path, known: Sequence[Sample], group_by: str | None, ui: Ui) -> scanning.Scan:
    with contextlib.ExitStack() as bar:
        advance: Advance | None = None

        def progress(done: int, total: int) -> None:
            nonlocal advance
            advance = advance or bar.enter_context(ui.progress("reading files", total, "files"))
            advance(done)

        return scanning.scan(data, known, group_by, progress)


def _check_scan(scan: scanning.Scan, options: Options, before: _Before) -> None:
    for option, value, split in (("--validation", options.validation, "validate"), ("--test", options.test, "test")):
        if value is not None and split in scan.stored_splits:
            raise VggftError(f"{option} {value}: {scan.root} has a {split} folder of its own. Leave the option out.")
    digests = {s.digest for s in before.samples if s.digest}
    if before.settings and digests and not digests & {s.digest for s in scan.samples}:
        classes = before.settings.classes
        if not set(classes) & set(scan.classes):
            raise VggftError(
                f"{scan.root}: none of its images and classes is known to this workspace, which holds {', '.join(classes)} from "
                f"{before.settings.data}. Use another --workspace for other data."
            )


def _split(scan: scanning.Scan, samples: Sequence[Sample], shares: Shares, assigned: Sequence[Assigned]) -> Dataset:
    """Share the samples out, set leaking copies aside, and refuse what nothing could be learnt from or judged on."""
    shared = splits.assign(samples, shares, scan.stored_splits, assigned)
    dataset = Dataset(scan.root, scan.classes, tuple(splits.set_aside_duplicates(shared)))
    for name in dataset.classes:
        if not any(s.label == name for s in dataset.accepted("train")):
            lost = [s for s in dataset.rejected if s.label == name]
            why = f" ({len(lost)} rejected, the first: {lost[0].path}: {lost[0].reason})" if lost else ""
            raise VggftError(
                f"class {name!r} has no training image left{why}. Add pictures, or hold back less (--validation, --test). "
                "Features computed so far are kept."
            )
    if not dataset.accepted("validate"):
        aside = len(dataset.duplicates)
        raise VggftError(
            f"{dataset.root}: no image is left to validate on ({aside} set aside, because the same bytes stand under another "
            "label or in another split). Add pictures, or remove the copies."
        )
    return dataset


def _tell(workspace: Workspace, scan: scanning.Scan, dataset: Dataset, ui: Ui) -> None:
    counts = ", ".join(f"{number} {split}" for split, number in dataset.split_counts.items() if number)
    ui.print(
        f"{counted(len(dataset.accepted()), 'image')} in {len(dataset.classes)} classes ({', '.join(dataset.classes)}): {counts}"
    )
    if scan.loose:
        ui.say(f"left alone beside the class folders: {counted(scan.loose, 'file')}")
    for split in ("validate", "test"):
        judged = {s.label for s in dataset.accepted(split)}
        for name in dataset.classes:
            if judged and name not in judged:
                ui.warn(f"class {name!r} has no image in the {split} split, which says nothing about it")
    for own in splits.conflicts(dataset.samples)[:_SHOWN]:
        ui.warn("same bytes under two labels or in two splits: " + ", ".join(f"{s.path} ({s.split})" for s in own))
    if dataset.duplicates:
        copies = "copy" if len(dataset.duplicates) == 1 else "copies"
        ui.warn(
            f"{len(dataset.duplicates)} {copies} in validation or test set aside (status duplicate in the manifest)"
        )
    for sample in dataset.rejected[:_SHOWN]:
        ui.warn(f"rejected {sample.path}: {sample.reason}")
    if dataset.rejected:
        ui.warn(f"{counted(len(dataset.rejected), 'file')} rejected; the list with reasons is in {workspace.manifest}")
