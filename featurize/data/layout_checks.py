"""Checks that folders are classes: not pictures beside their annotations, not parts of one set, not a level too high."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurize.data import split_names
from featurize.data.folders import PICTURE_SUFFIXES, subfolders
from featurize.errors import VggftError
from featurize.wording import counted

WITH_TABLE = "--labels TABLE"
AS_CLASSES, AS_SPLITS = "--layout classes", "--layout splits"

# Words in the names of folders that come in pairs: pictures, and their annotations.
_PICTURES = frozenset(
    "image images img imgs picture pictures photo photos jpegimages jpg jpeg original originals frame frames input inputs "
    "rgb".split()
)
ANNOTATIONS = frozenset(
    "annotation annotations ann anns label labels mask masks trimap trimaps bbox bboxes boxes xml xmls json csv truth "
    "groundtruth gt target targets depth segmentation segmentations segmentationclass segmentationobject imagesets meta "
    "metadata attributes parts devkit output outputs".split()
)
_DEEPEST = 20  # folders in each other, each the only one

# Words in the names of folders that hold parts of one set: images_001, part2, fold_3.
_PARTS = frozenset("image images img imgs part parts batch fold chunk data set shard split".split())


@dataclass(frozen=True)
class _Contents:
    """What is in a folder, or in the only folder in it: names of folders, and whether there are pictures beside them."""

    place: Path
    names: frozenset[str]
    pictures: bool


def check(place: Path, folders: Sequence[Path], within: Path | None = None) -> None:
    """Check that folders are classes.

    Args:
        place: the folder that they are in.
        within: the data folder, where `place` is the folder of a split.

    Raises:
        VggftError: they may be something else. The message says what was seen, and how to go on.
    """
    anyway = AS_CLASSES if within is None else AS_SPLITS
    inside = {folder: _contents(folder) for folder in folders}
    _check_annotations(place, folders, anyway)
    _check_splits_inside(place, inside, anyway)
    if within is None:
        _check_one_folder(place, inside)
    _check_repeated(place, inside, anyway)
    _check_same_inside(place, inside, anyway)
    if within is None:
        _check_parts(place, folders)


def _check_annotations(place: Path, folders: Sequence[Path], anyway: str) -> None:
    pictures, annotations = _pictures_and_annotations([folder.name for folder in folders])
    if not pictures or not annotations:
        return
    folder = place / pictures[0]
    advice = (
        f"If its folders are classes: vggft featurize {shlex.quote(str(folder))}"
        if subfolders(folder)
        else f"If there is a table of labels: vggft featurize {shlex.quote(str(folder))} {WITH_TABLE}"
    )
    raise VggftError(
        f"{place}: {pictures[0]}/ beside {_some(annotations)} may be images and their annotations. Expected class folders. "
        f"{advice}. If they are classes: {anyway}."
    )


def _pictures_and_annotations(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names that say nothing but "pictures", and those that tell annotations of them."""
    words = {name: set(re.split(r"[\W\d_]+", name.lower())) - {""} for name in names}
    pictures = [name for name in names if words[name] and words[name] <= _PICTURES]
    return pictures, [name for name in names if words[name] & ANNOTATIONS and name not in pictures]


def _check_splits_inside(place: Path, inside: Mapping[Path, _Contents], anyway: str) -> None:
    for folder, contents in inside.items():
        complete = [
            family
            for family in split_names.families(contents.place / name for name in contents.names).values()
            if split_names.is_complete(family)
        ]
        if not complete:
            continue
        splits = listed([path for _, path in complete[0]])
        others = [path for path in inside if path != folder]
        if not any(_holds_splits(inside[path]) for path in others):
            rest = f" If {folder.name}/ is a class: {anyway}." if others else ""
            raise VggftError(
                f"{contents.place}: holds splits ({splits}). If it is the data set: vggft featurize "
                f"{shlex.quote(str(contents.place))}.{rest}"
            )
        raise VggftError(
            f"{folder}: a class holds splits ({splits}). Expected train/{folder.name} rather than {folder.name}/train. Move the "
            f"folders, or use {WITH_TABLE}. If {listed(list(inside))} are classes, and their splits do not matter: {anyway}."
        )


def _holds_splits(contents: _Contents) -> bool:
    folders = (contents.place / name for name in contents.names)
    return any(split_names.is_complete(family) for family in split_names.families(folders).values())


def _check_one_folder(place: Path, inside: Mapping[Path, _Contents]) -> None:
    if len(inside) != 1:
        return
    ((folder, contents),) = inside.items()
    if len(contents.names) > 1 and not contents.pictures:
        raise VggftError(
            f"{place}: only one class ({folder.name!r}), which holds {counted(len(contents.names), 'folder')} "
            f"({_some(contents.names)}). If these are the classes: vggft featurize {shlex.quote(str(contents.place))}"
        )


def _check_parts(place: Path, folders: Sequence[Path]) -> None:
    """Check that names do not differ in their digits only: images_001 and images_002 are parts of one set."""
    words = {tuple(split_names.words(folder.name)) for folder in folders}
    numbered = all(re.search(r"\d", folder.name) for folder in folders)
    if len(folders) > 1 and numbered and len(words) == 1 and _PARTS & set(*words):
        raise VggftError(
            f"{place}: {listed(folders)} may be parts of one set rather than classes. If there is a table of labels, use "
            f"{WITH_TABLE}. If they are classes: {AS_CLASSES}."
        )


def _check_repeated(place: Path, inside: Mapping[Path, _Contents], anyway: str) -> None:
    """Check that no folder holds the others once more: daisy/ and rose/ beside flowers/daisy and flowers/rose."""
    for folder, contents in inside.items():
        again = contents.names & {path.name for path in inside if path != folder}
        if len(again) > 1 and not contents.pictures:
            raise VggftError(
                f"{folder}: holds {_some(again)} once more, which are beside it, too. Move it away. If it is a class: {anyway}."
            )


def _check_same_inside(place: Path, inside: Mapping[Path, _Contents], anyway: str) -> None:
    """Check that not all folders hold the same folders, which may be the classes."""
    if len(inside) < 2 or any(contents.pictures for contents in inside.values()):
        return
    shared = frozenset.intersection(*(contents.names for contents in inside.values()))
    if len(shared) < 2:
        return
    folders, annotations = list(inside), _pictures_and_annotations(sorted(shared))[1]
    if annotations and len(annotations) < len(shared):
        raise VggftError(
            f"{place}: {listed(folders)} all hold {_some(shared)}, of which {_some(annotations)} may be annotations. vggft takes "
            f"every picture below the folder of a class. Move {_some(annotations)} away, or use {WITH_TABLE}. If all of them are "
            f"pictures of the class: {anyway}."
        )
    raise VggftError(
        f"{place}: {listed(folders)} all hold the folders {_some(shared)}, which may be the classes, a level too deep. If they "
        f"are, use one of {listed(folders)} as DATA, or {WITH_TABLE}. If {listed(folders)} are splits, name them train, validate "
        f"and test. If they are classes: {anyway}."
    )


def _contents(folder: Path) -> _Contents:
    """Return what is in a folder; where that is one folder and no picture, what is in that one."""
    for _ in range(_DEEPEST):
        try:
            names = frozenset(path.name for path in subfolders(folder))
            pictures = _has_pictures(folder)
        except (OSError, VggftError):  # reported where its files are read
            return _Contents(folder, frozenset(), False)
        if len(names) != 1 or pictures:
            return _Contents(folder, names, pictures)
        folder = folder / next(iter(names))
    return _Contents(folder, frozenset(), False)  # a link to a folder above it


def _has_pictures(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(Path(e.name).suffix.lower() in PICTURE_SUFFIXES and not e.name.startswith(".") for e in entries)


def listed(folders: Sequence[Path]) -> str:
    """Return the names of some folders, at most five."""
    return _some([folder.name for folder in folders])


def _some(names: Sequence[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
