"""Which folders of a data folder are splits and which are classes; what is neither clearly is refused, and said."""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from featurize.data import split_names
from featurize.data.dataset import SPLITS, Split
from featurize.data.folders import PICTURE_SUFFIXES, loose_files, same_name, subfolders
from featurize.errors import VggftError
from featurize.options import Option
from featurize.wording import counted

LayoutName = Literal["auto", "classes", "splits"]
Layout = Annotated[
    LayoutName,
    Option(
        "What the folders in DATA are: classes, or splits that hold class folders (others are left out); auto: by their "
        "names, where those are clear."
    ),
]

LABELS = "--labels TABLE"
_CLASSES = "--layout classes"

# Folders that come in pairs and are no classes: pictures, and what was noted about them.
_PICTURES = frozenset("image images img imgs picture pictures photo photos jpegimages jpg jpeg".split())
_NOTES = frozenset(
    "annotation annotations label labels mask masks trimap trimaps bbox bboxes boxes xml xmls json groundtruth truth gt "
    "segmentation segmentations segmentationclass segmentationobject imagesets metadata".split()
)


@dataclass(frozen=True)
class ClassFolder:
    """A folder whose pictures have one label; `split` is empty where no folder tells it."""

    split: Split | Literal[""]
    label: str
    path: Path


@dataclass(frozen=True)
class Found:
    """The class folders, the number of files beside them, and the folders beside the splits that are left out."""

    folders: tuple[ClassFolder, ...]
    loose: int
    left_out: tuple[Path, ...] = ()


def find(root: Path, layout: LayoutName, known: Sequence[str] = ()) -> Found:
    """Return the class folders of a data folder.

    Args:
        known: classes of an earlier scan. Folders that are all among them are classes, whatever their names look like.

    Raises:
        VggftError: names or contents that may be classes or something else.
    """
    folders = subfolders(root)
    if layout == "splits":
        return _below_splits(root, folders, _only_family(root, folders), layout)
    earlier = {same_name(name) for name in known}
    if layout == "classes" or (folders and all(same_name(folder.name) in earlier for folder in folders)):
        return _classes(root, folders)
    families = split_names.families(folders)
    complete = {words: family for words, family in families.items() if len({split for split, _ in family}) > 1}
    if len(complete) > 1:
        names = ", ".join(sorted(folder.name for family in complete.values() for _, folder in family))
        raise VggftError(
            f"{root}: {names}: class and split in one name. Expected train/ and test/ with class folders in them. Move the "
            f"folders, or use {LABELS} or {_CLASSES}."
        )
    for family in complete.values():
        return _below_splits(root, folders, family, layout)
    plain = families.get((), [])
    if [split for split, _ in plain] == ["train"]:
        # A single train/ with folders is a split. Beside other folders, such as bus/, it is a class.
        if len(folders) == 1 and subfolders(folders[0]):
            return _below_splits(root, folders, plain, layout)
        plain = [(split, folder) for split, folder in plain if subfolders(folder) and not loose_files(folder)]
    if plain:
        raise VggftError(
            f"{plain[0][1]}: looks like a split folder in an incomplete or mixed layout. Expected train/ with validate/ or "
            f"test/, and no other folders, or only classes. Rename the folders or move them away. Where {_listed(folders)} are "
            f"classes: {_CLASSES}."
        )
    _check_contents(root, folders)
    return _classes(root, folders)


def _classes(root: Path, folders: Sequence[Path]) -> Found:
    return Found(tuple(ClassFolder("", folder.name, folder) for folder in folders), loose_files(root))


def _only_family(root: Path, folders: Sequence[Path]) -> list[tuple[Split, Path]]:
    """Return the split folders where they have to be there; those named plainly, train/ and test/, before all others."""
    families = split_names.families(folders)
    family = families.get((), []) or (next(iter(families.values())) if len(families) == 1 else [])
    if not family:
        raise VggftError(
            f"{root}: --layout splits: no split folders. Expected train/ and, if there are any, validate/ and test/; there "
            f"are {_listed(folders) or 'no folders'}."
        )
    return family


def _below_splits(
    root: Path, folders: Sequence[Path], family: Sequence[tuple[Split, Path]], layout: LayoutName
) -> Found:
    """Return the class folders in the folders of splits.

    Raises:
        VggftError: no training folder; two folders for a split; a split folder without class folders; or, unless `layout` is
            "splits", folders beside the splits, or pictures beside annotations.
    """
    names = ", ".join(sorted(path.name for _, path in family))
    splits = [split for split, _ in family]
    if "train" not in splits:
        raise VggftError(
            f"{root}: {names}: looks like a split folder in an incomplete or mixed layout. Expected train/ beside them."
        )
    if len(set(splits)) < len(splits):
        raise VggftError(f"{root}: two folders for the same split among {names}; keep one of them.")
    train = next(path for split, path in family if split == "train")
    others = tuple(folder for folder in folders if folder not in {path for _, path in family})
    if others and layout == "auto":
        raise VggftError(
            f"{root}: unexpected beside {train.name}/: {_listed(others)}. Expected only train/, validate/ and test/. Move a "
            f"class into {train.name}/, and anything else away; or use --layout splits, which leaves out all but {names}. If all "
            f"of them are classes: {_CLASSES}."
        )
    found, loose = [], loose_files(root)
    for split, path in sorted(family, key=lambda pair: SPLITS.index(pair[0])):
        outer = _unwrapped(path)
        inner = subfolders(outer)
        if not inner:
            raise _no_class_folders(root, path, train if split == "test" else None)
        if layout == "auto":
            _check_notes(outer, inner, "--layout splits")
        loose += loose_files(outer)
        found += [ClassFolder(split, folder.name, folder) for folder in inner]
    return Found(tuple(found), loose, others)


def _unwrapped(folder: Path) -> Path:
    """Return the folder inside a split's folder that is called like it and is all there is: seg_train/seg_train."""
    inner = subfolders(folder)
    while len(inner) == 1 and same_name(inner[0].name) == same_name(folder.name):
        folder, inner = inner[0], subfolders(inner[0])
    return folder


def _no_class_folders(root: Path, folder: Path, train: Path | None) -> VggftError:
    """Return the error about a split without class folders; `train`: the training folder, beside a folder to test on."""
    found = counted(loose_files(folder), "file")
    problem = f"{folder}: no class folders ({found}). Expected one folder per class with its pictures."
    if train is not None and subfolders(train):
        return VggftError(
            f"{problem} If these pictures are unlabelled, they are what vggft predict is for: run vggft featurize "
            f"{shlex.quote(str(train))}, and later vggft predict {shlex.quote(str(folder))}."
        )
    return VggftError(f"{problem} If the labels are in a table: vggft featurize {shlex.quote(str(root))} {LABELS}.")


def _check_contents(root: Path, folders: Sequence[Path]) -> None:
    """Check that classes are not a level deeper, nor another thing than folders.

    Raises:
        VggftError: pictures beside annotations; splits in classes; or folders that all hold the same folders and no picture.
    """
    _check_notes(root, folders, _CLASSES)
    inside = {folder: _deeper(folder) for folder in folders}
    for folder, names in inside.items():
        splits = {split for name in names for split, words in [split_names.parse(name) or ("", None)] if words == ()}
        if len(splits) > 1:
            what = "the folder" if len(folders) == 1 else "a class"
            advice = (
                f"Run vggft featurize {shlex.quote(str(folder))}"
                if len(folders) == 1
                else f"Expected train/{folder.name} rather than {folder.name}/train. Move the folders, or use {LABELS}"
            )
            raise VggftError(f"{folder}: {what} holds splits ({', '.join(sorted(names))}). {advice}.")
    if len(folders) == 1 and len(inside[folders[0]]) > 1:
        names = inside[folders[0]]
        raise VggftError(
            f"{root}: only one class ({folders[0].name!r}), which holds {counted(len(names), 'folder')} ({_some(names)}). If "
            f"these are the classes: vggft featurize {shlex.quote(str(folders[0]))}"
        )
    shared = set.intersection(*inside.values()) if len(folders) > 1 else set()
    if len(shared) > 1:
        raise VggftError(
            f"{root}: {_listed(folders)} all hold the folders {_some(shared)}, which may be the classes, a level too deep. If "
            f"they are, use one of {_listed(folders)} as DATA, or {LABELS}. If {_listed(folders)} are the classes: {_CLASSES}."
        )


def _check_notes(place: Path, folders: Sequence[Path], anyway: str) -> None:
    """Check that folders are not pictures and what was noted about them, such as images/ beside annotations/.

    Args:
        anyway: the option with which they are classes.
    """
    pictures = next(
        (folder for folder in folders if _words(folder) & _PICTURES and not _words(folder) - _PICTURES), None
    )
    notes = [folder.name for folder in folders if _words(folder) & _NOTES and not _words(folder) - _NOTES - _PICTURES]
    if pictures is None or not notes:
        return
    advice = (
        f"its folders, if they are classes: vggft featurize {shlex.quote(str(pictures))}"
        if subfolders(pictures)
        else f"a table of labels: vggft featurize {shlex.quote(str(pictures))} {LABELS}"
    )
    raise VggftError(
        f"{place}: {pictures.name}/ beside {', '.join(notes)} is no class. Expected class folders. Use {advice}. If they are "
        f"classes: {anyway}."
    )


def _words(folder: Path) -> set[str]:
    return set(filter(None, re.split(r"[\W\d_]+", folder.name.lower())))


def _deeper(folder: Path) -> set[str]:
    """Return the names of the folders in a folder that holds no pictures itself; empty where it does, or cannot be listed."""
    names = set()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    names.add(entry.name)
                elif Path(entry.name).suffix.lower() in PICTURE_SUFFIXES:
                    return set()
    except OSError:
        return set()  # reported where its files are read
    return {name for name in names if not name.startswith(".")}


def _listed(folders: Sequence[Path]) -> str:
    return _some([folder.name for folder in folders])


def _some(names: Sequence[str] | set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (", …" if len(names) > 5 else "")
