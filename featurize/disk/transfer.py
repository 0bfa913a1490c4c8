"""Copying and moving a person's files: nothing is overwritten, and nothing deleted whose bytes are not proved to be elsewhere."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from featurize.disk import durable

_COPYING = "copying"  # in the name of the temporary file of a copy; there is one at a time in a process


class ChangedError(OSError):
    """A file is not the one that was meant."""


def located(path: Path) -> Path:
    """Return the absolute path of a file or link without links above it: two paths of one entry of a folder are the same."""
    absolute = path.absolute()
    return Path(os.path.realpath(absolute.parent)) / absolute.name


def has(path: Path, digest: str) -> bool:
    """Return whether a path is that of a regular file with this sha256, and not that of a link to one."""
    try:
        return not path.is_symlink() and durable.sha256(path) == digest
    except OSError:
        return False


def are_two(path: Path, other: Path) -> bool:
    """Return whether two existing files are two entries of folders, so that one stays if the other is deleted.

    A file has one entry only where its paths differ in case, in links above it or in the place where its disk is mounted.
    """
    if os.path.realpath(path) == os.path.realpath(other):
        return False
    status = path.stat()
    return not os.path.samestat(status, other.stat()) or status.st_nlink > 1


def copy(source: Path, target: Path, digest: str) -> None:
    """Copy a file, with its time and permissions as far as the file system has them, and flush the copy to disk.

    Raises:
        FileExistsError: `target` exists.
        ChangedError: the sha256 of the copy is not `digest`.
        OSError: the file cannot be read, or the copy not written.
    """
    temporary = target.with_name(f".{_COPYING}.{os.getpid()}.vggft.tmp")
    try:
        with durable.open_regular(source) as original, temporary.open("wb") as file:
            shutil.copyfileobj(original, file)
        with contextlib.suppress(OSError):
            shutil.copystat(source, temporary)
        durable.sync_file(temporary)
        if durable.sha256(temporary) != digest:
            raise ChangedError("changed meanwhile")
        _place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    durable.sync_folder(target.parent)


def _place(temporary: Path, target: Path) -> None:
    """Give a file its name, unless there is a file of that name, which a rename would replace."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        target.open("xb").close()
        try:
            temporary.replace(target)
        except OSError:
            target.unlink()  # empty
            raise


def move(source: Path, target: Path, digest: str) -> None:
    """Move a file, to another file system by copying it, flushing and checking the copy, and then deleting the source.

    At any time, one of the two is there; after an error, both may be.

    Raises:
        FileExistsError: `target` exists.
        ChangedError: the sha256 of the source is not `digest`, or it is a link.
        OSError: the source cannot be deleted, or the target not written.
    """
    if not os.access(source.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "its folder cannot be written, so it cannot be moved")
    if not has(source, digest):
        raise ChangedError("changed meanwhile")
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # another file system, one without hard links, or a file of another user
        copy(source, target, digest)
    durable.sync_folder(target.parent)
    remove_second(source, target, digest)


def remove_second(path: Path, other: Path, digest: str) -> None:
    """Delete a file, after making sure that both it and another one have these bytes.

    Raises:
        ChangedError: one of them has not, or there is only one; nothing was deleted.
        OSError: it cannot be deleted.
    """
    if not (has(path, digest) and has(other, digest) and are_two(path, other)):
        raise ChangedError(f"{path} and {other} are not the same file twice")
    path.unlink()
    durable.sync_folder(path.parent)


def sweep(folder: Path) -> None:
    """Delete the unfinished copies that killed processes left in a folder."""
    durable.sweep_beside(folder / _COPYING)
