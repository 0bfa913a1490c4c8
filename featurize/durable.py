"""Writing files that matter: a reader sees the old file or the new one, never half of one, also after a power cut."""

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

# What a kill between two steps may leave behind; whoever holds the workspace's lock sweeps it up.
TEMPORARY = ".*.vggft.tmp"
_REPLACED = ".vggft.replaced"  # a folder that waits for the one that takes its place


AGAIN = "run the same command again"  # what a person is told to do after making room


def write_bytes(path: Path, data: bytes | memoryview, then: str = AGAIN) -> None:
    """Replace `path` by `data`; arguments and errors as for `replacing`."""
    with replacing(path, then) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, then: str = AGAIN) -> Iterator[BinaryIO]:
    """Replace `path` by what is written: unique temporary name, flush to disk, rename, flush of the folder.

    Args:
        then: what a person is told to do after making room, where it is not the usual.

    Raises:
        VggftError: the disk is full, or the folder cannot be written. The old file, if any, is as it was.
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
            f"{path}: cannot be written ({error.strerror}). What was written before is kept: free some space or mend the "
            f"permissions, and {then}."
        ) from None


def replace_folder(fresh: Path, place: Path) -> None:
    """Put the finished folder `fresh` at `place`; what was there goes only when the new one stands.

    A kill between the two renames leaves the old folder under a name from which `sweep` puts it back.
    """
    old = place.with_name(f".{place.name}{_REPLACED}")
    if place.exists():
        shutil.rmtree(old, ignore_errors=True)
        place.rename(old)
    fresh.rename(place)
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(place.parent)


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`, and put back what it was about to replace."""
    for path in folder.glob(f".*{_REPLACED}"):
        place = path.with_name(path.name[1 : -len(_REPLACED)])
        if not place.exists():
            path.rename(place)
    for path in [*folder.glob(TEMPORARY), *folder.glob(f".*{_REPLACED}")]:
        if path.is_symlink():
            continue  # vggft makes none
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def fresh_folder(place: Path) -> Path:
    """Make an empty folder beside `place`, which `replace_folder` can put there; a kill leaves it to `sweep`."""
    fresh = place.with_name(f".{place.name}.new.vggft.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    return fresh


def remove_known(folder: Path, known: Callable[[Path], bool]) -> list[Path]:
    """Delete the files below `folder`, and then the empty folders, that are `known` to be vggft's; return what is left.

    Links are neither followed nor deleted.
    """
    if folder.is_symlink() or not folder.is_dir():
        return [folder] if folder.is_symlink() or folder.exists() else []
    left = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            left.append(path)
        elif path.is_dir():
            left += remove_known(path, known)
        elif known(path):
            path.unlink()
        else:
            left.append(path)
    if not left and known(folder):
        folder.rmdir()
    return left


def refuse_link(folder: Path) -> None:
    """See that one of vggft's own folders is no link: what lies behind it may be somebody else's.

    Raises:
        VggftError: it is a link.
    """
    if folder.is_symlink():
        raise VggftError(
            f"{folder} is a link to {folder.readlink()}; vggft neither writes nor deletes through links. Replace it by a folder, "
            "or choose another --workspace."
        )


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_file(path: Path) -> None:
    """Flush to disk a file that another library wrote."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable (POSIX; Windows has no such call)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_json(path: Path, value: Any, then: str = AGAIN) -> None:
    """Write strict JSON (a NaN is a bug here, and raises ValueError); `then` as for `write_bytes`."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode(), then)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]], then: str = AGAIN) -> None:
    """Write a CSV file in UTF-8, row by row; file names that are no Unicode keep their bytes (surrogateescape)."""
    with replacing(path, then) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        writer = csv.writer(text)
        writer.writerow(header)
        writer.writerows(rows)
        text.detach()  # flushes, and leaves the file open for its flush to disk


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote: one dictionary a row."""
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))
