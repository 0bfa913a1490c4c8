"""A data folder → its classes and files, with a digest each. Reads files only to hash them; decides no split."""

import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from featurize import durable, interrupts
from featurize.data.dataset import Sample
from featurize.errors import VggftError

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation", "val", "valid"), "validate"),
    **dict.fromkeys(("test", "testing"), "test"),
}

PICTURE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .png .gif .webp .tif .tiff .bmp .dib .ppm .pgm .ico .tga .pcx .jp2 .heic .heif .avif".split()
)

# What file managers leave behind; hidden files are passed over anyway.
LITTER = frozenset({"thumbs.db", "desktop.ini", "icon\r", "__macosx"})

# A file changed this short a time before it was hashed may change again without its time moving (coarse clocks):
# its time is not remembered, so the next scan reads it again.
_SETTLED_NS = 2_000_000_000

# Files that a thread hashes in one go. A task a file took 2 kB of memory, and a third of the time where nothing changed.
_AT_ONCE = 16


@dataclass(frozen=True)
class Scan:
    """What lies in a data folder.

    Attributes:
        root: the data folder, absolute.
        classes: sorted folder names.
        samples: in path order. `split` is set where the folders say it; `group` is set to the digest or to what the
            group pattern captured; status is "ok" or "rejected" (never opened: no regular file, no permission).
        stored_splits: splits given by folders ("train", "validate", "test"); empty where class folders lie at the top.
        loose: files beside the class folders, left alone.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    stored_splits: frozenset[str]
    loose: int


def scan(
    root: Path,
    known: Sequence[Sample] = (),
    group_by: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Scan:
    """Find every file under the class folders of `root` and hash those that are new or changed.

    Args:
        root: a folder of class folders, or of `train/` and perhaps `validate/` and `test/`, each of class folders.
        known: samples of the last scan; where path, size, time and inode agree, the digest is taken from there.
        group_by: regular expression; its first group, searched in the path, names the sample's group.
        progress: called with (files done, files in all) while hashing.

    Raises:
        VggftError: no such folder, no class folders, fewer than two classes, a class without enough images, or a
            pattern without a group.
    """
    pattern = _group_pattern(group_by)
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise VggftError(f"{root}: expected a folder of class folders (cats/, dogs/, …), found {what} there.")
    root = root.resolve()
    homes, loose = _class_folders(root)
    found = sorted(
        (
            sample
            for split, label, folder in homes
            for sample in files_below(root, folder, Sample("", label, split), (os.path.realpath(root),))
        ),
        key=lambda sample: sample.path,
    )
    classes = tuple(sorted({label for _, label, _ in homes}))
    stored = frozenset(split for split, _, _ in homes if split)
    _check_classes(root, classes, found, stored)
    samples = _hash_all(root, found, {s.path: s for s in known}, progress)
    samples = [replace(s, group=_group(s, pattern)) for s in samples]
    return Scan(root, classes, tuple(samples), stored, loose)


def _group_pattern(group_by: str | None) -> re.Pattern[str] | None:
    if group_by is None:
        return None
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise VggftError(f"--group-by {group_by!r} is no regular expression: {error}.") from None
    if pattern.groups < 1:
        raise VggftError(f"--group-by {group_by!r} captures nothing: put parentheses around what names the group.")
    return pattern


def _group(sample: Sample, pattern: re.Pattern[str] | None) -> str:
    match = pattern.search(sample.path) if pattern else None
    captured = match.group(1) if match else None
    return sample.digest if captured is None else captured


def _class_folders(root: Path) -> tuple[list[tuple[str, str, Path]], int]:
    """Return (split or "", class, folder) for every class folder, and how many files lie beside them."""
    folders = subfolders(root)
    splits = {folder: SPLIT_FOLDERS[folder.name.lower()] for folder in folders if folder.name.lower() in SPLIT_FOLDERS}
    # train/ beside validate/ or test/ holds classes; "train" beside "bus" is a class; train/ alone is what it holds.
    by_split = "train" in splits.values() and (len(splits) > 1 or (len(folders) == 1 and bool(subfolders(folders[0]))))
    if not by_split:
        for folder in splits:  # a class called "test" has pictures in it, a split has folders
            if subfolders(folder) and not _loose_files(folder):
                raise VggftError(
                    f"{folder}: a split's name, with class folders in it. Expected train/ beside validate/ or test/, and "
                    "no other folder. Rename the folders, or move them away."
                )
        return [("", folder.name, folder) for folder in folders], _loose_files(root)
    if len(set(splits.values())) < len(splits):
        names = ", ".join(sorted(folder.name for folder in splits))
        raise VggftError(f"{root}: two folders for one split among {names}; keep one of them.")
    others = [folder.name for folder in folders if folder not in splits]
    if others:
        raise VggftError(
            f"{root}: {', '.join(others)} beside train/: neither a split (train, validate, test) nor inside one. Move it away, "
            "or into train/ if it is a class."
        )
    for folder in splits:
        if not subfolders(folder):
            raise VggftError(
                f"{folder}: no class folders. Expected one folder for each class, with its pictures in it."
            )
    homes = [(split, label.name, label) for folder, split in splits.items() for label in subfolders(folder)]
    return homes, sum(_loose_files(folder) for folder in [root, *folders])


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that may be classes or splits, in path order; hidden ones are passed over.

    Raises:
        VggftError: no permission to list it.
    """
    try:
        found = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
        return sorted(entry for entry in found if entry.name.lower() not in LITTER)
    except PermissionError:
        raise VggftError(f"{folder}: no permission to list this folder; change its permissions.") from None


def _loose_files(folder: Path) -> int:
    return sum(1 for entry in folder.iterdir() if not entry.name.startswith(".") and not entry.is_dir())


def files_below(root: Path, folder: Path, template: Sample, above: tuple[str, ...] = ()) -> Iterator[Sample]:
    """Yield a sample for every file below a folder, in name order; hidden files are passed over, links followed, loops cut.

    Args:
        root: paths are relative to it.
        template: gives label and split.
        above: real paths of the folders on the way here.
    """
    if os.path.realpath(folder) in above:
        yield _unusable(root, folder, template, "a link back to a folder above it")
        return
    above = (*above, os.path.realpath(folder))
    try:
        # Only names: the entries themselves keep ten times as much in memory.
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError as error:
        yield _unusable(root, folder, template, f"folder cannot be listed: {error.strerror}")
        return
    for name in names:
        if name.startswith(".") or name.lower() in LITTER:
            continue
        path = folder / name
        try:
            status = path.stat()
        except OSError as error:
            linked = os.path.islink(path)  # noqa: PTH114  (Path.is_symlink raises where the folder may not be entered)
            reason = "broken link" if linked else f"cannot be read: {error.strerror}"
            yield _unusable(root, path, template, reason)
            continue
        if stat.S_ISDIR(status.st_mode):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                yield _unusable(root, path, template, "a folder, not a picture")
            else:
                yield from files_below(root, path, template, above)
        elif not stat.S_ISREG(status.st_mode):
            yield _unusable(root, path, template, "not a regular file (a pipe, socket or device)")
        else:
            relative = path.relative_to(root).as_posix()
            yield replace(
                template, path=relative, size=status.st_size, mtime_ns=status.st_mtime_ns, inode=status.st_ino
            )


def _unusable(root: Path, path: Path, template: Sample, reason: str) -> Sample:
    return replace(template, path=path.relative_to(root).as_posix(), status="rejected", reason=reason)


def _check_classes(root: Path, classes: Sequence[str], found: Sequence[Sample], stored: frozenset[str]) -> None:
    if not classes:
        loose = sum(1 for entry in root.iterdir() if entry.suffix.lower() in PICTURE_SUFFIXES)
        what = f"{loose} pictures but no folders" if loose else "no class folders"
        raise VggftError(
            f"{root}: {what}. Expected one folder for each class (cats/, dogs/, …) with its pictures in it."
        )
    if len(classes) < 2:
        raise VggftError(f"{root}: only one class ({classes[0]!r}). A classifier needs two or more class folders.")
    usable = [s for s in found if s.status == "ok"]
    for name in classes:
        own = [s for s in usable if s.label == name]
        if not own:
            lost = next((f" ({s.path}: {s.reason})" for s in found if s.label == name), "")
            raise VggftError(
                f"{root}: class {name!r} has no images{lost}. Add pictures to its folder or remove the folder."
            )
        if stored and not any(s.split == "train" for s in own):
            raise VggftError(f"{root}: class {name!r} has no images in train/. A class that is judged must be learnt.")
        if len(own) < 2 and "validate" not in stored:  # where it is, a class may lack images that judge
            raise VggftError(
                f"{root}: class {name!r} has one image ({own[0].path}); expected two or more, one to learn from and "
                "one to validate on. Add pictures or remove the folder."
            )


def _hash_all(
    root: Path, found: Sequence[Sample], known: Mapping[str, Sample], progress: Callable[[int, int], None]
) -> list[Sample]:
    hashed = []
    with interrupts.threads() as pool:
        pieces = [found[first : first + _AT_ONCE] for first in range(0, len(found), _AT_ONCE)]
        for piece in pool.map(lambda own: [_hashed(root, s, known.get(s.path)) for s in own], pieces):
            interrupts.check()
            hashed += piece
            progress(len(hashed), len(found))
    return hashed


def _hashed(root: Path, sample: Sample, before: Sample | None) -> Sample:
    if sample.status == "rejected":
        return sample
    same_file = before is not None and (before.size, before.mtime_ns, before.inode) == (
        sample.size,
        sample.mtime_ns,
        sample.inode,
    )
    if before is not None and same_file and before.digest:
        return replace(sample, digest=before.digest)
    now = time.time_ns()
    try:
        digest = durable.sha256(root / sample.path)
    except OSError as error:
        return replace(sample, status="rejected", reason=f"cannot be read: {error.strerror}", mtime_ns=0)
    settled = abs(now - sample.mtime_ns) >= _SETTLED_NS
    return replace(sample, digest=digest, mtime_ns=sample.mtime_ns if settled else 0)
