"""Scanning a data folder: its classes and files, with the digest of each file. Files are only hashed, not decoded."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featurize.data.dataset import Sample
from featurize.data.folders import PICTURE_SUFFIXES, files_below, loose_files, same_name, subfolders
from featurize.disk import durable
from featurize.errors import VggftError
from featurize.pixels import formats
from featurize.process import interrupts, places
from featurize.wording import counted

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation", "val", "valid"), "validate"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# A file modified less than this before it was hashed may change again with the same modification time (coarse clocks).
# Its time is not stored, so the next scan reads it again.
_SETTLED_NS = 2_000_000_000

# Files per thread task. One task per file needed 2 kB of memory each, and took a third of the time of a scan without changes.
_FILES_PER_TASK = 16


ClassFolder = tuple[str, str, Path]  # split or "", class, folder


@dataclass(frozen=True)
class Scan:
    """The contents of a data folder.

    Attributes:
        root: absolute path of the data folder.
        classes: sorted names of the class folders.
        samples: sorted by path. `split` is set if there are split folders; `group` is the digest, or what the group pattern
            captured; status is "ok", or "rejected" for anything but a readable regular file.
        stored_splits: splits that have folders ("train", "validate", "test"); empty if the class folders are at the top level.
        loose: number of files beside the class folders; they are ignored.
        notes: annotations and notes in class folders; they are ignored, too.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    stored_splits: frozenset[str]
    loose: int
    notes: tuple[Path, ...] = ()


def scan(
    root: Path,
    known: Sequence[Sample] = (),
    group_by: str | None = None,
    progress: Callable[[int, int], None] = lambda count, total: None,
    spelt: Sequence[str] = (),
) -> Scan:
    """Find all files in the class folders of `root`, and hash new and changed ones.

    Args:
        root: a folder of class folders, or a folder with `train/` and optionally `validate/` and `test/`, each of which holds
            class folders.
        known: samples of the previous scan; a file with the same path, size, time and inode keeps its digest.
        group_by: regular expression that is searched in the path; its first capture is the sample's group.
        progress: called with the number of hashed files and the number of all files.
        spelt: classes of the previous scan; a folder of the same name in another Unicode form keeps their spelling.

    Raises:
        VggftError: no such folder, no class folders, fewer than two classes, a class with too few images, or a pattern without
            a capture group.
    """
    pattern = _group_pattern(group_by)
    root = places.expanded(Path(root))
    if not root.is_dir():
        problem = "not a folder" if os.path.lexists(root) else "no such folder"
        raise VggftError(f"{root}: {problem}. Expected a folder of class folders (cats/, dogs/, …).")
    root = places.resolved(root)
    class_folders, loose = _class_folders(root)
    class_folders = _one_spelling(class_folders, spelt)
    _check_case(root, class_folders)
    notes: list[Path] = []
    files = sorted(
        (
            sample
            for split, label, folder in class_folders
            for sample in files_below(root, folder, Sample("", label, split), (os.path.realpath(root),), notes.append)
        ),
        key=lambda sample: sample.path,
    )
    classes = tuple(sorted({label for _, label, _ in class_folders}))
    stored = frozenset(split for split, _, _ in class_folders if split)
    _check_classes(root, classes, files, stored)
    samples = _hash_all(root, files, {s.path: s for s in known}, progress)
    samples = [replace(s, group=_group(s, pattern)) for s in samples]
    return Scan(root, classes, tuple(samples), stored, loose, tuple(notes))


def _one_spelling(class_folders: Sequence[ClassFolder], spelt: Sequence[str]) -> list[ClassFolder]:
    """Give folders whose names differ only in their Unicode form one label: that of the previous scan, else the first one."""
    label_of: dict[str, str] = {}
    for label in (*spelt, *(label for _, label, _ in class_folders)):
        label_of.setdefault(same_name(label), label)
    return [(split, label_of[same_name(label)], folder) for split, label, folder in class_folders]


def _check_case(root: Path, class_folders: Sequence[ClassFolder]) -> None:
    """Check that no split spells a class of the training split differently: train/Cat and validate/cat are one class.

    Raises:
        VggftError: one does.
    """
    trained = {label.casefold(): label for split, label, _ in class_folders if split == "train"}
    known = set(trained.values())
    for split, label, folder in class_folders:
        if split and label not in known and label.casefold() in trained:
            raise VggftError(
                f"{folder}: the class is called {trained[label.casefold()]!r} in the training folder, and {label!r} here. Give "
                f"it one name in all of {root}."
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
    return sample.digest if captured is None else captured


def _class_folders(root: Path) -> tuple[list[ClassFolder], int]:
    """Return (split or "", class, folder) of every class folder, and the number of files beside the class folders."""
    folders = subfolders(root)
    splits = {folder: SPLIT_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_FOLDERS}
    # train/ is a split if validate/ or test/ is beside it, or if it is the only folder and holds folders. Beside other folders,
    # such as bus/, it is a class.
    by_split = "train" in splits.values() and (len(splits) > 1 or (len(folders) == 1 and bool(subfolders(folders[0]))))
    if not by_split:
        for folder in splits:  # a class called "test" holds pictures, a split holds folders
            if subfolders(folder) and not loose_files(folder):
                raise VggftError(
                    f"{folder}: looks like a split folder in an incomplete or mixed layout. Expected train/ with validate/ or "
                    "test/, and no other folders. Rename the folders, or move them away."
                )
        return [("", folder.name, folder) for folder in folders], loose_files(root)
    if len(set(splits.values())) < len(splits):
        names = ", ".join(sorted(folder.name for folder in splits))
        raise VggftError(f"{root}: two folders for the same split among {names}; keep one of them.")
    others = [folder.name for folder in folders if folder not in splits]
    if others:
        raise VggftError(
            f"{root}: unexpected beside train/: {', '.join(others)}. Expected only train/, validate/ and test/. Move a class "
            "into train/, and anything else away."
        )
    for folder in splits:
        if not subfolders(folder):
            raise VggftError(f"{folder}: no class folders. Expected one folder per class with its pictures.")
    class_folders = [(split, label.name, label) for folder, split in splits.items() for label in subfolders(folder)]
    return class_folders, sum(loose_files(folder) for folder in [root, *folders])


def _check_classes(root: Path, classes: Sequence[str], samples: Sequence[Sample], stored: frozenset[str]) -> None:
    if not classes:
        loose = sum(1 for entry in root.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES)
        problem = f"{counted(loose, 'picture')} but no folders" if loose else "no class folders"
        raise VggftError(f"{root}: {problem}. Expected one folder per class (cats/, dogs/, …) with its pictures.")
    if len(classes) < 2:
        raise VggftError(f"{root}: only one class ({classes[0]!r}). Expected two or more class folders.")
    for name in classes:
        in_class = [s for s in samples if s.label == name]
        usable = [s for s in in_class if s.status == "ok"]
        if not usable:
            rejected = f" ({in_class[0].path}: {in_class[0].reason})" if in_class else ""
            raise VggftError(f"{root}: class {name!r} has no images{rejected}. Add pictures or remove the folder.")
        if stored and not any(s.split == "train" for s in usable):
            raise VggftError(f"{root}: class {name!r} has no images in train/. Every class needs training images.")
        if len(usable) < 2 and "validate" not in stored:  # in a stored validation split, a class may be missing
            raise VggftError(
                f"{root}: class {name!r} has only one image ({usable[0].path}). Expected at least two, for training and "
                "validation. Add pictures or remove the folder."
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
