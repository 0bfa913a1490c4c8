"""What views of training images bring heads and fine-tuning, and what they cost.

    python -m benchmarks.views WORK [FOLDER ...] [--sets textures,aerial] [--images 500] [--views 4] [--size 112]

The data sets are those of tuning_defaults.py; FOLDERs with one folder for each class are further ones. Of each, 30% of the images
judge; they have no part in anything else. Printed are the log-loss and accuracy on them of the best logistic regression, the best
head and a tuned network, each trained without views and with, and the seconds that featurize and the trainings took. WORK keeps
pictures, features and models.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

from benchmarks.tuning_defaults import MADE, add_sets, sets
from featurize.backbone.vgg16 import VGG16
from vggft import Experiment
from vggft.prediction import models

WHAT = ("regression", "head", "tuned")


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sets(parser, list(MADE))
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=10, help="of fine-tuning")
    options = parser.parse_args()
    rows = []
    for name, data in sets(options).items():
        place = options.work / f"{name}-{options.size}-views"
        rows.append(measure(place, data, options.size, options.views, options.epochs))
        print(name, json.dumps(rows[-1]), flush=True)
    for what in WHAT:
        ratios = [math.log(row[what][1]["log_loss"] / row[what][0]["log_loss"]) for row in rows]
        gained = [row[what][1]["accuracy"] - row[what][0]["accuracy"] for row in rows]
        print(
            f"{what}: log-loss with views relative to that without {math.exp(fmean(ratios)):.3f} (geometric mean; "
            f"{math.exp(min(ratios)):.3f} to {math.exp(max(ratios)):.3f}), accuracy {100 * fmean(gained):+.1f} points"
        )


def measure(place: Path, data: Path, size: int, number: int, epochs: int) -> dict[str, Any]:
    """Return of regression, head and tuned network what was measured without views and with, and the seconds of each step."""
    experiment = Experiment(place, replace(VGG16, size=size))
    seconds: dict[str, float] = {}

    def timed(step: str, function: Any, **arguments: Any) -> Any:
        began = perf_counter()
        result = function(**arguments)
        seconds[step] = round(perf_counter() - began, 1)
        return result

    timed("featurize", experiment.featurize, data=data, test=0.3, validation=0.15)
    timed("views", experiment.featurize, data=data, views=number)
    best: dict[int, tuple[str, ...]] = {}
    for views in (0, number):
        timed(f"heads {views}", experiment.fit_heads, views=views)
        ranked = [m for m in models.load(experiment.workspace).heads if ("-views" in m.name) == bool(views)]
        regression = next(model.name for model in ranked if model.name.startswith("logistic"))
        name = f"tuned{views}"
        if not (place / "finetune" / name / "run.json").exists():
            timed(f"tuning {views}", experiment.finetune, start=regression, name=name, views=views, epochs=epochs)
        best[views] = (regression, ranked[0].name, name)
    methods = {method["name"]: method for method in experiment.compare(quick=True)["methods"]}
    found: dict[str, Any] = {}
    for k, what in enumerate(WHAT):
        found[what] = [
            {"model": best[views][k], **{key: methods[best[views][k]][key] for key in ("log_loss", "accuracy")}}
            for views in (0, number)
        ]
    return {"images": experiment.workspace.dataset.split_counts, **found, "seconds": seconds}


if __name__ == "__main__":
    main()
