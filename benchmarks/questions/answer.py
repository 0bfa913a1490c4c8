"""What a question found: a table for people, and all numbers behind it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.contest import VGGFT, Run, ratios, spread, table


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


def seconds_table(runs: Mapping[str, Sequence[Run]], images: int) -> str:
    """Return seconds, seconds relative to vggft in the same round, peak memory and bytes on disk an image, fastest first."""
    rows = []
    order = sorted(runs, key=lambda name: min(run.seconds for run in runs[name]))
    for name in order:
        seconds = [run.seconds for run in runs[name]]
        relative = ratios(seconds, [run.seconds for run in runs[VGGFT]]) if VGGFT in runs else "–"
        last = runs[name][-1]
        memory = max(run.memory for run in runs[name])
        rows.append([name, spread(seconds), relative, f"{memory / 1e9:.1f} GB", f"{last.disk / images / 1e3:.1f} kB"])
    return table(["", "seconds", "× vggft", "peak memory", "on disk an image"], rows)
