"""How near the contenders come to what the machine can do: its matrix products beside the operations that were computed."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import rates
from benchmarks.contenders.entry import TRAIN, VALIDATE, listed
from benchmarks.contest import Contest, spread, table
from benchmarks.operations import Epoch, convolutions, epoch, forward
from benchmarks.questions.answer import Answer, numbers
from benchmarks.questions.epoch import EPOCHS
from benchmarks.restoring import keep, restore
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16

CONTENDERS = ("vggft", "keras_npy")
# Contenders that tune block5 and no more → the field of `Epoch` that says what they compute.
TUNING = {
    "vggft": "cache",
    "original_corrected": "pixels",
    "torchvision_vgg16": "pixels",
    "fastai_fine_tune": "pixels",
}
_TIMES = 5  # each matrix product, and the engine alone


@dataclass(frozen=True)
class _Row:
    """Something measured: images a second of each round, and the multiply-adds that an image takes directly."""

    name: str
    rates: Sequence[float]
    multiply_adds: float

    def cells(self, best: float) -> list[str]:
        """Return the row of the table; `best` in GFLOP/s."""
        speeds = [2 * rate * self.multiply_adds / 1e9 for rate in self.rates]
        share = spread([100 * speed / best for speed in speeds], ".0f")
        return [self.name, spread(self.rates), f"{self.multiply_adds / 1e9:.2f}", spread(speeds), f"{share} %"]


def ask(contest: Contest) -> Answer:
    """Measure the machine, the contenders and vggft's engine alone, and the machine again."""
    times = 1 if contest.quick else _TIMES
    loaded = weights.load(VGG16, weights.locate(VGG16))
    train, validate = (len(listed(contest.data / split)[0]) for split in (TRAIN, VALIDATE))
    image = forward(convolutions(loaded, VGG16.size))
    counted = epoch(loaded, VGG16.size, train, validate)
    products = [rates.products(times)]
    runs = contest.in_turn(CONTENDERS, contest.task("features"), contest.clear)
    rows = [
        _Row(f"{name}: features", [(train + validate) / run.seconds for run in each], image)
        for name, each in runs.items()
    ]
    # A contender that does not fine-tune stays in other questions.
    tuning = replace(contest, missing=dict(contest.missing))
    epochs = _epochs(tuning)
    left_out = [f"{name} ({why})" for name, why in tuning.missing.items() if name not in contest.missing]
    rows += [_tuned(name, seconds, counted, train + validate) for name, seconds in epochs.items()]
    alone = rates.engine(contest.data, times)
    rows.append(_Row(f"vggft's engine {alone['name']} alone", alone["rates"], image))
    products.append(rates.products(times))
    best, size, medians = _best(products)
    text = "\n\n".join([_table(rows, best), _machine(best, size, medians, image), _meaning(counted, left_out)])
    measured = {
        "multiply_adds": {layer.name: layer.multiply_adds for layer in convolutions(loaded, VGG16.size)},
        "epoch_multiply_adds": {"cache": counted.cache, "pixels": counted.pixels},
        "products": products,
        "features": numbers(runs),
        "epochs": epochs,
        "engine": alone,
    }
    return Answer("How near to the limit of the machine", text, measured)


def _epochs(contest: Contest) -> dict[str, list[float]]:
    """Return the seconds of an epoch, of each round, of those that fine-tune; the features are computed before."""
    seconds = {}
    contest.place.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="limit-", dir=contest.place) as folder:
        for name in set(TUNING) & set(CONTENDERS):
            keep(contest, name, Path(folder))
        task = contest.task("epoch", epochs=EPOCHS)
        for name, runs in contest.in_turn(TUNING, task, lambda name: restore(contest, name, Path(folder))).items():
            seconds[name] = [min(run.epochs[1:]) for run in runs]  # the first compiles
    return seconds


def _tuned(name: str, seconds: Sequence[float], counted: Epoch, images: int) -> _Row:
    start = TUNING[name]
    each = getattr(counted, start) / images
    return _Row(f"{name}: an epoch from {start}", [images / each_epoch for each_epoch in seconds], each)


def _best(products: Sequence[Mapping[str, Sequence[float]]]) -> tuple[float, str, list[str]]:
    """Return the highest rate of any matrix product, its size, and for each size the rates of all measurements as text."""
    together = {size: [rate for each in products for rate in each[size]] for size in products[0]}
    size = max(together, key=lambda name: max(together[name]))
    return max(together[size]), size, [f"{name}: {spread(each, '.0f')}" for name, each in together.items()]


def _table(rows: Sequence[_Row], best: float) -> str:
    heads = ["", "images/s", "GMAC an image", "GFLOP/s by the direct count", "of the fastest matrix product"]
    return table(heads, [row.cells(best) for row in rows])


def _machine(best: float, size: str, medians: Sequence[str], image: int) -> str:
    kernels = os.environ.get(rates.CORETYPE)
    return (
        f"The fastest product of float32 matrices with NumPy and all cores, before or after the contenders: {best:.0f} "
        f"GFLOP/s ({size}). At that rate, direct convolutions would compute {best * 1e9 / (2 * image):.1f} images/s. Matrices "
        f"as large as those of the layers, GFLOP/s: {'; '.join(medians)}. {rates.CORETYPE} is "
        + (f"{kernels} for the contenders, and unset for the products and the engine alone." if kernels else "not set.")
    )


def _meaning(counted: Epoch, left_out: Sequence[str]) -> str:
    text = (
        f"A multiply-add (MAC) counts as two operations. An epoch takes {counted.cache / 1e12:.2f} TMAC from the cache and "
        f"{counted.pixels / 1e12:.2f} TMAC from pixels: forward for all images, and for the training images the gradients of "
        f"{VGG16.unfreeze}, twice as many except in its lowest layer, whose input needs no gradient. The count is that of direct "
        f"convolutions. Winograd's F(4×4, 3×3) does them with {9 * 16 / 6**2:.0f} times fewer multiplications, F(8×8, 3×3) with "
        f"{9 * 64 / 10**2:.2f} times fewer, so an engine that uses it can pass 100 %. Features include the start of the program, "
        f"reading, decoding and writing; the engine alone does none of that."
    )
    return f"{text} No epochs of {', '.join(left_out)}." if left_out else text
