"""Corrections of labels that come from a table: a corrected copy of it, and no file is moved."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurize.data import labels
from featurize.disk import forms
from featurize.errors import VggftError
from vggft.labelling.decisions import Decision
from vggft.labelling.suggestions import CANNOT_TELL
from vggft.sorting.journal import How


@dataclass(frozen=True)
class Unmoved:
    """The `Destination` of a workspace whose labels come from a table.

    Attributes:
        folder: the data folder.
        table: the table of labels.
        command: what writes a corrected copy.
    """

    folder: Path
    table: Path
    command: str
    hows: Sequence[How] = ()
    within: None = None

    def require(self, classes: Sequence[str]) -> None:
        """Raise a VggftError: no file is put anywhere."""
        raise VggftError(
            f"The labels come from {self.table}, so no file is moved. For a corrected copy of it, end with Ctrl-C and run: "
            f"{self.command}"
        )

    def place(self, decision: Decision) -> Path | None:
        """Return None: a file stays where it is."""
        return None


def corrections(decisions: Iterable[Decision], current: Mapping[str, str]) -> dict[str, str]:
    """Return file → class of the decisions that change it.

    Args:
        current: file → class up to now.
    """
    return {
        decision.file: decision.label
        for decision in decisions
        if decision.label != CANNOT_TELL and current.get(decision.file, decision.label) != decision.label
    }


def write_corrected(table: Path, root: Path, decisions: Sequence[Decision], copy: Path) -> int:
    """Write a table that says the same as another one, with corrected labels; return how many are corrected.
    Args:
        root: the folder of the files.
        copy: file to write, with the columns file and label, and split and group if the table has them.

    Raises:
        VggftError: the table cannot be read, or the copy not be written.
    """
    labelled = labels.read(table, root)
    corrected = corrections(decisions, {sample.path: sample.label for sample in labelled.samples})
    rows = [
        {"file": s.path, "label": corrected.get(s.path, s.label), "split": s.split, "group": s.group}
        for s in labelled.samples
    ]
    forms.write_csv(copy, list(labelled.columns), ([row[column] for column in labelled.columns] for row in rows))
    return len(corrected)
