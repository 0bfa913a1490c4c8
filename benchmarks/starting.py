"""How long vggft's commands take when there is next to nothing to compute, and which of them import TensorFlow.

    python -m benchmarks.starting WORKSPACE IMAGE [--rounds 5]

WORKSPACE has features and trained heads (`vggft featurize`, `vggft head`); IMAGE is to be predicted by its best head. In each
round the commands take turns, each in a process of its own, beside a Python that does nothing and one that imports TensorFlow.
Medians, with minimum and maximum. Whether a command imports TensorFlow is seen in a run that is not timed.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.contest import spread, table
from benchmarks.machine import children_processor_seconds, machine, versions
from featurize.backbone.vgg16 import VGG16
from vggft.workspace.workspace import Workspace

# Runs vggft, and writes to the file of the first argument whether TensorFlow was imported.
_REPORTING = """
import atexit, pathlib, runpy, sys
file = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: file.write_text(str("tensorflow" in sys.modules)))
runpy.run_module("vggft", run_name="__main__", alter_sys=True)
"""
_IMPORTING = "Python that imports TensorFlow"


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    here, data = ["-w", options.workspace], Workspace(options.workspace, VGG16).settings.data
    words = {
        "vggft --help": ["--help"],
        "vggft doctor": ["doctor", *here],
        "vggft featurize, nothing new": ["featurize", data, *here],
        "vggft head, nothing new": ["head", *here],
        "vggft predict, one image": ["predict", options.image, *here],
    }
    imports = {name: _imports_tensorflow(each) for name, each in words.items()}  # also fills caches
    commands = {name: [sys.executable, "-m", "vggft", *each] for name, each in words.items()}
    for name, code in (("Python that does nothing", "pass"), (_IMPORTING, "import tensorflow")):
        commands[name], imports[name] = [sys.executable, "-c", code], name == _IMPORTING
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


def _imports_tensorflow(words: list[object]) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "imported"
        subprocess.run([sys.executable, "-c", _REPORTING, str(file), *map(str, words)], check=True, capture_output=True)
        return file.read_text() == "True"


if __name__ == "__main__":
    main()
