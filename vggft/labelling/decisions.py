"""The decisions of a person who sorts, and vggft-sort.csv, which holds them: one row a file, in the order of deciding.

Columns: `file`, relative to the folder, with forward slashes; `label`, empty for "cannot tell"; `suggested` and `probability`,
what was shown when the file was decided, or empty; `step`, the number of the key press; `size` of the file in bytes, by which
another file of the same name is noticed. `vggft featurize --labels` reads this file.
"""

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from featurize.disk import durable, forms
from featurize.errors import VggftError, reason
from vggft.labelling import classes

FILE = "vggft-sort.csv"
COLUMNS = ("file", "label", "suggested", "probability", "step", "size")
_THEN = "sorting continues by itself"
_DIGITS = re.compile(r"[0-9]{1,15}")


class Unwritable(VggftError):
    """Decisions cannot be written now, such as on a full disk; nothing was recorded."""


@dataclass(frozen=True)
class Decision:
    """One row.

    Attributes:
        file: relative to the folder.
        label: class, or `CANNOT_TELL`.
        suggested: class that was suggested, or empty.
        probability: of the suggested class.
        step: number of the key press; a key may decide several files.
        size: of the file, in bytes.
    """

    file: str
    label: str
    suggested: str
    probability: float | None
    step: int
    size: int

    @property
    def row(self) -> tuple[str, ...]:
        """The row of the file."""
        probability = "" if self.probability is None else f"{self.probability:.4f}"
        return self.file, self.label, self.suggested, probability, str(self.step), str(self.size)

    def changed(self, root: Path) -> bool:
        """Return whether there is a file of another size now: a new one with the same name, or an edited one."""
        try:
            return (root / self.file).stat().st_size != self.size
        except OSError:  # it is gone, or cannot be looked at
            return False


class Decisions:
    """All decisions, in memory and in the file. One process at a time may write them (`labelling.seat`).

    A new decision is a row at the end of the file; every other change rewrites the file, whole and atomically. So the file
    always has one row for each decided file, and a key takes no longer with 20,000 rows than with none.
    """

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one.

        Raises:
            VggftError: it cannot be read, or is damaged.
        """
        self.path = path
        self._state = _state(path)
        self.rows: dict[str, Decision] = {}
        self._complete = False  # the file ends with a complete row, to which others can be added
        if self._state:
            self.rows, self._complete = _read(path)

    @property
    def labels(self) -> dict[str, str]:
        """File → class or `CANNOT_TELL`."""
        return {file: decision.label for file, decision in self.rows.items()}

    @property
    def last_step(self) -> int:
        """Number of the last key press; 0 if there is none."""
        return max((decision.step for decision in self.rows.values()), default=0)

    def forget_changed(self, root: Path) -> list[str]:
        """Forget the decisions for files that have changed since, in the list with the next key; return these files."""
        changed = [file for file, decision in self.rows.items() if decision.changed(root)]
        if changed:
            self.rows = {file: decision for file, decision in self.rows.items() if file not in set(changed)}
            self._complete = False  # so that the next key writes the whole list
        return changed

    def replace(self, rows: dict[str, Decision]) -> None:
        """Write other rows to the file, and then take them over.

        Raises:
            Unwritable: the disk is full, or another program has changed the file; the earlier rows stay.
        """
        self._require_unchanged()
        try:
            forms.write_csv(self.path, COLUMNS, (decision.row for decision in rows.values()), _THEN)
        except VggftError as error:
            raise Unwritable(str(error)) from None
        finally:
            self._state = _state(self.path)  # a folder that cannot be flushed is an error after the rename
        self._complete = True
        self.rows = rows

    def add(self, decisions: Sequence[Decision]) -> None:
        """Add decisions for files that have none.

        Raises:
            Unwritable: as `replace`.
        """
        rows = self.rows | {decision.file: decision for decision in decisions}
        if not self._complete:
            self.replace(rows)
            return
        self._require_unchanged()
        end = self._state[1] if self._state else 0
        try:
            with self.path.open("r+b", buffering=0) as file:
                file.seek(end)
                try:
                    _write(file, b"".join(forms.csv_bytes(decision.row, ()) for decision in decisions))
                    durable.sync_file(self.path)
                except OSError:
                    self._complete = False  # unless what was written can be cut off, the next key writes the whole list
                    _cut(file, end)
                    self._complete = True
                    raise
        except OSError as error:
            raise Unwritable(
                f"{self.path}: cannot be written ({reason(error)}). Earlier decisions are kept: free some space or fix the "
                f"permissions, and {_THEN}."
            ) from None
        finally:
            self._state = _state(self.path)
        self.rows = rows

    def _require_unchanged(self) -> None:
        if _state(self.path) != self._state:
            raise Unwritable(
                f"{self.path}: another program has changed or deleted it, so nothing is written over it. Put it back, or stop "
                "vggft sort and start it again with the file as it is now."
            )


def _write(file: io.RawIOBase, data: bytes) -> None:
    """Write all of some data; a disk that is nearly full takes a part of it first."""
    while data:
        data = data[file.write(data) or 0 :]


def _cut(file: io.RawIOBase, end: int) -> None:
    """Cut off what was written in part."""
    file.truncate(end)


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when another program writes a file; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VggftError(f"{path}: cannot be read ({reason(error)}). Fix its permissions.") from None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> tuple[dict[str, Decision], bool]:
    """Return the rows of a file, and whether the last is complete; one that is not, after a crash, is left out."""
    try:
        data = durable.read_bytes(path)
        complete = data.endswith(b"\n")
        if data.partition(b"\n")[0].rstrip() != forms.csv_bytes(COLUMNS, ()).rstrip():
            raise ValueError(f"expected the columns {', '.join(COLUMNS)}")
        rows = forms.parse_csv(data if complete else data[: _end(data)])
        decisions: dict[str, Decision] = {}
        for number, row in enumerate(rows, start=2):
            decision = _decision(row, number)
            if decision.file in decisions:
                raise ValueError(f"row {number}: {decision.file} has two rows")
            decisions[decision.file] = decision
    except (OSError, ValueError) as error:
        raise VggftError(
            f"{path}: no list of decisions of vggft sort ({reason(error)}). It was not changed: fix it, or move it away to "
            "start with no decisions."
        ) from None
    return decisions, complete


def _end(data: bytes) -> int:
    """Return where the last complete row ends. Inside a name with a newline, the number of quotes before it is odd."""
    end = data.rfind(b"\n") + 1
    while end and data.count(b'"', 0, end) % 2:
        end = data.rfind(b"\n", 0, end - 1) + 1
    return end


def _decision(row: dict[str, str], number: int) -> Decision:
    file, label, probability = row["file"], row["label"], row["probability"]
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in file:
        raise ValueError(f"row {number}: {file!r} is no file in the folder")
    why = classes.odd(label) if label else ""
    if why:
        raise ValueError(f"row {number}: the class {label!r} {why}")
    try:
        value = float(probability) if probability else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"row {number}: probability {probability!r}")
    for column in ("step", "size"):
        if not _DIGITS.fullmatch(row[column]):
            raise ValueError(f"row {number}: {column} {row[column]!r}")
    return Decision(file, label, row["suggested"], value, int(row["step"]), int(row["size"]))
