"""Computing times of features, one row per run, for cost estimates. Nothing else depends on this file."""

import contextlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from featurize.backbone.architecture import POOLED
from featurize.disk import checked, forms
from featurize.errors import VggftError, damaged
from featurize.options import records
from featurize.options.records import AtLeast0, Count

FILE = "timings.csv"


@dataclass(frozen=True)
class Timing:
    """One run: its layers, the layer they were computed from ("" for pixels), engine, images, seconds including decoding."""

    layers: str
    below: str
    engine: str
    images: Count
    seconds: AtLeast0


_COLUMNS = [field.name for field in fields(Timing)]


def add(folder: Path, timing: Timing) -> None:
    """Append a row to the file in a cache folder, if possible; a damaged file is replaced."""
    try:
        before = read(folder)
    except VggftError:
        before = []
    with contextlib.suppress(VggftError):  # a full disk is reported when important files are written
        checked.write_checked(folder, {FILE: forms.csv_bytes(_COLUMNS, map(astuple, [*before, timing]))})


def read(folder: Path) -> Sequence[Timing]:
    """Return all rows, oldest first; an empty list if the file is missing.

    Raises:
        VggftError: the file is damaged.
    """
    try:
        return [
            records.build(Timing, {**row, "images": int(row["images"]), "seconds": float(row["seconds"])})
            for row in checked.read_csv(folder / FILE)
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError) as error:
        advice = "How long featurizing took is unknown; delete the file to measure it again."
        raise damaged(folder / FILE, error, advice) from None


def seconds_an_image(folder: Path, top: str) -> float | None:
    """Return the seconds per image to compute all layers that were ever computed, from the file; None if unknown.

    Raises VggftError as `read`.

    Args:
        top: the last layer, from whose outputs `POOLED` is computed in no time.

    This is the sum over the runs that are needed to get all layers: first the run from pixels with the most layers, then the
    runs that add missing layers. Each counts with the mean time of all runs of its kind, so a layer that was requested later
    adds its time, and recomputed features (after a prune, or for new images) add nothing.
    """
    runs: dict[tuple[bool, tuple[str, ...]], list[Timing]] = {}
    for run in read(folder):
        if run.images:
            runs.setdefault((run.below != "", tuple(sorted(run.layers.split()))), []).append(run)
    covered: set[str] = set()
    total = 0.0
    for from_cache, layers in sorted(runs, key=lambda kind: (kind[0], -len(kind[1]))):
        if from_cache and not covered:
            return None
        added = set(layers) - covered
        if added and not (top in covered and added == {POOLED}):
            covered.update(layers)
            same = runs[from_cache, layers]
            total += sum(run.seconds for run in same) / sum(run.images for run in same)
    return total if covered else None
