"""How well few validation images rank heads, with and without folds of the training images (`heads.search.cross_validate`).

    python -m benchmarks.head_ranking WORK [FOLDER ...] [--sets digits,textures] [--images 160] [--draws 2] [--size 112]

The data sets are those of tuning_defaults.py; FOLDERs with one folder for each class are further ones. In each draw, --images
random images are taken: three quarters train the default heads, a quarter validates them; up to 1,000 others judge them. For each
way of ranking, the place of the head called best is printed, and by how much its log-loss on the judging images is above the
lowest. WORK keeps pictures and features.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import get_args

import numpy as np

from benchmarks.tuning_defaults import MADE, SIDE, made
from featurize.backbone.vgg16 import VGG16
from heads import features, folds, near_duplicates, search
from heads.features import Features
from heads.metrics import measure
from heads.plan import FOLDS, Plan
from heads.search import Failed, Result
from heads.specs import DEFAULTS, Pooling
from vggft import Experiment
from vggft.workspace.workspace import Workspace

WAYS = ("validation", "folds and validation")


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--sets", default=",".join(MADE), help="comma-separated; default: all that are made here")
    parser.add_argument("--set-images", type=int, default=1200, help="of each made set")
    parser.add_argument("--images", type=int, default=160, help="for training and validation")
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--size", type=int, default=SIDE, help="side of the network's input")
    options = parser.parse_args()
    sets = {name: None for name in options.sets.split(",") if name} | {path.name: path for path in options.folders}
    places: dict[str, list[int]] = {way: [] for way in WAYS}
    excesses: dict[str, list[float]] = {way: [] for way in WAYS}
    costs = []
    for name, folder in sets.items():
        data = folder or made(options.work / "pictures" / name, name, options.set_images)
        everything, classes = pooled(options.work / f"{name}-{options.size}", data, options.size)
        for draw in range(options.draws):
            found, cost = rank(everything, classes, options.images, draw)
            costs.append(cost)
            for way, (place, excess) in found.items():
                places[way].append(place)
                excesses[way].append(excess)
            print(name, draw, *(f"{way}: place {p}, +{e:.1%}" for way, (p, e) in found.items()), sep="; ", flush=True)
    for way in WAYS:
        print(f"{way}: mean place {fmean(places[way]):.2f} of {len(DEFAULTS)}, mean excess {fmean(excesses[way]):.1%}")
    print(f"folds took {median(costs):.1f} times as long as training (median; {min(costs):.1f}–{max(costs):.1f})")


def pooled(place: Path, data: Path, size: int) -> tuple[Features, tuple[str, ...]]:
    """Return the pooled features of all images of a folder, no two with the same bytes, and the classes."""
    network = replace(VGG16, size=size)
    if not (place / "manifest.csv").exists():
        Experiment(place, network).featurize(data, test=0.3, validation=0.15)
    workspace = Workspace(place, network)
    dataset = workspace.dataset
    by_digest = {sample.digest: sample for sample in sorted(dataset.accepted(), key=lambda sample: sample.digest)}
    samples = list(by_digest.values())
    return features.read(workspace.cache(), samples, dataset.targets(samples), get_args(Pooling)), dataset.classes


def rank(
    everything: Features, classes: tuple[str, ...], images: int, draw: int
) -> tuple[dict[str, tuple[int, float]], float]:
    """Return way → place and relative excess of the head it calls best, and the cost of the folds relative to training."""
    order = np.random.default_rng(draw).permutation(len(everything))
    number = min(images, int(0.6 * len(order)))
    learnt, validated, judging = np.split(order[: number + 1000], [int(0.75 * number), number])
    train, _ = near_duplicates.together(everything.take(learnt))
    validation, judges = everything.take(validated), everything.take(judging)
    setting = search.Setting(classes, Plan(), _silent)
    began = perf_counter()
    results = _succeeded(search.train_all(DEFAULTS, setting, train, validation))
    trained = [(spec, results[spec.name]) for spec in DEFAULTS if spec.name in results]
    seconds = perf_counter() - began
    began = perf_counter()
    most = folds.max_folds(train.targets, train.groups, FOLDS)
    folded = _succeeded(search.cross_validate(trained, setting, train, validation, most)).values()
    cost = (perf_counter() - began) / seconds
    judged = {
        result.head.name: measure(result.head.scores(judges.pooled[result.head.pooling]), judges.targets).log_loss
        for result in folded
    }
    losses = sorted(judged.values())
    called = {
        "validation": min(folded, key=lambda result: result.validation.log_loss),
        "folds and validation": min(folded, key=lambda result: result.folds.log_loss if result.folds else np.inf),
    }
    return {
        way: (1 + losses.index(judged[best.head.name]), judged[best.head.name] / losses[0] - 1)
        for way, best in called.items()
    }, cost


def _succeeded(results: Iterable[Result | Failed]) -> dict[str, Result]:
    return {result.head.name: result for result in results if isinstance(result, Result)}


@contextmanager
def _silent(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


if __name__ == "__main__":
    main()
