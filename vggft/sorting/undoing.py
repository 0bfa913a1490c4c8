"""Undoing a list: copies and links are deleted and moved files go back, only where each file is still what its row says."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from featurize.disk import transfer
from featurize.errors import reason
from vggft.sorting.journal import Entry


def undo(entries: Sequence[Entry]) -> Iterator[tuple[Entry, bool, str]]:
    """Undo rows, the last one first; yield each with whether anything changed, and why it was not undone, or an empty text."""
    swept: set[Path] = set()
    for entry in reversed(entries):
        back = Path(entry.source).parent
        if entry.action == "move" and back not in swept and back.is_dir():
            transfer.sweep(back)
            swept.add(back)
        try:
            yield entry, _undo(entry), ""
        except OSError as error:
            yield entry, False, reason(error)


def _undo(entry: Entry) -> bool:
    """Undo what a row says, if it happened; return whether anything changed.

    Raises:
        OSError: it was not undone: a file is no longer what it was, or cannot be changed.
    """
    source, destination = Path(entry.source), entry.destination
    if entry.action == "folder":
        with contextlib.suppress(OSError):  # not empty, or not there
            destination.rmdir()
        return False
    if not os.path.lexists(destination):
        if not os.path.lexists(source):
            raise transfer.ChangedError("neither it nor its source is there")
        return False
    if entry.action == "link":
        if not (destination.is_symlink() and destination.readlink() == source):
            raise transfer.ChangedError("no longer the link that vggft made")
        destination.unlink()
        return True
    if not transfer.has(destination, entry.sha256):
        raise transfer.ChangedError("no longer the file that vggft put there")
    if os.path.lexists(source):  # after a move: a killed process had not deleted it yet
        try:
            transfer.remove_second(destination, source, entry.sha256)
        except transfer.ChangedError:
            raise transfer.ChangedError(f"{source} has other bytes now") from None
    elif entry.action == "copy":
        raise transfer.ChangedError(f"{source} is gone, so this may be the only copy")
    else:
        source.parent.mkdir(parents=True, exist_ok=True)
        transfer.move(destination, source, entry.sha256)
    return True
