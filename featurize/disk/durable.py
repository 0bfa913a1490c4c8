"""Atomic, durable writes: readers see the old file or the new one, never part of one, even after a power failure."""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from featurize.errors import VggftError

# Temporary files left by a killed process; the next process that holds the workspace lock removes them (`sweep`).
TEMPORARY = ".*.vggft.tmp"
_TEMPORARY_FILE = re.compile(r"\.(.+)\.(\d+)\.vggft\.tmp", re.DOTALL)  # of `replacing`: name and process
_REPLACED = ".vggft.replaced"  # suffix of a folder that is about to be replaced

# What file systems that cannot flush a folder or a file answer: CIFS, some FUSE and network file systems.
_CANNOT_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EISDIR})

AGAIN = "run the same command again"  # the next step that error messages suggest, by default


def write_bytes(path: Path, data: bytes | memoryview, then: str = AGAIN) -> None:
    """Replace the contents of `path` with `data`; arguments and errors as in `replacing`."""
    with replacing(path, then) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, then: str = AGAIN) -> Iterator[BinaryIO]:
    """Replace the contents of `path`: write to a temporary file, flush it to disk, rename it, flush the folder.

    Args:
        then: the next step that the error message suggests, after freeing space.

    Raises:
        VggftError: the disk is full, or the folder is not writable. An old file is left unchanged.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.vggft.tmp")
    try:
        try:
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                _sync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise VggftError(
            f"{path}: cannot be written ({error.strerror}). Earlier results are kept: free some space or fix the permissions, "
            f"and {then}."
        ) from None


def replace_folder(new: Path, target: Path) -> None:
    """Rename the finished folder `new` to `target`, and then delete the old `target`.

    If the process is killed between the two renames, `sweep` restores the old folder.
    """
    old = target.with_name(f".{target.name}{_REPLACED}")
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    sync_folder(new)
    new.rename(target)
    sync_folder(target.parent)  # before the old folder is deleted
    shutil.rmtree(old, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Delete temporary files that a killed process left in `folder`, and restore folders that it had not yet replaced."""
    for path in folder.glob(f".*{_REPLACED}"):
        original = path.with_name(path.name[1 : -len(_REPLACED)])
        if not original.exists():
            path.rename(original)
    for path in [*folder.glob(TEMPORARY), *folder.glob(f".*{_REPLACED}")]:
        if path.is_symlink():
            continue  # vggft never creates links
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sweep_beside(path: Path) -> None:
    """Delete the temporary files that killed processes left while they wrote `path`, in a folder that is not vggft's."""
    sweep_files(path.parent, lambda name: name == path.name)


def sweep_files(folder: Path, ours: Callable[[str], bool]) -> None:
    """Delete the temporary files that killed processes left in a folder while they wrote files for whose names `ours` is True."""
    for other in folder.iterdir():
        match = _TEMPORARY_FILE.fullmatch(other.name)
        if match and ours(match[1]) and other.is_file() and not other.is_symlink() and not runs(int(match[2])):
            with contextlib.suppress(OSError):
                other.unlink()


def runs(process: int) -> bool:
    """Return whether a process of that number is running here; False on Windows, where its open files cannot be deleted."""
    if os.name == "posix":
        with contextlib.suppress(PermissionError):  # another user's process
            try:
                os.kill(process, 0)
            except (ProcessLookupError, OverflowError):
                return False
        return True
    return False


def fresh_folder(target: Path) -> Path:
    """Create an empty temporary folder beside `target`, for `replace_folder`; `sweep` deletes it after a kill."""
    new = target.with_name(f".{target.name}.new.vggft.tmp")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def remove_known(folder: Path, known: Callable[[Path], bool]) -> list[Path]:
    """Delete files in `folder`, and then empty folders, for which `known` returns True; return the remaining paths.

    Links are neither followed nor deleted.
    """
    if folder.is_symlink() or not folder.is_dir():
        return [folder] if folder.is_symlink() or folder.exists() else []
    remaining = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            remaining.append(path)
        elif path.is_dir():
            remaining += remove_known(path, known)
        elif known(path):
            path.unlink()
        else:
            remaining.append(path)
    if not remaining and known(folder):
        folder.rmdir()
    return remaining


def refuse_link(folder: Path) -> None:
    """Check that a folder that vggft writes to is not a link: its target may contain other people's files.

    Raises:
        VggftError: the folder is a link.
    """
    if folder.is_symlink():
        raise VggftError(
            f"{folder} is a link to {folder.readlink()}; vggft does not write or delete through links. Replace it with a "
            "folder, or choose another --workspace."
        )


def require_regular(path: Path) -> None:
    """Check that a file is neither a folder nor a pipe, socket or device, opening or reading which may wait for ever.

    Raises:
        OSError: it is, or it does not exist.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file (a pipe, socket or device)", str(path))


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading; OSError as `require_regular`."""
    require_regular(path)
    return path.open("rb")


def read_bytes(path: Path) -> bytes:
    """Return the contents of a file; OSError as `require_regular`."""
    with open_regular(path) as file:
        return file.read()


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file; OSError as `require_regular`."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy(path: Path, target: Path) -> None:
    """Copy a file, a link as a link, or a folder with all that is in it, and flush the copy to disk."""
    if path.is_symlink():
        target.symlink_to(path.readlink())
    elif path.is_dir():
        target.mkdir()
        for inner in path.iterdir():
            copy(inner, target / inner.name)
        shutil.copystat(path, target)
        sync_folder(target)
    else:
        shutil.copy2(path, target)
        sync_file(target)


def sync_file(path: Path) -> None:
    """Flush a file that another library wrote to disk."""
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)  # only Windows has to write to flush
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, as far as the file system can. Windows has no such call, so there it does nothing."""
    if os.name == "posix":
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except PermissionError:  # a folder that may be written, but not listed
            return
        try:
            _sync(descriptor)
        finally:
            os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Flush a file or folder to disk, on file systems that can; any other error, such as a full disk, is raised."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
