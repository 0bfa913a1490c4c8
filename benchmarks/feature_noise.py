"""Changing cached features at random while heads are trained: does it replace views, which cost rows?

    python -m benchmarks.feature_noise WORK [FOLDER ...] [--sets textures,aerial] [--images 500] [--seeds 3] [--size 112]

Frozen-feature augmentation, after Bär et al. 2024 (CVPR, arXiv:2403.10519): the features of each training image are scaled to
0–1 by the training images' minima and maxima, changed pointwise, clipped, and scaled back, differently in each step:

- brightness: x + b, with one b for an image, drawn evenly from −v to v; by channel: a b for each channel;
- contrast: (x − mean) · c + mean, with one c for an image, drawn evenly from 1 − v to 1 + v.

The heads are the default ones that pool, so that what is changed are averages and maxima over positions, not each position. The
data sets are those of tuning_defaults.py; FOLDERs with one folder for each class are further ones. Of each, 30% of the images
chose nothing; the table shows the log-loss on them relative to that of the same head and seed without a change, as a geometric
mean over heads and seeds. WORK keeps pictures and features.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks.contest import table
from benchmarks.machine import machine
from benchmarks.tuning_defaults import MADE, add_sets, sets
from featurize.backbone.architecture import POOLED
from featurize.backbone.vgg16 import VGG16
from heads import features, population
from heads.features import Features
from heads.metrics import measure
from heads.plan import Plan
from heads.specs import POOLED_HEADS
from vggft import Experiment

Values = NDArray[np.float32]  # (images, features), from 0 to 1
Change = Callable[[Values, np.random.Generator], Values]


def brightness(x: Values, rng: np.random.Generator, most: float) -> Values:
    """Add one number to all features of an image."""
    return x + rng.uniform(-most, most, (len(x), 1)).astype(np.float32)


def brightness_by_channel(x: Values, rng: np.random.Generator, most: float) -> Values:
    """Add a number to each feature."""
    return x + rng.uniform(-most, most, x.shape).astype(np.float32)


def contrast(x: Values, rng: np.random.Generator, most: float) -> Values:
    """Multiply the distances of an image's features from their mean."""
    mean = x.mean(axis=1, keepdims=True)
    changed: Values = (x - mean) * rng.uniform(1 - most, 1 + most, (len(x), 1)).astype(np.float32) + mean
    return changed


CHANGES: dict[str, Change] = {
    f"{name} {most}": partial(change, most=most)
    for name, change in (
        ("brightness", brightness),
        ("brightness by channel", brightness_by_channel),
        ("contrast", contrast),
    )
    for most in (0.1, 0.3)
}


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sets(parser, list(MADE))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    columns = {
        name: relative(options.work / f"{name}-{options.size}", folder, options.size, options.seeds)
        for name, folder in sets(options).items()
    }
    rows = []
    for change in CHANGES:
        ratios = [column[change] for column in columns.values()]
        mean = math.exp(fmean(map(math.log, ratios)))
        rows.append([change, *(f"{ratio:.3f}" for ratio in ratios), f"{mean:.3f}"])
    print(machine())
    print(table(["log-loss relative to no change", *columns, "geometric mean"], rows))


def relative(place: Path, data: Path, size: int, seeds: int) -> dict[str, float]:
    """Return change → log-loss on the test split relative to that without it, a geometric mean over heads and seeds."""
    experiment = Experiment(place, replace(VGG16, size=size))
    if not (place / "manifest.csv").exists():
        experiment.featurize(data, test=0.3, validation=0.15, layers=[POOLED])
    dataset, cache = experiment.workspace.dataset, experiment.workspace.cache()
    parts = {}
    for split in ("train", "validate", "test"):
        samples = dataset.accepted(split)
        parts[split] = features.read(cache, samples, dataset.targets(samples), ("avg", "max", "avgmax"))
    plain = losses(parts, dataset.classes, seeds)
    found = {}
    for name, change in CHANGES.items():
        with changed(change):
            other = losses(parts, dataset.classes, seeds)
        found[name] = math.exp(fmean(math.log(other[key] / plain[key]) for key in plain))
        print(f"{place.name}, {name}: {found[name]:.3f}", flush=True)
    return found


def losses(parts: dict[str, Features], classes: Sequence[str], seeds: int) -> dict[tuple[str, int], float]:
    """Train the heads with each seed; return (head, seed) → log-loss on the test split."""
    found = {}
    for seed in range(seeds):
        for trained in population.train_together(
            POOLED_HEADS, classes, parts["train"], Plan(seed=seed), parts["validate"]
        ):
            assert trained.head, f"{trained.spec.name} diverged"
            scores = trained.head.scores(parts["test"].pooled[trained.spec.pooling])
            found[trained.spec.name, seed] = measure(scores, parts["test"].targets).log_loss
    return found


@contextmanager
def changed(change: Change) -> Iterator[None]:
    """Let heads train on changed features; what is evaluated stays as it is."""
    rows, rng = population._Source.rows, np.random.default_rng(0)

    def altered(source: Any, of: Features, at: Any, views: NDArray[np.int64] | None = None) -> Values:
        if views is None:  # to evaluate
            return rows(source, of, at)
        x = of.pooled[source.pooling]
        low, high = x.min(axis=0), x.max(axis=0)
        span = np.where(high > low, high - low, 1)
        values = change((x[at] - low) / span, rng).clip(0, 1) * span + low
        return rows(source, replace(of, pooled={source.pooling: values}), np.arange(len(values)), views)

    with mock.patch.object(population._Source, "rows", altered):
        yield


if __name__ == "__main__":
    main()
