"""Where predicted files go: FOLDER/class, or FOLDER/unsure/class; and where none may go, or be taken from."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurize.data.folders import same_name
from featurize.disk.transfer import located
from featurize.errors import VggftError
from featurize.process import places
from vggft.workspace.workspace import Workspace

_MOST_BYTES = 255  # of a file's name, on nearly all file systems
_LONGEST_SUFFIX = 20  # characters; what follows the dot in longer ones is part of the name
_DIGITS = (8, 16, 32, 64)  # of the sha256, in the name of a file whose own is taken


@dataclass(frozen=True)
class Target:
    """The folder for predicted files.

    Attributes:
        folder: an absolute path without links.
        unsure: name of the folder in it for unsure predictions.
        guarded: what lies there → its folder: the images of the workspace, and what vggft keeps.
    """

    folder: Path
    unsure: str
    guarded: dict[str, Path]

    @classmethod
    def of(cls, workspace: Workspace, folder: Path, classes: Sequence[str]) -> "Target":
        """Check that a folder may hold predicted files.

        Raises:
            VggftError: files would become training images or lie among vggft's, something is in the way, or a class has a name
                that no folder can have.
        """
        odd = [name for name in classes if name in ("", ".", "..") or Path(name).name != name]
        if odd:
            raise VggftError(f"--into {folder}: the class {odd[0]!r} cannot be the name of a folder.")
        guarded = {
            "the data folder": places.resolved(workspace.dataset.root),
            "the workspace": places.resolved(workspace.root),
            "the cache": places.resolved(workspace.cache_folder),
        }
        target = cls(places.resolved(folder), _free("unsure", classes), guarded)
        for place in (target.place(label, unsure=unsure) for label in classes for unsure in (False, True)):
            in_the_way = places.in_the_way(place)
            if in_the_way is not None:
                raise VggftError(f"--into {folder}: {in_the_way} is not a folder. Choose another folder.")
            guard = target.guard(places.resolved(place))
            if guard:
                raise VggftError(
                    f"--into {folder}: predicted files would lie in {guard} ({guarded[guard]}), where they would be taken for "
                    "training images or for files of vggft. Choose a folder outside of it."
                )
        return target

    def place(self, label: str, *, unsure: bool) -> Path:
        """Return the folder for files of a class."""
        return self.folder / self.unsure / label if unsure else self.folder / label

    def guard(self, path: Path) -> str:
        """Return what a path without links lies in, of the guarded folders; else an empty text."""
        return next((what for what, root in self.guarded.items() if path.is_relative_to(root)), "")

    def require_apart(self, paths: Sequence[Path]) -> None:
        """Check that paths to predict are not in the target; folders that contain it are allowed.

        Raises:
            VggftError: one is.
        """
        for path in paths:
            if places.resolved(path).is_relative_to(self.folder):
                raise VggftError(
                    f"{path}: lies in --into {self.folder}, whose files stay where they are. Choose another folder for --into."
                )

    def require_movable(self, paths: Sequence[Path]) -> None:
        """Check that paths to predict are not in a guarded folder; where folders contain one, its files are left.

        Raises:
            VggftError: one is.
        """
        for path in paths:
            guard = self.guard(places.resolved(path))
            if guard:
                raise VggftError(
                    f"--how move: {path} lies in {guard}, whose files vggft needs where they are. Use --how copy or --how link."
                )

    def holds(self, path: Path) -> bool:
        """Return whether a file lies in the target."""
        return located(path).is_relative_to(self.folder)


def _free(name: str, classes: Sequence[str]) -> str:
    """Return a name for a folder that is no class: `name`, else with a number."""
    taken = {same_name(label).casefold() for label in classes}
    number, candidate = 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def names(name: str, digest: str) -> Iterator[str]:
    """Yield a file's name, then others that tell it from different files of the same name: with digits of its sha256."""
    yield name
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 (a name, which need not be a path's)
    if len(suffix) > _LONGEST_SUFFIX:
        stem, suffix = name, ""
    for digits in _DIGITS:
        end = f"-{digest[:digits]}{suffix}"
        shortened = stem
        while len(os.fsencode(shortened + end)) > _MOST_BYTES:
            shortened = shortened[:-1]
        yield shortened + end
