"""How costs grow with the number of images: of features, of an epoch of fine-tuning, and of featurizing without the network."""

import math
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks import pipeline
from benchmarks.contenders.prepared import OUTPUTS
from benchmarks.contest import VGGFT, Contest, Run, spread, table
from benchmarks.growing import SIDE, exponent, fewest, lay_out, mixed, thumbnails
from benchmarks.questions.answer import Answer, numbers
from benchmarks.questions.epoch import EPOCHS
from benchmarks.restoring import keep, restore
from featurize.backbone.vgg16 import VGG16
from featurize.wording import size

CONTENDERS = (VGGFT, "keras_npy")
TUNING = (VGGFT,)
WITHOUT_NETWORK = ("prepared",)
_BLOCK = 4096  # bytes on disk of a small JPEG file
_THUMBNAILS = 500  # distinct pictures; further files repeat them, with other bytes appended

Grown = dict[str, dict[int, list[Run]]]  # what was measured → images → runs


def ask(contest: Contest) -> Answer:
    """Measure at each of `contest.sizes` and, with precomputed outputs, at each of `contest.files`; call `check` first."""
    few = fewest(contest.data)
    sizes, files = _numbers_of_images(contest)
    contest.place.mkdir(parents=True, exist_ok=True)
    grown: Grown = {}
    with tempfile.TemporaryDirectory(prefix="growth-", dir=contest.place) as folder:
        for images, data in lay_out(contest.data, Path(folder) / "pictures", [few, *sizes]).items():
            _features(contest, CONTENDERS, data, images, grown)
            if images != few:
                _tuning(contest, data, images, grown, Path(folder) / f"features-{images}")
        small = thumbnails(contest.data, Path(folder) / "thumbnails", _THUMBNAILS)
        pipeline.prepare(mixed(small), contest.weights / OUTPUTS, 4 if contest.quick else pipeline.BATCH)
        for images, data in lay_out(small, Path(folder) / "files", [few, *files]).items():
            _features(replace(contest, only=()), WITHOUT_NETWORK, data, images, grown)
    text = "\n\n".join([_costs(grown), _exponents(grown, few), _notes(few)])
    measured = {what: numbers({str(images): runs for images, runs in each.items()}) for what, each in grown.items()}
    return Answer("How costs grow with the number of images", text, measured)


def check(contest: Contest) -> None:
    """Check what `ask` needs before any question is measured.

    Raises:
        SystemExit: too few images for all classes, or too little free disk space for the largest number of files.
    """
    few = fewest(contest.data)
    sizes, files = _numbers_of_images(contest)
    for option, images in (("--sizes", sizes), ("--files", files)):
        if min(images) <= few:
            raise SystemExit(
                f"{option} {min(images)}: expected more than {few} images, one of each class in train and one in validate. Use "
                "larger numbers."
            )
    layers = [VGG16.layer(name) for name in VGG16.cached]
    row = sum(math.prod(layer.shape(VGG16.size)) * 2 / layer.compression for layer in layers)  # of float16
    needed = int(max(files) * (row + _BLOCK))
    contest.place.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(contest.place).free
    if needed > free:
        raise SystemExit(
            f"--files {max(files)}: about {size(needed)} needed in {contest.place}, {size(free)} free. Use fewer files, or "
            "--work FOLDER on another disk."
        )


def _numbers_of_images(contest: Contest) -> tuple[list[int], list[int]]:
    """Return `contest.sizes` and `contest.files`; those of --quick are multiplied where there are many classes."""
    smallest = min(*contest.sizes, *contest.files)
    factor = fewest(contest.data) // smallest + 1 if contest.quick else 1
    return [factor * number for number in contest.sizes], [factor * number for number in contest.files]


def _features(contest: Contest, contenders: Sequence[str], data: Path, images: int, grown: Grown) -> None:
    task = replace(contest.task("features"), data=data)
    for name, runs in contest.in_turn(contenders, task, contest.clear).items():
        grown.setdefault(f"{name}: features", {})[images] = runs


def _tuning(contest: Contest, data: Path, images: int, grown: Grown, saved: Path) -> None:
    """Fine-tune from the features that `_features` left in the folder of vggft."""
    keep(contest, VGGFT, saved)
    task = replace(contest.task("epoch", epochs=EPOCHS), data=data)
    for name, runs in contest.in_turn(TUNING, task, lambda name: restore(contest, name, saved)).items():
        grown.setdefault(f"{name}: an epoch", {})[images] = runs


def _seconds(run: Run) -> float:
    """Return the seconds of the fastest epoch after the first, which compiles; of the whole run where there are no epochs."""
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
    """Return a table of the exponents of each measure, and of its increase over the fewest images where these were measured."""
    rows = []
    for what, each in grown.items():
        row = [what]
        for measure in MEASURES.values():
            sizes = {images: statistics.median(map(measure, runs)) for images, runs in each.items()}
            start = sizes.pop(few, None)
            added = {images - few: value - start for images, value in sizes.items()} if start is not None else {}
            row.append(_pair(exponent(sizes), exponent(added)))
        rows.append(row)
    return table(["exponent (without the start)", *MEASURES], rows)


def _pair(whole: float | None, without: float | None) -> str:
    text = "–" if whole is None else f"{whole:z.2f}"
    return text if without is None else f"{text} ({without:z.2f})"


def _notes(few: int) -> str:
    return (
        f"An exponent is the slope of the logarithm of a measure over that of the number of images, by least squares: 1 means "
        f"proportional. Rows of {few} images show the cost of a start. They are not part of the fit; the exponent in "
        f"parentheses is that of the cost of further images. Seconds of features include the start of the program; those of "
        f"an epoch are of the fastest of epochs 2 to {EPOCHS}, validation included; processor time, memory and disk are of all "
        f"{EPOCHS} epochs. `prepared` is `vggft featurize` with an engine that returns precomputed outputs, on JPEG files of at "
        f"most {SIDE} pixels a side."
    )
