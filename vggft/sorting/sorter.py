"""Putting files into class folders: copied, linked or moved, each after its row in a list from which it is undone.

Nothing is overwritten: a file that is there with the same bytes stays, and one with other bytes keeps its name. A link is a
symbolic one: it works across disks, shows where the picture is, and deleting it never deletes the picture.
"""

import errno
import os
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from featurize.disk import durable, transfer
from featurize.disk.transfer import located
from featurize.errors import VggftError, reason
from featurize.wording import counted
from vggft.prediction.scoring import File
from vggft.sorting import journal
from vggft.sorting.journal import Entry, How, Journal
from vggft.sorting.target import Target, names
from vggft.ui.console import Ui

# What no other file will fare better with: a full disk, a full quota, a disk that became read-only.
_HOPELESS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_DONE = {"copy": "copied", "link": "linked", "move": "moved"}


@dataclass
class _Counts:
    """Numbers of files.

    Attributes:
        put: by folder, relative to the target.
        there: files that were in the target before, with the same bytes.
        skipped: files below the given folders that lie in the target, which are not predicted.
        left: files that stayed where they are, and why.
    """

    put: Counter[str] = field(default_factory=Counter)
    there: int = 0
    skipped: int = 0
    left: list[dict[str, str]] = field(default_factory=list)


class Sorter:
    """Puts files into class folders, one at a time."""

    def __init__(self, target: Target, how: How, ui: Ui) -> None:
        """Read what was moved into the target before.

        Raises:
            VggftError: a list in the target cannot be read.
        """
        self._target, self._how, self._ui = target, how, ui
        self._journal = Journal(target.folder)
        self._moved = journal.moves(target.folder) if how == "move" else {}
        self._offered: set[Path] = set()  # files to move; of one that is given twice, the second would be gone
        self._swept: set[Path] = set()
        self._counts = _Counts()

    def was_moved(self, path: Path) -> bool:
        """Return whether a path that is gone was moved into the target by an earlier run."""
        try:
            entry = self._moved.get(located(path))
        except ValueError:  # a name that no file can have
            return False
        return entry is not None and not os.path.lexists(path) and transfer.has(entry.destination, entry.sha256)

    def counted_as_moved(self, path: Path) -> bool:
        """As `was_moved`; such a file is counted as being in the target."""
        moved = self.was_moved(path)
        self._counts.there += moved
        return moved

    def offered(self, files: Iterator[File]) -> Iterator[File]:
        """Yield the files that are not in the target; those to be moved once only, and not if they were moved before."""
        for file in files:
            if self.counted_as_moved(file.path):
                continue
            if file.reason:
                yield file
            elif self._target.holds(file.path):
                self._counts.skipped += 1
            elif self._how != "move" or located(file.path) not in self._offered:
                if self._how == "move":
                    self._offered.add(located(file.path))
                yield file

    def put(self, path: Path, digest: str, label: str, *, unsure: bool) -> None:
        """Put a file into the folder of its class.

        Raises:
            VggftError: the disk is full, or the list cannot be written.
        """
        self.put_in(path, digest, self._target.place(label, unsure=unsure))

    def put_in(self, path: Path, digest: str, place: Path) -> None:
        """Put a file into a folder in the target.

        Raises:
            VggftError: as `put`.
        """
        source = located(path)
        why = self._why_not(source)
        if place not in self._swept and place.is_dir():
            transfer.sweep(place)
            self._swept.add(place)
        for name in names(source.name, digest) if not why else ():
            destination = place / name
            if not os.path.lexists(destination):
                why = self._act(Entry(str(source), destination, self._how, digest))
                break
            if _same_bytes(destination, digest):
                why = self._is_there(source, destination, digest)
                break
        else:
            why = why or f"other files have all its names in {place}"
        if why:
            self.leave(path, why)

    def leave(self, path: Path, why: str) -> None:
        """Report a file that stays where it is."""
        self._ui.warn(f"left where it is: {path}: {why}")
        self._counts.left.append({"path": str(path), "reason": why})

    def _why_not(self, source: Path) -> str:
        """Return why a file may not be moved; empty if it may, or is not to be moved."""
        if self._how != "move":
            return ""
        if source.is_symlink():
            return "a link, and only files are moved"
        guard = self._target.guard(source)
        return f"in {guard}, whose files are not moved; --how copy and --how link leave them there" if guard else ""

    def _is_there(self, source: Path, destination: Path, digest: str) -> str:
        """Count a file that is in the target, and finish its move if a killed process began it; return why it is left."""
        if self._how != "move":
            self._counts.there += 1
            return ""
        begun = self._moved.get(source)
        if begun is None or (begun.destination, begun.sha256) != (destination, digest):
            return f"{destination} has the same bytes"
        try:
            transfer.remove_second(source, destination, digest)
        except OSError as error:
            return reason(error)
        self._count(destination)
        return ""

    def _act(self, entry: Entry) -> str:
        """Write the row of a file and then do what it says; return why it could not be done."""
        self._make(entry.destination.parent)
        self._write(entry)
        source = Path(entry.source)
        try:
            if entry.action == "link":
                if durable.sha256(source) != entry.sha256:
                    return "changed meanwhile"
                entry.destination.symlink_to(source)
                durable.sync_folder(entry.destination.parent)
            else:
                put = transfer.copy if entry.action == "copy" else transfer.move
                put(source, entry.destination, entry.sha256)
        except OSError as error:
            if error.errno in _HOPELESS:
                raise VggftError(
                    f"{entry.destination}: cannot be written ({reason(error)}). Files already in {self._target.folder} stay "
                    "there: free some space, and run the same command again."
                ) from None
            return reason(error)
        self._count(entry.destination)
        return ""

    def _make(self, place: Path) -> None:
        """Create a folder in the target, if it is not there."""
        for folder in (*reversed(place.relative_to(self._target.folder).parents[:-1]), place):
            made = self._target.folder / folder
            if not made.exists():
                self._write(Entry("", made, "folder", ""))
                try:
                    made.mkdir(exist_ok=True)
                except OSError as error:
                    raise VggftError(f"{made}: cannot be created ({reason(error)}). Choose another --into.") from None

    def _write(self, entry: Entry) -> None:
        first = self._journal.path is None
        self._journal.write(entry)
        if first:
            self._ui.keep(
                f"Files that were {_DONE[self._how]} are in {self._target.folder}. Run the same command to continue, or undo it: "
                f"{self._undo}"
            )

    def _count(self, destination: Path) -> None:
        self._counts.put[destination.parent.relative_to(self._target.folder).as_posix()] += 1

    @property
    def there(self) -> int:
        """Number of files that were in the target before."""
        return self._counts.there

    @property
    def _undo(self) -> str:
        return f"vggft undo {shlex.quote(str(self._journal.path))}"

    def finish(self) -> dict[str, Any]:
        """Report what was done, and return it for --json; what is in `failed` makes the exit code 3."""
        counts, folder = self._counts, self._target.folder
        if counts.skipped:
            self._ui.say(f"not predicted: {counted(counts.skipped, 'file')} in {folder}")
        done = f"{_DONE[self._how]} {counted(counts.put.total(), 'file')} into {folder}"
        by_folder = ", ".join(f"{place} {n}" for place, n in sorted(counts.put.items()))
        self._ui.say(f"{done}: {by_folder}" if by_folder else done)
        if counts.there:
            self._ui.say(f"{counted(counts.there, 'file')} already there, with the same bytes")
        if self._journal.path:
            self._ui.say(f"to undo it: {self._undo}")
        result = {
            "folder": str(folder),
            "how": self._how,
            "list": str(self._journal.path) if self._journal.path else None,
            "put": dict(sorted(counts.put.items())),
            "there": counts.there,
        }
        return {"into": result, "failed": counts.left}


def _same_bytes(path: Path, digest: str) -> bool:
    try:
        return durable.sha256(path) == digest
    except OSError:
        return False
