"""Putting files into class folders, in this process and in forks that are killed at a given step."""

import errno
import hashlib
import os
import signal
import sys
from pathlib import Path

from vggft.sorting import journal, undoing
from vggft.sorting.sorter import Sorter
from vggft.sorting.target import Target
from vggft.ui.console import Ui

_CHANGES = {"os.link", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.symlink"}
_LINK = os.link


def sha(data):
    return hashlib.sha256(data).hexdigest()


def put(to, path, label="cats", unsure=False):
    to.put(path, sha(path.read_bytes()), label, unsure=unsure)


def undo_all(folder):
    """Undo the lists in a folder, the newest first; return why rows were not undone."""
    left = []
    for path in sorted(folder.glob("vggft-into-*.csv"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        left += [why for _, _, why in undoing.undo(journal.read(path)) if why]
    return left


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def across_disks(source, destination, **options):
    """Be `os.link` where folders lie on different disks."""
    if Path(source).parent != Path(destination).parent:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
    _LINK(source, destination, **options)


def sort(root, how):
    to = Sorter(Target(root / "sorted", "unsure", {}), how, Ui(quiet=True))
    for path in sorted((root / "photos").rglob("*.png")):
        put(to, path)
    return to.finish()["failed"]


def undo(root, how):
    return undo_all(root / "sorted")


def killed_at(number, function, root, how, across):
    """Run a function, and be killed before change number `number` of the file system, which is after the one before it."""
    left = [number]

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (event in _CHANGES or writes) and str(arguments[0]).startswith(str(root)):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    if across:
        os.link = across_disks
    sys.addaudithook(hook)
    assert function(root, how) == []
