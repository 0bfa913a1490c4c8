"""images → cache: scan, compute missing features, assign splits, write the manifest."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import featurize.data.assigned
import featurize.data.scan
from featurize import engines
from featurize.backbone import weights
from featurize.cache import estimate
from featurize.cache.feature_cache import FeatureCache
from featurize.cluster.cluster import Cluster
from featurize.data import split_rules, splits
from featurize.data.dataset import Dataset, Sample, Samples
from featurize.data.scan import Scan
from featurize.data.split_rules import SplitPlan, Wishes
from featurize.errors import VggftError
from featurize.pixels.images import DECODER_VERSION
from featurize.wording import counted, size
from finetune import store
from finetune.store import RUN
from heads.head import HEAD_FILE
from vggft.steps import locations, parts, scan_report, sources
from vggft.steps.options import FeaturizeOptions
from vggft.steps.sources import Before
from vggft.ui.console import Ui
from vggft.workspace import earlier, provenance, views
from vggft.workspace.filling import Filled, Filling, Means, files_of, fill, require
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Settings, Workspace


class _MadeMeanwhile(Exception):
    """Another process created the workspace while this one scanned the data."""


def run(workspace: Workspace, options: FeaturizeOptions, ui: Ui) -> dict[str, Any]:
    """Bring the cache and the manifest up to date with a data folder.

    Raises:
        VggftError: anything wrong with options, folder or weights, before anything is written.
    """
    if options.part is not None:
        return parts.featurize(workspace, options, ui)
    try:
        return _run(workspace, options, ui)
    except _MadeMeanwhile:
        return _run(workspace, options, ui)  # with the settings of the other process


def _run(workspace: Workspace, options: FeaturizeOptions, ui: Ui) -> dict[str, Any]:
    with contextlib.ExitStack() as lock:
        on = lock.enter_context(Cluster(options.on, ui.say)) if options.on is not None else None
        if workspace.exists:  # before its state is read; a new one is created only after all checks
            lock.enter_context(workspace.writing())
            before = _read_before(workspace, ui)
        else:
            earlier.refuse_foreign_files(workspace.root)
            before = Before(None, (), featurize.data.assigned.read(workspace.splits))
        means = Means(options.engine, options.shard, on)
        found = _featurize(workspace, options, before, means, ui, lock)
        number, samples = workspace.settings.views, workspace.dataset.accepted("train")
        views.compute(workspace, number, samples, found["layers"], ui, means)
        return {**found, "views": number}


def _featurize(
    workspace: Workspace,
    options: FeaturizeOptions,
    before: Before,
    means: Means,
    ui: Ui,
    lock: contextlib.ExitStack,
) -> dict[str, Any]:
    architecture = workspace.architecture
    engines.require(options.engine)
    layers = sources.layers(options, architecture, before.settings)
    locations.refuse_overlap(workspace.root, options.data)
    shared = locations.choose_cache(workspace, options)
    wishes = Wishes(options.validation, options.test, options.seed, options.group_by)
    split = split_rules.plan(wishes, before.split, before.assigned)
    fingerprint, weights_file = sources.fingerprint(options, workspace, before.settings)
    cache = workspace.cache(fingerprint, recheck=options.rehash)
    if options.data.is_dir() and not cache.layers:
        # Everything has to be computed: missing weights are reported before all files are hashed.
        weights.locate(architecture, weights_file)

    began = time.perf_counter()
    rules = sources.rules(options, before, split.group_by)
    scan = sources.scan(options, before, rules, ui)
    sources.refuse_overlaps(workspace, scan)
    split_rules.check_folders(scan, wishes)
    _require_same_data(scan, before)
    assigned = () if split.redraw else before.assigned
    if split.reserve_test:
        assigned = splits.reserve_test(assigned, scan.samples, split.shares)
    dataset = split_rules.build(
        scan, scan.samples, split.shares, assigned
    )  # its errors come before the work, not after

    settings = Settings(
        str(scan.root),
        scan.classes,
        fingerprint,
        str(weights_file) if weights_file else None,
        split.shares,
        split.group_by,
        layers=tuple(layers),
        cache=str(shared) if shared else None,
        views=options.views if options.views is not None else before.settings.views if before.settings else 0,
        labels=str(rules.table) if rules.table else None,
        layout=rules.layout,
    )
    if before.settings is None and workspace.lost:
        workspace.require_same(settings)
        ui.warn(
            f"{workspace.root / earlier.SETTINGS} was missing: it is written again, with the options of this command"
        )
    files = files_of(scan.root, [sample for sample in scan.samples if sample.digest])
    filling = Filling(files, layers, weights_file, {} if options.rehash else _doubtful(before), means)
    _require(workspace, cache, filling, dataset, settings, ui)
    if before.settings is None:
        lock.enter_context(workspace.writing(new=True))
        if workspace.exists:
            raise _MadeMeanwhile
        cache = workspace.cache(fingerprint)  # under the lock now
    if shared:
        locations.join(workspace, shared, ui)
    state_before = provenance.current(workspace) if before.samples else None
    damaged = len(cache.damaged) + len(cache.lost)
    reused = len(files) - len(cache.missing(layers, list(files)))
    filled = fill(cache, filling, ui)
    seconds = time.perf_counter() - began
    if filled.rejected:
        dataset = split_rules.build(scan, _rejected(scan.samples, filled.rejected), split.shares, assigned)
    given = {sample.path: sample.split for sample in scan.samples}
    workspace.settle(dataset, settings, featurize.data.assigned.remember(assigned, dataset.samples, given))
    scan_report.tell(workspace, scan, dataset, ui)
    _tell_of_changes(workspace, split, before, dataset, ui)
    _tell_of_stale_models(workspace, state_before, provenance.state(dataset, fingerprint), ui)
    rate = _tell_of_work(filled, seconds, reused, ui)
    ui.print(f"cache: {cache.folder}")
    return {
        "images": len(dataset.accepted()),
        "computed": filled.computed,
        "reused": reused,
        "duplicates": len(dataset.duplicates),
        "rejected": len(dataset.rejected),
        "damaged_files": damaged,
        "classes": list(dataset.classes),
        "splits": dataset.split_counts,
        "layers": layers,
        "engine": filled.engine,
        "images_per_second": rate,
        "cache": str(cache.folder),
        "manifest": str(workspace.manifest),
        "conflicts": [[s.path for s in copies] for copies in splits.conflicts(dataset.samples)],
    }


def _require(
    workspace: Workspace, cache: FeatureCache, filling: Filling, dataset: Dataset, settings: Settings, ui: Ui
) -> None:
    """Check that what is missing can be computed and stored, and say what views will take, before anything is computed.

    Raises:
        VggftError: no weights, or not enough disk space.
    """
    require(cache, filling)
    caches = views.caches(workspace, settings.views, settings.fingerprint)
    digests = dataset.accepted("train").digests
    number, needed = views.missing(caches, settings.layers, digests)
    if number:
        ui.say(
            f"--views {settings.views}: {counted(number, 'view')} of training images will take about {size(needed)} on disk"
        )
        plain = len(cache.missing(settings.layers, list(filling.files)))
        needed += estimate.bytes_needed(cache, settings.layers, plain)
        estimate.require_room(workspace.cache_folder, needed, plain + number)


def _doubtful(before: Before) -> dict[str, str]:
    """Return digest → reason of the files that could not be decoded last time."""
    rejected = Samples.of(before.samples).where(status="rejected")
    return {sample.digest: sample.reason for sample in rejected if sample.digest}


def _rejected(samples: Sequence[Sample], reasons: Mapping[str, str]) -> list[Sample]:
    """Return the samples, those that could not be decoded rejected; `reasons` by digest."""
    return [replace(s, status="rejected", reason=reasons[s.digest]) if s.digest in reasons else s for s in samples]


def _read_before(workspace: Workspace, ui: Ui) -> Before:
    assigned = featurize.data.assigned.read(workspace.splits)
    settings = workspace.settings
    try:
        samples = workspace.dataset.samples
        if not assigned:
            ui.warn(f"{workspace.splits} is missing: splits are taken from {workspace.manifest.name}")
        return Before(settings, samples, assigned or featurize.data.assigned.remember([], samples))
    except VggftError:
        splits_are = (
            "splits are kept"
            if assigned
            else f"splits are drawn again, because {workspace.splits.name} is missing, too"
        )
        ui.warn(f"{workspace.manifest} was missing, damaged or edited by hand: it is written again, {splits_are}")
        return Before(settings, (), assigned)


def _require_same_data(scan: Scan, before: Before) -> None:
    """Check that a folder is not a completely different data set from the one that this workspace was made from.

    Raises:
        VggftError: it has no image and no class in common with them.
    """
    if before.settings and not set(before.settings.classes) & set(scan.classes):
        classes, digests = before.settings.classes, {s.digest for s in before.samples if s.digest}
        if digests and not digests & {s.digest for s in scan.samples}:
            raise VggftError(
                f"{scan.root}: none of its images and classes is known to this workspace, which was made from "
                f"{before.settings.data} ({', '.join(classes)}). Use another --workspace for other data."
            )


def _tell_of_work(filled: Filled, seconds: float, reused: int, ui: Ui) -> float | None:
    """Print what was computed, and return the number of images in a second; None where nothing was computed."""
    if not filled.computed:
        ui.print(f"nothing to compute: all {reused} distinct images are in the cache")
        return None
    rate = filled.computed / seconds
    how = f"on {filled.engine}" if filled.engine else "from cached features"
    ui.print(
        f"computed {counted(filled.computed, 'image')} in {seconds:.0f} s ({rate:.1f} images/s) {how}, reused {reused}"
    )
    return rate


def _tell_of_changes(workspace: Workspace, split: SplitPlan, before: Before, dataset: Dataset, ui: Ui) -> None:
    """Warn of features that another decoder made, and of images that are in another split than before."""
    if before.settings and before.settings.fingerprint.decoder != DECODER_VERSION:
        ui.warn(
            f"the features made with version {before.settings.fingerprint.decoder} of the decoder were computed again with "
            f"version {DECODER_VERSION}. To delete the old ones: vggft cache prune{workspace_flag(workspace.root)}"
        )
    if not (split.reserve_test or split.redraw):
        return
    splits_before = {(s.path, s.digest): s.split for s in before.samples}
    moved = sum(splits_before.get((s.path, s.digest), s.split) != s.split for s in dataset.samples)
    if split.reserve_test:
        ui.warn(f"{counted(moved, 'image')} moved from training to the new test split")
    else:
        ui.warn(f"the split was drawn again: {counted(moved, 'image')} changed splits")


def _tell_of_stale_models(
    workspace: Workspace, before: Mapping[str, str] | None, now: Mapping[str, str], ui: Ui
) -> None:
    """Warn of what has become stale. `before` and `now`: the state of the workspace; None where it is not known."""
    if before is None or before == now:
        return
    heads = len(list(workspace.heads.glob(f"[!.]*/{HEAD_FILE}")))
    networks = len(list(workspace.finetune.glob(f"[!.]*/{RUN}")))
    unfinished = len(store.unfinished(workspace.finetune))
    kinds = ((heads, "head"), (networks, "tuned network"), (unfinished, "unfinished run"))
    trained = [counted(n, what) for n, what in kinds if n]
    if trained:
        where = workspace_flag(workspace.root)
        stale = "is" if heads + networks + unfinished == 1 else "are"
        ui.warn(
            f"{', '.join(trained)} {stale} stale now: made before images, labels, splits or features changed. To train "
            f"again: vggft head{where}, then vggft finetune{where}"
        )
