"""images → cache: scan, compute what is missing, share out over splits, remember."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from featurize import scan as scanning
from featurize import splits, weights
from featurize.dataset import Dataset, Sample
from featurize.errors import VggftError
from featurize.fingerprint import Fingerprint
from featurize.layers import layer
from featurize.runner import SHARD_ROWS
from featurize.splits import Shares
from vggft.console import Ui
from vggft.features import Filling, fill, plan
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


def run(workspace: Workspace, data: Path, options: Options, ui: Ui) -> dict[str, Any]:
    """Bring the cache and the manifest up to date with a data folder.

    Raises:
        VggftError: anything wrong with options, folder or weights, before anything is written.
    """
    layers = list(dict.fromkeys(layer(name).name for name in options.layers))
    if options.shard_rows < 1:
        raise VggftError(f"--shard {options.shard_rows}: expected 1 image or more.")
    before = workspace.settings if workspace.exists else None
    known = workspace.dataset.samples if before else ()
    shares, reserve_test = _shares(options, before)
    group_by = _group_by(options, before)
    fingerprint, weights_file = _fingerprint(options, before)

    scan = _scan(data, known if not options.rehash else (), group_by, ui)
    _check_given(scan, options)
    files: dict[str, list[Path]] = defaultdict(list)
    for sample in scan.samples:
        if sample.digest:
            files[sample.digest].append(scan.root / sample.path)
    doubtful = frozenset(s.digest for s in known if s.status == "rejected" and s.digest)
    filling = Filling(files, layers, weights_file, doubtful, options.shard_rows, options.engine)
    stand = [s for s in known if not (reserve_test and s.split == "train")]
    _try_split(scan, shares, stand)  # a class that cannot be split is said before an hour of work, not after

    plan(workspace.cache(fingerprint), filling)
    with workspace.writing():
        cache = workspace.cache(fingerprint)
        reused = len(files) - len(cache.missing(layers, list(files)))
        done = fill(cache, filling, ui)
        samples = [
            replace(s, status="rejected", reason=done.rejected[s.digest]) if s.digest in done.rejected else s
            for s in scan.samples
        ]
        samples = splits.set_aside_duplicates(splits.assign(samples, shares, scan.stored_splits, stand))
        dataset = Dataset(scan.root, scan.classes, tuple(samples))
        _check_learnable(dataset)
        workspace.settle(
            dataset,
            Settings(
                str(scan.root), scan.classes, fingerprint, str(weights_file) if weights_file else None, shares, group_by
            ),
        )
    _tell(workspace, scan, dataset, ui)
    if done.computed:
        ui.print(f"computed {done.computed} at {done.images_per_second:.1f} images/s on {done.engine}, reused {reused}")
    else:
        ui.print(f"nothing to compute: all {reused} distinct images are in the cache")
    ui.print(f"cache: {cache.folder}")
    return {
        "images": len(dataset.accepted()),
        "computed": done.computed,
        "reused": reused,
        "duplicates": len(dataset.duplicates),
        "rejected": len(dataset.rejected),
        "classes": list(dataset.classes),
        "splits": dataset.split_counts,
        "layers": layers,
        "engine": done.engine,
        "images_per_second": done.images_per_second,
        "cache": str(cache.folder),
        "manifest": str(workspace.manifest),
        "conflicts": [[s.path for s in own] for own in splits.conflicts(dataset.samples)],
    }


def _shares(options: Options, before: Settings | None) -> tuple[Shares, bool]:
    """Return the shares to hold back, and whether a test split is to be reserved from what was training before."""
    if before is None:
        default = Shares()
        return Shares(
            default.validate if options.validation is None else options.validation,
            default.test if options.test is None else options.test,
            default.seed if options.seed is None else options.seed,
        ), False
    kept = before.shares
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
    if options.test and not kept.test:
        return replace(kept, test=options.test), True
    return kept, False


def _group_by(options: Options, before: Settings | None) -> str | None:
    if before is None or options.group_by in (None, before.group_by):
        return options.group_by if before is None else before.group_by
    raise VggftError(
        f"--group-by {options.group_by!r}: the split of this workspace was made with {before.group_by!r} and stays. Use "
        "another --workspace for another grouping."
    )


def _fingerprint(options: Options, before: Settings | None) -> tuple[Fingerprint, Path | None]:
    default = before.fingerprint if before else Fingerprint()
    preprocess = options.preprocess or default.preprocess
    if options.weights:
        source = weights.locate(options.weights)
        return Fingerprint(weights.load(source).digest, preprocess=preprocess), source.path
    return Fingerprint(default.weights, preprocess=preprocess), before.weights_file_path if before else None


def _scan(data: Path, known: Sequence[Sample], group_by: str | None, ui: Ui) -> scanning.Scan:
    with ui.progress("reading files", unit="files") as advance:
        return scanning.scan(data, known, group_by, advance)


def _check_given(scan: scanning.Scan, options: Options) -> None:
    for option, value, split in (("--validation", options.validation, "validate"), ("--test", options.test, "test")):
        if value is not None and split in scan.stored_splits:
            raise VggftError(f"{option} {value}: {scan.root} has a {split} folder of its own. Leave the option out.")


def _try_split(scan: scanning.Scan, shares: Shares, before: Sequence[Sample]) -> None:
    splits.assign(scan.samples, shares, scan.stored_splits, before)


def _check_learnable(dataset: Dataset) -> None:
    """Refuse a class left without training images once unreadable files are out."""
    for name in dataset.classes:
        if not any(s.label == name for s in dataset.accepted("train")):
            lost = [s for s in dataset.rejected if s.label == name]
            raise VggftError(
                f"class {name!r} has no readable training image ({len(lost)} rejected, the first: "
                f"{lost[0].path}: {lost[0].reason}). Mend them, or remove the folder. Features computed so far are kept."
                if lost
                else f"class {name!r} has no training image. Add pictures or remove the folder."
            )
    if not dataset.accepted("validate"):
        aside = len(dataset.duplicates)
        raise VggftError(
            f"{dataset.root}: no image is left to validate on ({aside} set aside, because the same bytes stand under another "
            "label or in another split). Add pictures, or remove the copies."
        )


def _tell(workspace: Workspace, scan: scanning.Scan, dataset: Dataset, ui: Ui) -> None:
    counts = ", ".join(f"{number} {split}" for split, number in dataset.split_counts.items() if number)
    ui.print(
        f"{len(dataset.accepted())} images in {len(dataset.classes)} classes ({', '.join(dataset.classes)}): {counts}"
    )
    if scan.loose:
        ui.say(f"{scan.loose} files beside the class folders were left alone")
    for own in splits.conflicts(dataset.samples)[:_SHOWN]:
        ui.warn("same bytes under two labels or in two splits: " + ", ".join(f"{s.path} ({s.split})" for s in own))
    if dataset.duplicates:
        ui.warn(f"{len(dataset.duplicates)} copies in validation or test set aside (status duplicate in the manifest)")
    for sample in dataset.rejected[:_SHOWN]:
        ui.warn(f"rejected {sample.path}: {sample.reason}")
    if dataset.rejected:
        ui.warn(f"{len(dataset.rejected)} files rejected; the list with reasons is in {workspace.manifest}")
