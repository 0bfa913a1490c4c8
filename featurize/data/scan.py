"""Scanning a data folder: its classes and files, with the digest of each file. Files are only hashed, not decoded."""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featurize.data import labels, layouts
from featurize.data.dataset import Sample
from featurize.data.folders import PICTURE_SUFFIXES, files_below, same_name
from featurize.data.frames import video_of
from featurize.data.labels import Labelled
from featurize.data.layouts import ClassFolder
from featurize.disk import durable
from featurize.errors import VggftError
from featurize.options.choices import LayoutName
from featurize.pixels import formats
from featurize.process import interrupts, places
from featurize.wording import counted

# A file modified less than this before it was hashed may change again with the same modification time (coarse clocks).
# Its time is not stored, so the next scan reads it again.
_SETTLED_NS = 2_000_000_000

# Where pictures that lie in no class folders may belong.
_OTHERWISE = (
    "; or label the files with --labels TABLE, a row for each file. To classify unlabelled pictures: vggft predict."
)

# Files per thread task. One task per file needed 2 kB of memory each, and took a third of the time of a scan without changes.
_FILES_PER_TASK = 16


@dataclass(frozen=True)
class Rules:
    """How files get their labels, splits and groups.

    Attributes:
        group_by: regular expression that is searched in the path; its first capture is the sample's group.
        layout: what the folders at the top are, where there is no table.
        table: a table of labels (`featurize.data.labels`).
    """

    group_by: str | None = None
    layout: LayoutName = "auto"
    table: Path | None = None


@dataclass(frozen=True)
class Scan:
    """The contents of a data folder.

    Attributes:
        root: absolute path of the data folder.
        classes: sorted names of the classes.
        samples: sorted by path. `split` is set if folders or the table tell it; `group` is what the group pattern captured or
            the table says, else the video that a frame was cut from, else the digest; status is "ok", or "rejected" for
            anything but a readable regular file.
        stored_splits: splits that folders or the table tell ("train", "validate", "test"); empty if they tell none.
        loose: number of files beside the class folders; they are ignored.
        notes: annotations and notes beside images; they are ignored, too.
        left_out: folders beside those of the splits that are ignored, as `Rules.layout` asks.
        labelled: what the table of labels says; None if there is none.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    stored_splits: frozenset[str]
    loose: int
    notes: tuple[Path, ...] = ()
    left_out: tuple[Path, ...] = ()
    labelled: Labelled | None = None


def scan(
    root: Path,
    known: Sequence[Sample] = (),
    rules: Rules = Rules(),
    progress: Callable[[int, int], None] = lambda count, total: None,
    spelt: Sequence[str] = (),
) -> Scan:
    """Find all labelled files of a data folder, and hash new and changed ones.

    Args:
        root: a folder of class folders, or a folder with `train/` and optionally `validate/` and `test/`, each of which holds
            class folders; with a table of labels, any folder.
        known: samples of the previous scan; a file with the same path, size, time and inode keeps its digest.
        progress: called with the number of hashed files and the number of all files.
        spelt: classes of the previous scan; the same name in another Unicode form keeps their spelling.

    Raises:
        VggftError: no such folder, a layout that is not clear, no class folders, fewer than two classes, a class with too few
            images, a table that cannot be used, or a pattern without a capture group.
    """
    pattern = _group_pattern(rules.group_by)
    root = Path(root)
    if not root.is_dir():
        problem = "not a folder" if os.path.lexists(root) else "no such folder"
        raise VggftError(f"{root}: {problem}. Expected a folder of class folders (cats/, dogs/, …).")
    found = (
        _by_folders(places.resolved(root), rules.layout, spelt)
        if rules.table is None
        else _by_table(root, rules, spelt)
    )
    _check_classes(found, rules.table)
    if pattern and not any(pattern.search(sample.path) for sample in found.samples):
        raise VggftError(
            f"--group-by {rules.group_by!r} matches none of {counted(len(found.samples), 'file')} (the first: "
            f"{found.samples[0].path}). Correct the pattern, or leave it out."
        )
    samples = _hash_all(found.root, found.samples, {s.path: s for s in known}, progress)
    return replace(found, samples=tuple(replace(s, group=_group(s, pattern)) for s in samples))


def _by_folders(root: Path, layout: LayoutName, spelt: Sequence[str]) -> Scan:
    found = layouts.find(root, layout)
    label_of = _one_spelling(spelt, (folder.label for folder in found.folders))
    class_folders = [replace(folder, label=label_of[same_name(folder.label)]) for folder in found.folders]
    _check_case(root, class_folders)
    above, notes = (os.path.realpath(root),), list[Path]()
    samples = [
        sample
        for folder in class_folders
        for sample in files_below(root, folder.path, Sample("", folder.label, folder.split), above, notes.append)
    ]
    return Scan(
        root,
        tuple(sorted({folder.label for folder in class_folders})),
        tuple(sorted(samples, key=lambda sample: sample.path)),
        frozenset(folder.split for folder in class_folders if folder.split),
        found.loose,
        tuple(notes),
        found.left_out,
    )


def _by_table(root: Path, rules: Rules, spelt: Sequence[str]) -> Scan:
    assert rules.table is not None
    notes: list[Path] = []
    labelled = labels.read(rules.table, root, notes.append)
    label_of = _one_spelling(spelt, (sample.label for sample in labelled.samples))
    samples = tuple(replace(sample, label=label_of[same_name(sample.label)]) for sample in labelled.samples)
    stored = frozenset(sample.split for sample in samples if sample.split)
    classes = tuple(sorted({sample.label for sample in samples}))
    return Scan(places.resolved(root), classes, samples, stored, 0, tuple(notes), labelled=labelled)


def _one_spelling(spelt: Sequence[str], names: Iterable[str]) -> dict[str, str]:
    """Return the label for each name: those that differ only in their Unicode form are one, spelt as in the previous scan."""
    label_of: dict[str, str] = {}
    for label in (*spelt, *names):
        label_of.setdefault(same_name(label), label)
    return label_of


def _check_case(root: Path, class_folders: Sequence[ClassFolder]) -> None:
    """Check that no split spells a class of the training split differently: train/Cat and validate/cat are one class.

    Raises:
        VggftError: one does.
    """
    trained = {folder.label.casefold(): folder.label for folder in class_folders if folder.split == "train"}
    known = set(trained.values())
    for folder in class_folders:
        label = folder.label
        if folder.split and label not in known and label.casefold() in trained:
            raise VggftError(
                f"{folder.path}: the class is called {trained[label.casefold()]!r} in the training folder, and {label!r} here. "
                f"Give it one name in all of {root}."
            )


def _group_pattern(group_by: str | None) -> re.Pattern[str] | None:
    if group_by is None:
        return None
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise VggftError(f"--group-by {group_by!r} is not a valid regular expression: {error}.") from None
    if pattern.groups < 1:
        raise VggftError(f"--group-by {group_by!r} has no capture group: put the group's name in parentheses.")
    return pattern


def _group(sample: Sample, pattern: re.Pattern[str] | None) -> str:
    match = pattern.search(sample.path) if pattern else None
    captured = match.group(1) if match else None
    return captured or sample.group or video_of(sample.path) or sample.digest


def _check_classes(found: Scan, table: Path | None) -> None:
    root, stored = found.root, found.stored_splits
    source = table or root
    if not found.classes:
        loose = sum(1 for entry in root.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES)
        problem = f"{counted(loose, 'picture')} but no folders" if loose else "no class folders"
        raise VggftError(
            f"{root}: {problem}. Expected one folder per class (cats/, dogs/, …) with its pictures{_OTHERWISE}"
        )
    if len(found.classes) < 2:
        expected = "labels." if table else f"class folders{_OTHERWISE}"
        raise VggftError(f"{source}: only one class ({found.classes[0]!r}). Expected two or more {expected}")
    by_class: dict[str, list[Sample]] = {name: [] for name in found.classes}
    for sample in found.samples:
        by_class[sample.label].append(sample)
    for name, in_class in by_class.items():
        usable = [s for s in in_class if s.status == "ok"]
        remove = "leave out its rows" if table else "move its folder away"
        if not usable:
            rejected = f" ({in_class[0].path}: {in_class[0].reason})" if in_class else ""
            raise VggftError(f"{source}: class {name!r} has no images{rejected}. Add pictures or {remove}.")
        if stored and not any(s.split == "train" for s in usable):
            raise VggftError(
                f"{source}: class {name!r} ({usable[0].path}) has no images in the training split. Every class needs training "
                f"images. Add some, or {remove}."
            )
        if len(usable) < 2 and "validate" not in stored:  # in a stored validation split, a class may be missing
            raise VggftError(
                f"{source}: class {name!r} has only one image ({usable[0].path}). Expected at least two, for training and "
                f"validation. Add pictures or {remove}."
            )


def _hash_all(
    root: Path, samples: Sequence[Sample], known: Mapping[str, Sample], progress: Callable[[int, int], None]
) -> list[Sample]:
    result: list[Sample] = []
    with interrupts.threads() as pool:
        tasks = [samples[first : first + _FILES_PER_TASK] for first in range(0, len(samples), _FILES_PER_TASK)]
        for batch in pool.map(lambda task: [hashed(root, s, known.get(s.path)) for s in task], tasks):
            interrupts.check()
            result += batch
            progress(len(result), len(samples))
    return result


def hashed(root: Path, sample: Sample, before: Sample | None = None) -> Sample:
    """Return a sample with the digest of its file, or rejected where the file cannot be read.

    Args:
        root: the folder that the sample's path is relative to.
        before: the same file in the previous scan; its digest is kept if size, time and inode have not changed.
    """
    if sample.status == "rejected":
        return sample
    same_file = before is not None and (before.size, before.mtime_ns, before.inode) == (
        sample.size,
        sample.mtime_ns,
        sample.inode,
    )
    if before is not None and same_file and before.digest:
        return replace(sample, digest=before.digest)
    hashed_at = time.time_ns()
    try:
        if sample.size > formats.MAX_FILE_BYTES:  # hashing it would take minutes
            with durable.open_regular(root / sample.path) as file:
                reason = formats.oversized(file.read(formats.HEAD), sample.size) or ""
            return replace(sample, status="rejected", reason=reason, mtime_ns=0)
        digest = durable.sha256(root / sample.path)
    except OSError as error:
        return replace(sample, status="rejected", reason=f"cannot be read: {error.strerror}", mtime_ns=0)
    settled = abs(hashed_at - sample.mtime_ns) >= _SETTLED_NS
    return replace(sample, digest=digest, mtime_ns=sample.mtime_ns if settled else 0)
