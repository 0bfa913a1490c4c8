"""The decisions of a person who sorts, and vggft-sort.csv, which holds them: one row a file, in the order of deciding.

Columns: `file`, relative to the folder, with forward slashes; `label`, empty for "cannot tell"; `suggested` and `probability`,
what was shown when the file was decided, or empty; `step`, the number of the key press. `vggft featurize --labels` reads this
file.
"""

import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from featurize.disk import durable, forms
from featurize.errors import VggftError, reason
from vggft.labelling import classes

FILE = "vggft-sort.csv"
COLUMNS = ("file", "label", "suggested", "probability", "step")
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
    """

    file: str
    label: str
    suggested: str
    probability: float | None
    step: int

    @cached_property
    def row(self) -> bytes:
        """The row of the file; kept, because every key writes all rows."""
        probability = "" if self.probability is None else f"{self.probability:.4f}"
        return forms.csv_bytes((self.file, self.label, self.suggested, probability, str(self.step)), ())


class Decisions:
    """All decisions, in memory and in the file. One process at a time may write them (`labelling.seat`)."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one.

        Raises:
            VggftError: it cannot be read, or is damaged.
        """
        self.path = path
        self._state = _state(path)
        self.rows: dict[str, Decision] = _read(path) if self._state else {}

    @property
    def labels(self) -> dict[str, str]:
        """File → class or `CANNOT_TELL`."""
        return {file: decision.label for file, decision in self.rows.items()}

    @property
    def last_step(self) -> int:
        """Number of the last key press; 0 if there is none."""
        return max((decision.step for decision in self.rows.values()), default=0)

    def replace(self, rows: dict[str, Decision]) -> None:
        """Write other rows to the file, whole and atomically, and then take them over.

        Raises:
            Unwritable: the disk is full, or another program has changed the file; the earlier rows stay.
        """
        if _state(self.path) != self._state:
            raise Unwritable(
                f"{self.path}: another program has changed or deleted it, so nothing is written over it. Put it back, or stop "
                "vggft sort and start it again with the file as it is now."
            )
        data = b"".join((forms.csv_bytes(COLUMNS, ()), *(decision.row for decision in rows.values())))
        try:
            durable.write_bytes(self.path, data, "sorting continues by itself")
        except VggftError as error:
            raise Unwritable(str(error)) from None
        finally:
            self._state = _state(self.path)  # a folder that cannot be flushed is an error after the rename
        self.rows = rows


def _state(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when another program writes a file; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise VggftError(f"{path}: cannot be read ({reason(error)}). Fix its permissions.") from None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(path: Path) -> dict[str, Decision]:
    try:
        data = durable.read_bytes(path)
        if data.partition(b"\n")[0].rstrip() != forms.csv_bytes(COLUMNS, ()).rstrip():
            raise ValueError(f"expected the columns {', '.join(COLUMNS)}")
        rows = forms.parse_csv(data)
        decisions: dict[str, Decision] = {}
        for number, row in enumerate(rows, start=2):
            decision = _decision(row, number)
            if decision.file in decisions:
                raise ValueError(f"row {number}: {decision.file} has two rows")
            decisions[decision.file] = decision
    except (OSError, ValueError) as error:
        raise VggftError(
            f"{path}: no list of decisions of vggft sort ({reason(error)}). It was not changed: mend it, or move it away to "
            "start with no decisions."
        ) from None
    return decisions


def _decision(row: dict[str, str], number: int) -> Decision:
    file, label, probability = row["file"], row["label"], row["probability"]
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in file:
        raise ValueError(f"row {number}: {file!r} is no file in the folder")
    odd = classes.odd(label) if label else ""
    if odd:
        raise ValueError(f"row {number}: the class {label!r} {odd}")
    try:
        value = float(probability) if probability else None
    except ValueError:
        value = math.nan
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"row {number}: probability {probability!r}")
    if not _DIGITS.fullmatch(row["step"]):
        raise ValueError(f"row {number}: step {row['step']!r}")
    return Decision(file, label, row["suggested"], value, int(row["step"]))
