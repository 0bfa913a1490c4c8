"""Predictions and rejections, written as they come: as lines for people, as CSV rows or as JSON objects."""

import contextlib
import csv
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from featurize.disk import forms
from vggft.ui import strict
from vggft.ui.console import Ui
from vggft.ui.visible import visible

_UNSURE = {True: "true", False: "false", None: ""}


@dataclass(frozen=True)
class Prediction:
    """The prediction for a file.

    Attributes:
        probabilities: class → probability, the most probable first.
        top: number of them to show.
        unsure: whether the highest is in the unsure band; None where there is no band.
        grey: as `probabilities`, of the grey version; None where it was not asked for.
    """

    path: Path
    probabilities: dict[str, float]
    top: int
    unsure: bool | None
    grey: dict[str, float] | None = None

    @property
    def shown(self) -> list[tuple[str, float]]:
        """The most probable classes with their scores."""
        return list(self.probabilities.items())[: self.top]

    @property
    def shown_grey(self) -> list[tuple[str, float]]:
        """Those of the grey version; empty where it was not asked for."""
        return list((self.grey or {}).items())[: self.top]

    @property
    def differs_in_grey(self) -> bool:
        """Whether another class is the most probable one in grey."""
        return self.grey is not None and self.shown_grey[0][0] != self.shown[0][0]

    def as_json(self) -> dict[str, Any]:
        """Return path, label and score, the most probable classes, and all probabilities; the same in grey."""
        in_grey = {} if self.grey is None else {"grey": _as_json(self.shown_grey, self.grey)}
        return {"path": str(self.path), **_as_json(self.shown, self.probabilities), "unsure": self.unsure, **in_grey}


def _as_json(shown: Sequence[tuple[str, float]], probabilities: dict[str, float]) -> dict[str, Any]:
    label, score = shown[0]
    top = [{"label": label, "score": score} for label, score in shown]
    return {"label": label, "score": score, "top": top, "probabilities": probabilities}


@dataclass(frozen=True)
class Rejection:
    """A file without a prediction, and why."""

    path: Path
    reason: str

    def as_json(self) -> dict[str, str]:
        """Return path and reason."""
        return {"path": str(self.path), "reason": self.reason}


class Writer(Protocol):
    """Writes predictions and rejections, one at a time."""

    def __call__(self, outcome: Prediction | Rejection, /) -> None:
        """Write one; lines and rows leave rejections out."""


def lines(ui: Ui, top: int, grey: bool) -> Writer:
    """Return a writer of one line per file; `?` marks unsure predictions. With `grey`, a first line names the columns."""
    begun = False

    def write(outcome: Prediction | Rejection) -> None:
        nonlocal begun
        if isinstance(outcome, Prediction):
            if grey and not begun:
                more = " " * 22 * (top - 1)
                ui.put(f"{'class':>12}   score{more}   {'in grey':>12}   score{more}  image")
            begun = True
            mark = "?" if outcome.unsure else " "
            in_grey = f"{_in_columns(outcome.shown_grey)}  " if grey else ""
            ui.put(f"{_in_columns(outcome.shown)} {mark} {in_grey}{outcome.path}")

    return write


def _in_columns(shown: Sequence[tuple[str, float]]) -> str:
    return "  ".join(f"{label:>12}  {score:.4f}" for label, score in shown)


@contextlib.contextmanager
def rows(ui: Ui, top: int, grey: bool) -> Iterator[Writer]:
    """Write CSV rows to standard output: path, label, score, unsure (true, false or empty), and further labels and scores.

    With `grey`, labels and scores of the grey version follow.
    No cell is a formula to a spreadsheet: a path that begins like one is written as ./path, a label with an apostrophe.
    """
    with ui.rows() as stream:
        more = [name for k in range(2, top + 1) for name in (f"label_{k}", f"score_{k}")]
        more += ["grey_label", "grey_score", *(f"grey_{name}" for name in more)] if grey else []
        stream.write(_csv_line(["path", "label", "score", "unsure", *more]))

        def write(outcome: Prediction | Rejection) -> None:
            if isinstance(outcome, Prediction):
                first, *others = [*outcome.shown, *outcome.shown_grey]
                cells = [_plain_path(outcome.path), *first, _UNSURE[outcome.unsure], *itertools.chain(*others)]
                if ui.on_terminal:
                    cells = [visible(cell) if isinstance(cell, str) else cell for cell in cells]
                stream.write(_csv_line([forms.inert(cell) for cell in cells]))

        yield write


def _csv_line(cells: Sequence[Any]) -> str:
    """Return a line of CSV that ends in a newline; a cell with a carriage return is quoted, which readers take for a newline."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _plain_path(path: Path) -> str:
    """Return a path that is no formula: of the same file."""
    text = str(path)
    return text if forms.inert(text) == text else f"./{text}"


@contextlib.contextmanager
def json_lines(ui: Ui) -> Iterator[Writer]:
    """Write one JSON object per line to standard output: predictions, and rejected files with `path` and `reason`."""
    with ui.rows() as stream:
        yield lambda outcome: print(strict.text(outcome.as_json()), file=stream)
