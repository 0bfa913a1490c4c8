"""Disk space of cached features, and how long `vggft head` takes to read them, for workspaces of the same images.

    python -m benchmarks.pooled_reading WORK WORK [...] [--rounds 11]

WORKs are workspaces, such as one of `vggft featurize DATA` and one of `vggft featurize DATA --layers pooled`. In each round the
workspaces take turns, and all that heads with pooling read is read; files are in the system's memory. Printed are the bytes an
image that the cache's files take and those of each layer, and median and range of the milliseconds on the CPU: other programs
that run meanwhile change them less than those on the clock.
"""

import argparse
import time
from pathlib import Path
from statistics import median

from featurize.backbone.vgg16 import VGG16
from featurize.cache import upkeep
from heads import features
from vggft.workspace.workspace import Workspace


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    workspaces = [Workspace(work, VGG16) for work in options.works]
    milliseconds: dict[Path, list[float]] = {workspace.root: [] for workspace in workspaces}
    for _ in range(options.rounds):
        for workspace in workspaces:
            samples = workspace.dataset.accepted()
            began = time.process_time()
            features.read(workspace.cache(), samples, workspace.dataset.targets(samples), ["avg", "max", "avgmax"])
            milliseconds[workspace.root].append(1000 * (time.process_time() - began))
    print("| workspace | images | bytes an image | of layers | CPU ms |", "|---" * 5 + "|", sep="\n")
    for workspace in workspaces:
        summary = upkeep.info(workspace.cache().folder, workspace.settings.fingerprint, VGG16)
        layers = ", ".join(f"{name} {layer.stored / layer.rows:.0f}" for name, layer in summary.layers.items())
        taken = milliseconds[workspace.root]
        print(
            f"| {workspace.root.name} | {summary.images} | {summary.stored / summary.images:.0f} | {layers} | "
            f"{median(taken):.0f} ({min(taken):.0f}–{max(taken):.0f}) |"
        )


if __name__ == "__main__":
    main()
