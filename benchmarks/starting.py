"""How long vggft's commands take when there is next to nothing to compute, and which of them import TensorFlow.

    python -m benchmarks.starting WORKSPACE IMAGE [--rounds 5]

WORKSPACE has features and trained heads (`vggft featurize`, `vggft head`); IMAGE is to be predicted by its best head. In each
round the commands take turns, each in a process of its own, beside a Python that does nothing and one that imports TensorFlow.
Medians, with minimum and maximum. Python's own list of imports tells, in a run that is not timed, whether a command imports
TensorFlow.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.contest import spread, table
from benchmarks.machine import children_processor_seconds, machine, versions
from featurize.backbone.vgg16 import VGG16
from vggft.workspace.workspace import Workspace

_IMPORTED = re.compile(r"\| +tensorflow$", re.MULTILINE)  # a line of PYTHONPROFILEIMPORTTIME


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    here, data = ["-w", options.workspace], Workspace(options.workspace, VGG16).settings.data
    vggft = [sys.executable, "-m", "vggft"]
    commands = {
        "Python that does nothing": [sys.executable, "-c", "pass"],
        "Python that imports TensorFlow": [sys.executable, "-c", "import tensorflow"],
        "vggft --help": [*vggft, "--help"],
        "vggft doctor": [*vggft, "doctor", *here],
        "vggft featurize, nothing new": [*vggft, "featurize", data, *here],
        "vggft head, nothing new": [*vggft, "head", *here],
        "vggft predict, one image": [*vggft, "predict", options.image, *here],
    }
    imports = {name: _imports_tensorflow(command) for name, command in commands.items()}  # also fills caches
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    processor: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(options.rounds):
        for name, command in commands.items():
            began, used = time.perf_counter(), children_processor_seconds()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
            processor[name].append(children_processor_seconds() - used)
    print(machine(), ", ".join(f"{name} {version}" for name, version in versions().items()), sep="\n")
    heads = ("", "seconds", "processor seconds", "imports TensorFlow")
    rows = [
        [name, spread(seconds[name], ".2f"), spread(processor[name], ".2f"), "yes" if imports[name] else "no"]
        for name in commands
    ]
    print(table(heads, rows))


def _imports_tensorflow(command: list[object]) -> bool:
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, env=environment)
    return bool(_IMPORTED.search(done.stderr))


if __name__ == "__main__":
    main()
