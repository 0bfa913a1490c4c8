"""Predictions, written as they come: as lines for people or as CSV rows."""

import contextlib
import csv
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vggft.ui.console import Ui

_UNSURE = {True: "true", False: "false", None: ""}


@dataclass(frozen=True)
class Prediction:
    """The prediction for a file.

    Attributes:
        probabilities: class → probability, the most probable first.
        top: number of them to show.
        unsure: whether the highest is in the unsure band; None where there is no band.
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


class Writer(Protocol):
    """Writes predictions, one at a time."""

    def __call__(self, prediction: Prediction, /) -> None:
        """Write one."""


def lines(ui: Ui) -> Writer:
    """Return a writer of one line per file; `?` marks unsure predictions."""

    def write(prediction: Prediction) -> None:
        classes = "  ".join(f"{label:>12}  {score:.4f}" for label, score in prediction.shown)
        ui.put(f"{classes} {'?' if prediction.unsure else ' '} {prediction.path}")

    return write


@contextlib.contextmanager
def rows(ui: Ui, top: int) -> Iterator[Writer]:
    """Write CSV rows to standard output: path, label, score, unsure (true, false or empty), and further labels and scores."""
    with ui.rows() as stream:
        writer = csv.writer(stream, lineterminator="\n")
        more = [name for k in range(2, top + 1) for name in (f"label_{k}", f"score_{k}")]
        writer.writerow(["path", "label", "score", "unsure", *more])

        def write(prediction: Prediction) -> None:
            first, *others = prediction.shown
            writer.writerow([prediction.path, *first, _UNSURE[prediction.unsure], *itertools.chain(*others)])

        yield write
