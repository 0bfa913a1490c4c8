"""Which folders of a data folder are splits and which are classes. What may be neither is refused (`layout_checks`)."""

import shlex
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from featurize.data import layout_checks, split_names
from featurize.data.dataset import SPLITS, Split
from featurize.data.folders import loose_files, same_name, subfolders
from featurize.data.layout_checks import AS_CLASSES, AS_SPLITS, WITH_TABLE, listed
from featurize.data.split_names import Family
from featurize.errors import VggftError
from featurize.options.choices import LayoutName
from featurize.wording import counted


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


def find(root: Path, layout: LayoutName) -> Found:
    """Return the class folders of a data folder.

    Raises:
        VggftError: names or contents that may be classes or something else.
    """
    folders = subfolders(root)
    if layout == "classes":
        return _classes(root, folders)
    families = split_names.families(folders)
    if layout == "splits":
        return _below_splits(root, folders, _only_family(root, folders, list(families.values())), layout)
    complete = [
        family
        for others, family in families.items()
        if split_names.is_complete(family) and not layout_checks.ANNOTATIONS & set(others)
    ]
    if len(complete) > 1:
        names = listed([folder for family in complete for _, folder in family])
        raise VggftError(
            f"{root}: {names}: these names combine class and split. Expected train/ and test/ with class folders in them. Move "
            f"the folders, or use {WITH_TABLE}. If they are classes: {AS_CLASSES}."
        )
    if complete:
        return _below_splits(root, folders, complete[0], layout)
    plain = families.get((), [])
    if len(folders) == 1 and [split for split, _ in plain] == ["train"] and subfolders(folders[0]):
        return _below_splits(root, folders, plain, layout)
    _check_plain(root, folders, plain)
    layout_checks.check(root, folders)
    return _classes(root, folders)


def _classes(root: Path, folders: Sequence[Path]) -> Found:
    return Found(tuple(ClassFolder("", folder.name, folder) for folder in folders), loose_files(root))


def _check_plain(root: Path, folders: Sequence[Path], plain: Family) -> None:
    """Check that no class is called like a split; train beside other classes, such as bus, is one if it holds pictures.

    Raises:
        VggftError: one is.
    """
    doubtful = [
        path
        for split, path in plain
        if split != "train" or len(plain) > 1 or (subfolders(path) and not loose_files(path))
    ]
    if not doubtful:
        return
    alone = len(folders) == 1 and len(subfolders(doubtful[0])) > 1
    advice = f" If it holds the classes: vggft featurize {shlex.quote(str(doubtful[0]))}." if alone else ""
    raise VggftError(
        f"{doubtful[0]}: looks like a split folder in an incomplete or mixed layout. Expected train/ with validate/ or test/, or "
        f"only classes. Rename the splits, or move them away.{advice} If {listed(folders)} are classes: {AS_CLASSES}."
    )


def _only_family(root: Path, folders: Sequence[Path], families: Sequence[Family]) -> Family:
    """Return the split folders where they have to be there; train/ and test/ come before all others."""
    family = next((f for f in families if all(split_names.parse(p.name) == (s, ()) for s, p in f)), None)
    if family is None and len(families) == 1:
        family = families[0]
    if family is None:
        raise VggftError(
            f"{root}: {AS_SPLITS}: no split folders. Expected train/ and, if there are any, validate/ and test/; there are "
            f"{listed(folders) or 'no folders'}. Rename those that are splits."
        )
    return family


def _below_splits(root: Path, folders: Sequence[Path], family: Family, layout: LayoutName) -> Found:
    """Return the class folders in the folders of splits.

    Raises:
        VggftError: no training folder; two folders for a split; a split folder without class folders; or, unless `layout` is
            "splits", folders beside the splits, or class folders that may be something else.
    """
    splits, names = dict(family), listed([path for _, path in family])
    otherwise = f"If {names} are classes: {AS_CLASSES}."
    if "train" not in splits:
        raise VggftError(
            f"{root}: {names}: looks like a split folder in an incomplete or mixed layout. Expected train/ beside them. "
            f"{otherwise}"
        )
    if len(splits) < len(family):
        raise VggftError(
            f"{root}: two folders for the same split among {names}. Keep one of them here, or give the other another name and "
            f"use {AS_SPLITS}, which leaves it out. {otherwise}"
        )
    train = _unwrapped(splits["train"], ())
    classes = {same_name(folder.name) for folder in subfolders(train)}
    inside = {split: _unwrapped(splits[split], classes) for split in SPLITS if split in splits}
    for split, folder in inside.items():
        if not subfolders(folder):
            raise _no_class_folders(root, split, inside, otherwise)
    others = tuple(folder for folder in folders if folder not in splits.values())
    if layout == "auto":
        _check_others(root, splits["train"], names, others)
        for folder in inside.values():
            layout_checks.check(folder, subfolders(folder), within=root)
    return Found(
        tuple(
            ClassFolder(split, label.name, label) for split, folder in inside.items() for label in subfolders(folder)
        ),
        loose_files(root) + sum(loose_files(folder) for folder in inside.values()),
        others,
    )


def _check_others(root: Path, train: Path, names: str, others: Sequence[Path]) -> None:
    if others:
        raise VggftError(
            f"{root}: unexpected beside {train.name}/: {listed(others)}. Expected only the folders of splits. Move a class into "
            f"{train.name}/. Move anything else away, or use {AS_SPLITS}, which leaves out all but {names}. If all of them are "
            f"classes: {AS_CLASSES}."
        )


def _unwrapped(folder: Path, classes: Container[str]) -> Path:
    """Return the one folder in a split's folder if it is no class and its name says nothing new: seg_train/seg_train."""
    inner = subfolders(folder)
    if len(inner) == 1 and same_name(inner[0].name) not in classes and _says_nothing_new(inner[0].name, folder.name):
        return inner[0]
    return folder


def _says_nothing_new(name: str, above: str) -> bool:
    return same_name(name) == same_name(above) or set(split_names.words(name)) <= split_names.FILLERS


def _no_class_folders(root: Path, split: Split, inside: dict[Split, Path], otherwise: str) -> VggftError:
    """Return the error about a split without class folders."""
    folder, train = inside[split], inside["train"]
    number = loose_files(folder)
    if not number:
        return VggftError(f"{folder}: empty. Expected one folder per class with its pictures. Fill it, or remove it.")
    problem = (
        f"{folder}: no class folders ({counted(number, 'file')}). Expected one folder per class with its pictures."
    )
    if split == "train":
        return VggftError(
            f"{problem} If the labels are in a table: vggft featurize {shlex.quote(str(folder))} {WITH_TABLE}, or "
            f"{shlex.quote(str(root))} if the table names the files of all splits. {otherwise}"
        )
    alone = f"vggft featurize {shlex.quote(str(train))}"
    advice = (
        f"If these pictures are unlabelled, leave them out: {alone}. Later, to classify them: vggft predict "
        f"{shlex.quote(str(folder))}."
        if split == "test"
        else f"To draw validation images from the training folder: {alone}."
    )
    return VggftError(f"{problem} {advice} {otherwise}")
