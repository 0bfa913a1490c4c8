"""Which share of the machine's matrix-multiply rate the contenders reach, by the operations of direct convolutions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import rates
from benchmarks.contenders.entry import TRAIN, VALIDATE, listed
from benchmarks.contenders.fastai_fine_tune import SMALL_BATCH
from benchmarks.contest import VGGFT, Contest, Run, spread, table
from benchmarks.machine import CORETYPE
from benchmarks.operations import Epoch, convolutions, epoch, forward
from benchmarks.questions.answer import Answer, numbers
from benchmarks.questions.epoch import EPOCHS
from benchmarks.restoring import keep, restore
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.backbone.weights import Weights

CONTENDERS = (VGGFT, "keras_npy")
# Contenders that fine-tune block5 and nothing below → the field of `Epoch` that counts their operations.
TUNING = {
    VGGFT: "cache",
    "original_corrected": "pixels",
    "torchvision_vgg16": "pixels",
    "fastai_fine_tune": "pixels",
}
_TIMES = 5  # each matrix product, and the engine alone


@dataclass(frozen=True)
class _Row:
    """A row of the table: images a second in each round, and the multiply-adds an image of direct convolutions."""

    name: str
    rates: Sequence[float]
    multiply_adds: float

    @property
    def operations(self) -> float:
        """Return the median of operations a second."""
        return 2 * median(self.rates) * self.multiply_adds

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
    products = [rates.products(times)]
    runs = contest.in_turn(CONTENDERS, contest.task("features"), contest.clear)
    rows = [
        _Row(f"{name}: features", [(train + validate) / run.seconds for run in each], image)
        for name, each in runs.items()
    ]
    epochs = _epochs(contest)
    rows += [_tuned(name, seconds, loaded, train, validate) for name, seconds in epochs.items()]
    alone = rates.engine(contest.data, times, _engine(runs[VGGFT][-1]) if VGGFT in runs else "auto")
    rows.append(_Row(f"vggft's engine {alone['name']} alone", alone["rates"], image))
    products.append(rates.products(times))
    best, size, medians = _best(products)
    counted = epoch(loaded, VGG16.size, train, validate)
    text = "\n\n".join([_table(rows, best), _machine(best, size, medians, image), _meaning(counted)])
    measured = {
        "multiply_adds": {layer.name: layer.multiply_adds for layer in convolutions(loaded, VGG16.size)},
        "epoch_multiply_adds": {"cache": counted.cache, "pixels": counted.pixels},
        "products": products,
        "features": numbers(runs),
        "epochs": epochs,
        "engine": alone,
    }
    return Answer("Share of the machine's matrix-multiply rate", text, measured)


def _engine(run: Run) -> str:
    """Return the name of the engine that vggft used."""
    return str(next(event["engine"] for event in run.events if event["event"] == "features"))


def _epochs(contest: Contest) -> dict[str, list[float]]:
    """Return the seconds of the fastest epoch of each round; vggft starts from the features in its folder."""
    seconds = {}
    contest.place.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="limit-", dir=contest.place) as folder:
        keep(contest, VGGFT, Path(folder))
        task = contest.task("epoch", epochs=EPOCHS)
        for name, runs in contest.in_turn(
            tuple(TUNING), task, lambda name: restore(contest, name, Path(folder))
        ).items():
            seconds[name] = [min(run.epochs[1:]) for run in runs]  # the first compiles
    return seconds


def _tuned(name: str, seconds: Sequence[float], loaded: Weights, train: int, validate: int) -> _Row:
    if name == "fastai_fine_tune":  # it leaves out the last, incomplete batch
        batch = min(SMALL_BATCH, train)
        train = train // batch * batch
    start, images = TUNING[name], train + validate
    multiply_adds = getattr(epoch(loaded, VGG16.size, train, validate), start)
    return _Row(f"{name}: an epoch from {start}", [images / each for each in seconds], multiply_adds / images)


def _best(products: Sequence[Mapping[str, Sequence[float]]]) -> tuple[float, str, list[str]]:
    """Return the highest rate of any matrix product, its size, and all rates of each size as text."""
    together = {size: [rate for each in products for rate in each[size]] for size in products[0]}
    size = max(together, key=lambda name: max(together[name]))
    return max(together[size]), size, [f"{name}: {spread(each, '.0f')}" for name, each in together.items()]


def _table(rows: Sequence[_Row], best: float) -> str:
    heads = ["", "images/s", "GMAC an image", "GFLOP/s by the direct count", "of the fastest matrix product"]
    ranked = sorted(rows, key=lambda row: row.operations, reverse=True)
    return table(heads, [row.cells(best) for row in ranked])


def _machine(best: float, size: str, medians: Sequence[str], image: int) -> str:
    kernels = os.environ.get(CORETYPE)
    return (
        f"The fastest product of float32 matrices with NumPy on all cores, before or after the contenders: {best:.0f} "
        f"GFLOP/s ({size}). At that rate, direct convolutions would compute {best * 1e9 / (2 * image):.1f} images/s. Matrices "
        f"as large as those of the layers, GFLOP/s: {'; '.join(medians)}. {CORETYPE} is "
        + (f"{kernels} for the contenders, and unset for the products and the engine alone." if kernels else "not set.")
    )


def _meaning(counted: Epoch) -> str:
    return (
        f"A multiply-add (MAC) counts as two operations. An epoch takes {counted.cache / 1e12:.2f} TMAC from the cache and "
        f"{counted.pixels / 1e12:.2f} TMAC from pixels: forward for all images, and for the training images the gradients of "
        f"{VGG16.unfreeze}, twice their forward count except in the lowest layer, whose input needs no gradient. fastai leaves "
        f"out an incomplete last batch of training images, which its row does not count. The count is that of direct "
        f"convolutions. Winograd's F(4×4, 3×3) needs {9 * 16 / 6**2:.0f} times fewer multiplications, F(8×8, 3×3) "
        f"{9 * 64 / 10**2:.2f} times fewer, so an engine that uses it can exceed 100 %. Features include the start of the "
        f"program, reading, decoding and writing; the engine alone does none of that."
    )
