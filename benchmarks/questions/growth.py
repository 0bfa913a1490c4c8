"""How costs grow with the number of images: of features, of an epoch of fine-tuning, and of all that is not the network."""

import math
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import pipeline
from benchmarks.contenders.prepared import OUTPUTS
from benchmarks.contest import Contest, Run, spread, table
from benchmarks.growing import SIDE, exponent, fewest, lay_out, mixed, thumbnails
from benchmarks.questions.answer import Answer, numbers
from benchmarks.questions.epoch import EPOCHS
from benchmarks.restoring import keep, restore
from featurize.backbone.vgg16 import VGG16
from featurize.wording import size

CONTENDERS = ("vggft", "keras_npy")
TUNING = ("vggft",)
WITHOUT_NETWORK = ("prepared",)
_BLOCK = 4096  # bytes on disk of a small JPEG file
_THUMBNAILS = 500  # distinct ones; more files have bytes of their own after them

Grown = dict[str, dict[int, list[Run]]]  # what was done → images → runs


def ask(contest: Contest) -> Answer:
    """Measure at each of `contest.sizes` and, with an engine that computes nothing, at each of `contest.files`."""
    few = fewest(contest.data)
    if min(*contest.sizes, *contest.files) <= few:
        sys.exit(f"--sizes and --files: expected more than {few} images, one of each class in train and in validate")
    contest.place.mkdir(parents=True, exist_ok=True)
    _require_room(contest)
    grown: Grown = {}
    # A contender that does not fine-tune stays in other questions.
    tuning = replace(contest, missing=dict(contest.missing))
    with tempfile.TemporaryDirectory(prefix="growth-", dir=contest.place) as folder:
        for images, data in lay_out(contest.data, Path(folder) / "pictures", [few, *contest.sizes]).items():
            _features(contest, CONTENDERS, data, images, grown)
            if images != few:
                _tuning(tuning, data, images, grown, Path(folder) / f"kept-{images}")
        small = thumbnails(contest.data, Path(folder) / "thumbnails", _THUMBNAILS)
        pipeline.prepare(mixed(small), contest.weights / OUTPUTS)
        for images, data in lay_out(small, Path(folder) / "files", [few, *contest.files]).items():
            _features(replace(contest, only=()), WITHOUT_NETWORK, data, images, grown)
    left_out = [f"{name} ({why})" for name, why in tuning.missing.items() if name not in contest.missing]
    text = "\n\n".join([_costs(grown), _exponents(grown, few), _notes(few)])
    if left_out:
        text += f" No epochs of {', '.join(left_out)}."
    measured = {what: numbers({str(images): runs for images, runs in each.items()}) for what, each in grown.items()}
    return Answer("How costs grow with the number of images", text, measured)


def _require_room(contest: Contest) -> None:
    """End the program now where the disk has no room for the most files, and not when it is full."""
    layers = [VGG16.layer(name) for name in VGG16.cached]
    row = sum(math.prod(layer.shape(VGG16.size)) * 2 / layer.compression for layer in layers)  # of float16
    needed = int(max(contest.files) * (row + _BLOCK))
    free = shutil.disk_usage(contest.place).free
    if needed > free:
        sys.exit(
            f"--files {max(contest.files)}: about {size(needed)} needed in {contest.place}, {size(free)} free. Use "
            "fewer files, or --work FOLDER on another disk."
        )


def _features(contest: Contest, contenders: Sequence[str], data: Path, images: int, grown: Grown) -> None:
    task = replace(contest.task("features"), data=data)
    for name, runs in contest.in_turn(contenders, task, contest.clear).items():
        grown.setdefault(f"{name}: features", {})[images] = runs


def _tuning(contest: Contest, data: Path, images: int, grown: Grown, kept: Path) -> None:
    """Fine-tune from the features that `_features` left in the contenders' folders."""
    for name in set(TUNING) & set(CONTENDERS) - set(contest.missing):
        keep(contest, name, kept)
    task = replace(contest.task("epoch", epochs=EPOCHS), data=data)
    for name, runs in contest.in_turn(TUNING, task, lambda name: restore(contest, name, kept)).items():
        grown.setdefault(f"{name}: an epoch", {})[images] = runs


def _seconds(run: Run) -> float:
    """Return the seconds of the fastest epoch after the first, which compiles, or of all where there are no epochs."""
    return min(run.epochs[1:]) if run.epochs[1:] else run.seconds


def _costs(grown: Grown) -> str:
    rows = []
    for what, each in grown.items():
        for images, runs in each.items():
            seconds, processor = [_seconds(run) for run in runs], [run.processor for run in runs]
            memory, disk = (max(getattr(run, name) for run in runs) for name in ("memory", "disk"))
            row = [what, f"{images:,}", spread(seconds), spread(processor), f"{memory / 1e9:.2f} GB"]
            rows.append([*row, f"{disk / 1e6:,.1f} MB"])
    return table(["", "images", "seconds", "processor seconds", "peak memory", "on disk"], rows)


MEASURES: Mapping[str, Callable[[Run], float]] = {
    "seconds": _seconds,
    "processor seconds": lambda run: run.processor,
    "peak memory": lambda run: run.memory,
    "on disk": lambda run: run.disk,
}


def _exponents(grown: Grown, few: int) -> str:
    """Return for each measure the exponent as measured and, where the start was measured, of what comes on top of it."""
    rows = []
    for what, each in grown.items():
        row = [what]
        for measure in MEASURES.values():
            sizes = {images: statistics.median(map(measure, runs)) for images, runs in each.items()}
            start = sizes.pop(few, None)
            more = {images - few: value - start for images, value in sizes.items()} if start is not None else {}
            row.append(_pair(exponent(sizes), exponent(more)))
        rows.append(row)
    return table(["exponent (without the start)", *MEASURES], rows)


def _pair(whole: float | None, without: float | None) -> str:
    text = "–" if whole is None else f"{whole:z.2f}"
    return text if without is None else f"{text} ({without:z.2f})"


def _notes(few: int) -> str:
    return (
        f"An exponent is the slope of the logarithm of a measure over that of the number of images, by least squares: 1 means "
        f"proportional. Rows of {few} images show what a start costs. They are not part of the fit; in brackets is the "
        f"exponent of what further images add to them. Seconds of features include the start of the program; those of an epoch "
        f"are of the faster of epochs 2 to {EPOCHS}, validation included; processor time, memory and disk are of all {EPOCHS} "
        f"epochs. `prepared` is `vggft featurize` with an engine that returns outputs computed before, on JPEG "
        f"files of at most {SIDE} pixels a side."
    )
