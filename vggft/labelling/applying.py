"""Putting sorted pictures into class folders, or reviewed ones into the folder of their new class; `vggft undo` undoes both."""

import os
import shlex
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from featurize.data.folders import same_name
from featurize.disk import durable, transfer
from featurize.disk.transfer import located
from featurize.errors import VggftError, reason
from featurize.process import places
from vggft.labelling.decisions import Decision
from vggft.labelling.suggestions import CANNOT_TELL
from vggft.sorting import journal
from vggft.sorting.journal import Entry, How
from vggft.sorting.sorter import Sorter
from vggft.sorting.target import Target
from vggft.ui.console import Ui


class Destination(Protocol):
    """Where decided files go."""

    @property
    def folder(self) -> Path:
        """The folder that all of them go into, where the list for `vggft undo` is written."""

    @property
    def within(self) -> Path | None:
        """The folder outside of which no file is moved, without links; None: files are moved from anywhere."""

    @property
    def hows(self) -> Sequence[How]:
        """In which ways, the default first."""

    def require(self, labels: Sequence[str]) -> None:
        """Check that files of these classes can be put there; VggftError."""

    def place(self, decision: Decision) -> Path | None:
        """Return the folder for a decided file; None for a file that stays where it is."""


@dataclass(frozen=True)
class ClassFolders:
    """A folder with a folder for each class, outside of the folder that is sorted.

    Attributes:
        root: the folder that is sorted, absolute and without links.
        folder: as in `Destination`; absolute and without links.
    """

    root: Path
    folder: Path
    hows: Sequence[How] = ("copy", "link", "move")

    @classmethod
    def of(cls, root: Path, into: Path | None) -> "ClassFolders":
        """Return the class folders in `into`; without it, in a folder beside the one that is sorted."""
        root = places.resolved(root)
        folder = root.with_name(f"{root.name}-sorted") if into is None else places.resolved(into)
        return cls(root, folder)

    @property
    def within(self) -> Path:
        """The folder that is sorted: what links in it lead to is not moved."""
        return self.root

    def require(self, labels: Sequence[str]) -> None:
        """Check that no file would come into the folder that is sorted, and that no file is in the way.

        Raises:
            VggftError: one would, or is.
        """
        for place in (self.folder, *(self.folder / label for label in labels)):
            if places.resolved(place).is_relative_to(self.root):
                raise VggftError(
                    f"--into {self.folder}: sorted pictures would lie in {self.root}, the folder that is sorted, and would be "
                    "shown again. Choose a folder outside of it."
                )
            in_the_way = places.in_the_way(place)
            if in_the_way is not None:
                raise VggftError(f"--into {self.folder}: {in_the_way} is not a folder. Choose another folder.")

    def place(self, decision: Decision) -> Path | None:
        """Return the folder of the class; None for "cannot tell"."""
        return None if decision.label == CANNOT_TELL else self.folder / decision.label


@dataclass(frozen=True)
class OtherClass:
    """The folders of a data folder: a file whose class was corrected goes into the folder of the other class in its split.

    Attributes:
        folder: the data folder, absolute and without links.
        labels: file → its class up to now.
    """

    folder: Path
    labels: Mapping[str, str]
    hows: Sequence[How] = ("move",)
    within: None = None

    def require(self, labels: Sequence[str]) -> None:
        """Check nothing: the folders of classes are there."""

    def place(self, decision: Decision) -> Path | None:
        """Return the folder that is to the other class what the file's folder is to its class; None if it keeps its class."""
        label = self.labels.get(decision.file)
        if label is None or decision.label in (CANNOT_TELL, label):
            return None
        *folders, _ = PurePosixPath(decision.file).parts
        for depth, name in enumerate(folders):
            if same_name(name) == same_name(label):
                return self.folder.joinpath(*folders[:depth], decision.label, *folders[depth + 1 :])
        return None


def apply(
    decisions: Sequence[Decision],
    root: Path,
    destination: Destination,
    how: How,
    ui: Ui,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Put decided files where they go; return what `Sorter.finish` does.

    Args:
        root: the folder that files of decisions are relative to.
        advance: called with the number of files that are done, before each; may raise to stop.

    Raises:
        VggftError: a destination that cannot be used, a full disk, or a list that cannot be written or read.
    """
    destination.require(sorted({decision.label for decision in decisions if decision.label != CANNOT_TELL}))
    if how not in destination.hows:
        raise VggftError(f"--how {how}: corrected pictures are moved. Expected --how {' or '.join(destination.hows)}.")
    sorter, earlier = Sorter(Target(destination.folder, "", {}), how, ui), _Earlier(destination.folder)
    for number, decision in enumerate(decisions):
        advance(number)
        place = destination.place(decision)
        path = root / decision.file
        if place is None:
            continue
        elsewhere = earlier.elsewhere(path, place)
        if elsewhere:
            sorter.leave(path, elsewhere)
            continue
        if sorter.counted_as_moved(path):
            continue
        if how == "move" and destination.within and not located(path).is_relative_to(destination.within):
            sorter.leave(path, f"it lies outside of {root}, in {located(path).parent}, and only files inside are moved")
            continue
        if decision.changed(root):
            sorter.leave(path, "it has another size than when it was sorted: sort it again")
            continue
        try:
            digest = durable.sha256(path)
        except OSError as error:
            sorter.leave(path, reason(error))
            continue
        sorter.put_in(located(path), digest, place)
    return sorter.finish()


class _Earlier:
    """What earlier runs put into a folder, of which a file may have got another class since."""

    def __init__(self, folder: Path) -> None:
        """Read the lists in the folder.

        Raises:
            VggftError: one cannot be read.
        """
        self._by_source: dict[Path, list[tuple[Path, Entry]]] = defaultdict(list)
        for path, entry in journal.every(folder):
            if entry.action != "folder":
                self._by_source[Path(entry.source)].append((path, entry))

    def elsewhere(self, path: Path, place: Path) -> str:
        """Return why a file is not put into a folder: it is in another one from an earlier run; empty if it is not."""
        for undo, entry in reversed(self._by_source.get(located(path), ())):
            folder = entry.destination.parent
            if folder != place and _is_there(entry, path):
                return f"it is in {folder} from an earlier run. Undo that first: vggft undo {shlex.quote(str(undo))}"
        return ""


def _is_there(entry: Entry, path: Path) -> bool:
    """Return whether what a row says still holds: its destination is the file at a path, or the one that was moved from there."""
    if entry.action == "link":
        return entry.destination.is_symlink() and entry.destination.readlink() == Path(entry.source)
    try:
        if os.path.lexists(path) and durable.sha256(path) != entry.sha256:
            return False  # a new file with the name of one that was put there
    except OSError:
        return False
    return transfer.has(entry.destination, entry.sha256)
