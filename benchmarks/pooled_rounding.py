"""How far rounding averages to float16 moves what heads read and predict (`heads.features.vectors`).

    python -m benchmarks.pooled_rounding WORK [...]

WORKs are workspaces with outputs of the last layer and with heads. Printed are, over all their images and heads, the largest
relative error of the averages of an image, and the largest differences of a probability and of a head's log-loss.
"""

import argparse
from pathlib import Path

import numpy as np

from featurize.backbone.vgg16 import VGG16
from heads import features
from heads.head import pool
from heads.metrics import losses
from vggft.prediction import models
from vggft.workspace.workspace import Workspace


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", type=Path, nargs="+")
    options = parser.parse_args()
    print("| workspace | images | heads | averages | probability | log-loss |", "|---" * 6 + "|", sep="\n")
    for work in options.works:
        measure(Workspace(work, VGG16))


def measure(workspace: Workspace) -> None:
    """Print the row of a workspace."""
    samples = workspace.dataset.accepted()
    targets = np.asarray(workspace.dataset.targets(samples))
    maps = workspace.cache().read(VGG16.top, [sample.digest for sample in samples])
    exact = pool(maps, "avg").astype(np.float64)
    errors = np.linalg.norm(features.vectors(maps, "avg") - exact, axis=1) / np.linalg.norm(exact, axis=1)
    probability = log_loss = 0.0
    heads = [model.head for model in models.load(workspace).heads]
    for head in heads:
        p, rounded = head.predict(maps), head.scores(features.vectors(maps, head.pooling))
        probability = max(probability, float(np.abs(rounded - p).max()))
        log_loss = max(log_loss, abs(float(losses(rounded, targets).mean() - losses(p, targets).mean())))
    print(
        f"| {workspace.root.name} | {len(samples)} | {len(heads)} | {errors.max():.1e} | {probability:.1e} | {log_loss:.1e} |"
    )


if __name__ == "__main__":
    main()
