"""Atomic, durable writes: readers see the old file or the new one, never part of one, even after a power failure."""

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from featurize.errors import VggftError

# Temporary files left by a killed process; the next process that holds the workspace lock removes them (`sweep`).
TEMPORARY = ".*.vggft.tmp"
_REPLACED = ".vggft.replaced"  # suffix of a folder that is about to be replaced


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
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
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
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(target.parent)


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


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Flush a file that another library wrote to disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable. Windows has no such call, so there it does nothing."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any, then: str = AGAIN) -> None:
    """Write strict JSON (NaN raises ValueError); `then` as in `write_bytes`."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), then)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], then: str = AGAIN) -> None:
    """Write a CSV file in UTF-8, row by row; bytes of file names that are not valid UTF-8 are kept (surrogateescape)."""
    with replacing(path, then) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows(rows)
        text.detach()  # flushes without closing the file, which is still to be flushed to disk


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a file written by `write_csv`: one dictionary per row."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
