"""What a prediction says, and where it is written as it comes: a line for people, a CSV row or a JSON object."""

import contextlib
import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vggft.ui import strict
from vggft.ui.console import Ui

_UNSURE = {True: "true", False: "false", None: ""}


@dataclass(frozen=True)
class Prediction:
    """What a model says of a file.

    Attributes:
        probabilities: class → probability, the most probable first.
        top: how many of them are to be shown.
        unsure: whether the highest is in the unsure band; None where that is not known.
    """

    path: Path
    probabilities: dict[str, float]
    top: int
    unsure: bool | None

    @property
    def shown(self) -> list[tuple[str, float]]:
        """The most probable classes with their scores."""
        return list(self.probabilities.items())[: self.top]

    def as_json(self) -> dict[str, Any]:
        """Return path, label and score, the most probable classes, and all probabilities."""
        label, score = self.shown[0]
        return {
            "path": str(self.path),
            "label": label,
            "score": score,
            "unsure": self.unsure,
            "top": [{"label": label, "score": score} for label, score in self.shown],
            "probabilities": self.probabilities,
        }


@dataclass(frozen=True)
class Rejection:
    """A file without a prediction, and why."""

    path: Path
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return path and reason."""
        return {"path": str(self.path), "reason": self.reason}


class Outlet(Protocol):
    """Takes what came of the files, one at a time."""

    def __call__(self, outcome: Prediction | Rejection, /) -> None:
        """Write it; lines and rows hold predictions only."""


def lines(ui: Ui) -> Outlet:
    """Return an outlet that prints a line a file; `?` marks what is unsure."""

    def put(outcome: Prediction | Rejection) -> None:
        if isinstance(outcome, Prediction):
            classes = "  ".join(f"{label:>12}  {score:.4f}" for label, score in outcome.shown)
            ui.put(f"{classes} {'?' if outcome.unsure else ' '} {outcome.path}")

    return put


@contextlib.contextmanager
def rows(ui: Ui, top: int) -> Iterator[Outlet]:
    """Take standard output for CSV rows: path, label, score, unsure (true, false, or empty), and the next labels and scores."""
    with ui.rows() as stream:
        writer = csv.writer(stream, lineterminator="\n")
        more = [name for k in range(2, top + 1) for name in (f"label_{k}", f"score_{k}")]
        writer.writerow(["path", "label", "score", "unsure", *more])

        def put(outcome: Prediction | Rejection) -> None:
            if isinstance(outcome, Prediction):
                first, *others = outcome.shown
                writer.writerow([outcome.path, *first, _UNSURE[outcome.unsure], *itertools.chain(*others)])

        yield put


@contextlib.contextmanager
def json_lines(ui: Ui) -> Iterator[Outlet]:
    """Take standard output for JSON objects, one a line: predictions, and rejected files with `path` and `reason`."""
    with ui.rows() as stream:
        yield lambda outcome: print(strict.text(outcome.as_json()), file=stream)
