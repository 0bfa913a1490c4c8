"""Lists of what was done with files, from which it can be undone: a row is on the disk before its file is touched.

A list is a CSV file in the folder that the files went into: `source` (absolute), `destination` (relative to the folder),
`action` and `sha256` of the file. A row says what was about to happen; a process may have been killed before it did.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, get_args

from featurize.disk import durable, forms
from featurize.errors import VggftError, reason

How = Literal["copy", "link", "move"]
Action = Literal["copy", "link", "move", "folder"]  # "folder": the destination was created

COLUMNS = ("source", "destination", "action", "sha256")
_NAME = "vggft-into-{}.csv"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST = 50_000  # bytes of a row: two paths of at most 4096 characters, and quotes


@dataclass(frozen=True)
class Entry:
    """One row; of a folder, source and sha256 are empty. Paths are absolute."""

    source: str
    destination: Path
    action: Action
    sha256: str


class Journal:
    """A list that is being written; its file is created with its first row."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path: Path | None = None

    def write(self, entry: Entry) -> None:
        """Add a row and flush it to disk.

        Raises:
            VggftError: it cannot be written.
        """
        relative = entry.destination.relative_to(self._folder).as_posix()
        try:
            path = self.path or self._create()
            with path.open("ab") as file:
                file.write(forms.csv_bytes((entry.source, relative, entry.action, entry.sha256), ()))
            durable.sync_file(path)
        except OSError as error:
            raise VggftError(
                f"{self.path or self._folder}: the list of files cannot be written ({reason(error)}), so nothing more was done. "
                "Free some space or fix the permissions, and run the same command again."
            ) from None

    def _create(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        now, number = time.strftime("%Y%m%d-%H%M%S"), 1
        while True:
            path = self._folder / _NAME.format(now if number == 1 else f"{now}-{number}")
            try:
                with path.open("xb") as file:
                    file.write(forms.csv_bytes(COLUMNS, ()))
            except FileExistsError:
                number += 1
                continue
            durable.sync_folder(self._folder)
            self.path = path
            return path


def read(path: Path) -> list[Entry]:
    """Read a list, without a last row that a killed process wrote in part.

    Raises:
        VggftError: it cannot be read, or is no such list.
    """
    try:
        data, header = durable.read_bytes(path), forms.csv_bytes(COLUMNS, ())
        if not data.startswith(header):
            if header.startswith(data):
                return []
            raise ValueError("other columns")
        end = forms.whole_rows(data)
        if len(data) - end > _LONGEST:
            raise ValueError("a row without an end")
        return [_entry(row, path) for row in forms.parse_csv(data[:end])]
    except (OSError, ValueError) as error:
        raise VggftError(
            f"{path}: no list of vggft predict --into or vggft sort --apply ({reason(error)}). Expected a file "
            f"{_NAME.format('…')} from its folder."
        ) from None


def _entry(row: dict[str, str], path: Path) -> Entry:
    relative, action, folder = PurePosixPath(row["destination"]), row["action"], row["action"] == "folder"
    if action not in get_args(Action) or relative.is_absolute() or ".." in relative.parts or not relative.parts:
        raise ValueError(f"{action} {relative}")
    if not folder and not (Path(row["source"]).is_absolute() and _SHA256.fullmatch(row["sha256"])):
        raise ValueError(f"{row['source']} {row['sha256']}")
    return Entry(row["source"], path.parent.resolve() / relative, action, row["sha256"])  # type: ignore[arg-type]


def moves(folder: Path) -> dict[Path, Entry]:
    """Return what the lists in a folder say was moved into it: source → row.

    Raises:
        VggftError: a list cannot be read.
    """
    return {Path(entry.source): entry for _, entry in every(folder) if entry.action == "move"}


def every(folder: Path) -> Iterator[tuple[Path, Entry]]:
    """Yield each list in a folder with each of its rows, the oldest first.

    Raises:
        VggftError: a list cannot be read.
    """
    for path in sorted(folder.glob(_NAME.format("*"))):
        yield from ((path, entry) for entry in read(path))
