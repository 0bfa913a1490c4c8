"""Files that vggft reads again: their sha256 is kept beside them, so that no damaged number is taken for a measured one."""

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from featurize.disk import durable, forms

# The sha256 of the files beside it that vggft reads again: name → one or two of them, see `write_checked`.
CHECKSUMS = "checksums.json"


def write_checked(
    folder: Path, files: Mapping[str, bytes], then: str = durable.AGAIN, present: Sequence[str] = ()
) -> None:
    """Write files that are read again, in their order, after their checksums; `then` as in `durable.write_bytes`.

    `present` are the names of files that another library has written; their checksums are recorded, too.

    A file keeps the checksum of its present version until the next write, so that one that a killed process did not get to
    is still right.
    """
    try:
        known = read_checksums(folder)
    except ValueError:
        known = {}
    record = {name: checksums for name, checksums in known.items() if (folder / name).exists()}
    record |= {name: [durable.sha256(folder / name)] for name in present}
    for name, data in files.items():
        path = folder / name
        before = [durable.sha256(path)] if path.is_file() else []
        if name in known and not set(before) <= set(known[name]):
            before = []  # damaged
        record[name] = [*before, hashlib.sha256(data).hexdigest()]
    forms.write_json(folder / CHECKSUMS, record, then)
    for name, data in files.items():
        durable.write_bytes(folder / name, data, then)


def read_checked(path: Path) -> bytes:
    """Read a file written by `write_checked`; errors as in `opened`."""
    with opened(path) as (file, _):
        return file.read()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, str]]:
    """Open a file written by `write_checked`, or by a version of vggft that recorded no checksum; yield it and its sha256.

    Raises:
        OSError: the file cannot be read.
        ValueError: its bytes are not those that vggft wrote, or the record of checksums is damaged.
    """
    before = None
    while True:
        with durable.open_regular(path) as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            checksums = read_checksums(path.parent).get(path.name)
            if checksums is None or sha256 in checksums:
                file.seek(0)
                yield file, sha256
                return
        if checksums == before:
            break
        before = checksums  # written anew since the file was read, perhaps
    raise ValueError(f"not as vggft wrote it: its sha256 is not the one in {CHECKSUMS}")


def is_as_written(path: Path) -> bool:
    """Return whether a file is a regular one and has the checksum that `write_checked` recorded beside it."""
    try:
        return not path.is_symlink() and durable.sha256(path) in read_checksums(path.parent).get(path.name, [])
    except (OSError, ValueError):
        return False


def lists(folder: Path, name: str) -> bool:
    """Return whether `write_checked` recorded a checksum of the file `name` in a folder."""
    try:
        return name in read_checksums(folder)
    except ValueError:
        return False


def read_checksums(folder: Path) -> dict[str, list[str]]:
    """Return the sha256 that `write_checked` recorded: file name → one or two; ValueError if the record is damaged."""
    path = folder / CHECKSUMS
    try:
        record = forms.parse_json(durable.read_bytes(path))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}; without it, files are read unchecked") from None
    if isinstance(record, dict) and all(isinstance(checksums, list) for checksums in record.values()):
        return record
    raise ValueError(f"{path} is damaged; without it, files are read unchecked")


def read_json(path: Path) -> Any:
    """Read a JSON file; errors as in `read_checked`, and ValueError for anything but strict JSON."""
    return forms.parse_json(read_checked(path))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a CSV file: one dictionary per row; errors as in `read_checked`, and ValueError as in `forms.parse_csv`."""
    return forms.parse_csv(read_checked(path))
