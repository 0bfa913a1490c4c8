"""What a question found: a table for people, and all numbers behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.contest import Run, fastest_first, relative, spread, table


@dataclass(frozen=True)
class Answer:
    """The answer to a question.

    Attributes:
        title: what was asked, in words.
        text: Markdown: the table, and what has to be known to read it.
        numbers: everything measured, as JSON.
    """

    title: str
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def numbers(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return runs as JSON."""
    return {name: [asdict(run) for run in each] for name, each in runs.items()}


def seconds_of(runs: Mapping[str, Sequence[Run]]) -> dict[str, list[float]]:
    """Return the seconds of all rounds."""
    return {name: [run.seconds for run in each] for name, each in runs.items()}


def memory_of(runs: Sequence[Run]) -> str:
    """Return the peak memory of all rounds as text."""
    return f"{max(run.memory for run in runs) / 1e9:.1f} GB"


def disk_of(runs: Sequence[Run], images: int) -> str:
    """Return the bytes on disk an image as text."""
    return f"{runs[-1].disk / images / 1e3:.1f} kB"


def unseen_of(runs: Sequence[Run]) -> list[str]:
    """Return log-loss and accuracy of the last model of each round on unseen images, as text."""
    return [
        spread([run.scores[-1].unseen[quantity] for run in runs], ".3f") if all(run.scores for run in runs) else "–"
        for quantity in ("log_loss", "accuracy")
    ]


def seconds_table(runs: Mapping[str, Sequence[Run]], columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return seconds, and seconds relative to vggft in the same round, fastest first.

    Args:
        columns: title → contender → cell, of further columns.
    """
    seconds = seconds_of(runs)
    rows = [
        [name, spread(seconds[name]), relative(seconds, name), *(cells[name] for cells in columns.values())]
        for name in fastest_first(seconds)
    ]
    return table(["", "seconds", "× vggft", *columns], rows)
