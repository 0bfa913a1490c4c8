"""What heads gain if features that vary little are not divided by their own standard deviation (`heads.head.scales`).

    python -m benchmarks.feature_scales WORK [FOLDER ...] [--images 1200] [--scales 0,1,2.5,6]

The data sets are those of tuning_defaults.py; FOLDERs with one folder for each class are further ones. Five of the default heads
are trained with each of some values of `LEAST_SCALE`; 0 is plain standardisation. Printed is the log-loss on the test split, 30%
of the images, which chooses nothing. WORK keeps pictures and features.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import heads.head
from benchmarks.tuning_defaults import MADE, SIDE, made
from featurize.backbone.vgg16 import VGG16
from heads import features, search
from heads.metrics import measure
from heads.plan import Plan
from heads.specs import DEFAULTS
from vggft import Experiment
from vggft.workspace.workspace import Workspace

HEADS = ("logistic-avg", "logistic-max", "avg-256", "max-linear", "max-64-l2-dropout")


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--images", type=int, default=1200, help="of each made set")
    parser.add_argument("--scales", default="0,1,2.5,6", help="comma-separated values of LEAST_SCALE")
    options = parser.parse_args()
    print("| set | least scale | " + " | ".join(HEADS) + " |", "|---" * (len(HEADS) + 2) + "|", sep="\n")
    for name in MADE:
        data = made(options.work / "pictures" / name, name, options.images)
        measure_set(name, options.work / f"{name}-{SIDE}", data, SIDE, options.scales)
    for folder in options.folders:
        measure_set(folder.name, options.work / f"{folder.name}-{VGG16.size}", folder, VGG16.size, options.scales)


def measure_set(name: str, place: Path, data: Path, size: int, values: str) -> None:
    """Print a row for each least scale."""
    network = replace(VGG16, size=size)
    if not (place / "manifest.csv").exists():
        Experiment(place, network).featurize(data, test=0.3, validation=0.15)
    workspace = Workspace(place, network)
    dataset, cache = workspace.dataset, workspace.cache()
    train, validation, test = (
        features.read(cache, samples, dataset.targets(samples), ["avg", "max"])
        for samples in map(dataset.accepted, ("train", "validate", "test"))
    )
    specs = [spec for spec in DEFAULTS if spec.name in HEADS]
    for value in values.split(","):
        heads.head.LEAST_SCALE = float(value)
        losses = {}
        for result in search.train_all(specs, search.Setting(dataset.classes, Plan(), _silent), train, validation):
            if isinstance(result, search.Result):
                scores = result.head.scores(test.pooled[result.head.pooling])
                losses[result.head.name] = f"{measure(scores, test.targets).log_loss:.3f}"
        print("| " + " | ".join([name, value, *(losses.get(head, "diverged") for head in HEADS)]) + " |", flush=True)


@contextmanager
def _silent(what: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    yield lambda done: None


if __name__ == "__main__":
    main()
