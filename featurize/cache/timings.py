"""How long features took to compute: one row a run, beside them, for what is said of costs. Nothing rests on it."""

import contextlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from featurize import durable
from featurize.errors import VggftError

FILE = "timings.csv"


@dataclass(frozen=True)
class Timing:
    """One run: the layers, the layer they came from ("" for pixels), the engine, images, seconds (decoding included)."""

    layers: str
    below: str
    engine: str
    images: int
    seconds: float


_COLUMNS = [field.name for field in fields(Timing)]


def add(folder: Path, timing: Timing) -> None:
    """Add a row to those of a cache's folder, if it can be written."""
    with contextlib.suppress(VggftError):  # a disk that is full: who writes what matters will say so
        durable.write_csv(folder / FILE, _COLUMNS, map(astuple, [*read(folder), timing]))


def read(folder: Path) -> Sequence[Timing]:
    """Return all rows, oldest first; none where the file is missing or damaged."""
    try:
        return [
            Timing(row["layers"], row["below"], row["engine"], int(row["images"]), float(row["seconds"]))
            for row in durable.read_csv(folder / FILE)
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def seconds_an_image(folder: Path) -> float | None:
    """Return what an image takes from its file to all layers that were ever computed; None where nothing is known.

    That is the sum of the runs that it takes to have them, each with the mean of all that did the same: first one from pixels,
    of most layers; then those of what it lacks. So a layer that was asked for later adds what it took, and what was
    computed again, after a prune or for new images, adds nothing.
    """
    runs: dict[tuple[bool, tuple[str, ...]], list[Timing]] = {}
    for run in read(folder):
        if run.images:
            runs.setdefault((run.below != "", tuple(sorted(run.layers.split()))), []).append(run)
    covered: set[str] = set()
    total = 0.0
    for from_cache, layers in sorted(runs, key=lambda one: (one[0], -len(one[1]))):
        if from_cache and not covered:
            return None
        if not covered.issuperset(layers):
            covered.update(layers)
            same = runs[from_cache, layers]
            total += sum(run.seconds for run in same) / sum(run.images for run in same)
    return total if covered else None
