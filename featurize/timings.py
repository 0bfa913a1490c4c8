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
    """Return what an image took from its file to its features, over all runs from pixels; None where nothing is known."""
    runs = [timing for timing in read(folder) if not timing.below and timing.images]
    return sum(run.seconds for run in runs) / sum(run.images for run in runs) if runs else None
