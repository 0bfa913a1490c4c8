"""Workers against one process: `vggft featurize` with and without `--on local:N`, in turn, on the same photographs.

    python -m benchmarks.cluster FOLDER [--images 800] [--rounds 3] [--workers 2] [--engine winograd]

FOLDER is a folder of class folders. Where it has fewer pictures than wanted, they are encoded again as other JPEG files. All
processes together use the cores of the machine. Two rates are printed: of the whole command, with the start of its processes and
engines; and from the first finished shard (of each worker) to the last, as in a long run. Medians, with minimum and maximum.
"""

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import machine
from featurize.data.folders import PICTURE_SUFFIXES

Rates = tuple[float, float]


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--engine", default="winograd")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vggft-cluster-") as folder:
        data = pictures(options.folder, options.images, Path(folder) / "data")
        usual = ["--engine", options.engine, "--shard", "64"]
        address = f"local:{options.workers}"
        ways = {"one process": (usual, 1), f"--on {address}": ([*usual, "--on", address], options.workers)}
        rates: dict[str, list[Rates]] = {name: [] for name in ways}
        for _, (name, (arguments, workers)) in itertools.product(range(options.rounds), ways.items()):
            rates[name].append(measured(data, Path(folder) / "work", arguments, options.images, workers))
    print(f"{machine()}; {options.images} images, {options.engine}, {options.rounds} rounds\n")
    one, on = (np.array(found) for found in rates.values())
    print("| images/s | whole command | first shard to last |\n|---|---:|---:|")
    for name, table in [*zip(rates, (one, on), strict=True), ("ratio, pair by pair", on / one)]:
        print(f"| {name} | {summary(table[:, 0])} | {summary(table[:, 1])} |")


def pictures(source: Path, number: int, target: Path) -> Path:
    """Write a number of different JPEG files in two class folders, and return their folder."""
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES)
    for i in range(number):
        path = target / ("even", "odd")[i % 2] / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        again = i // len(files)
        if again == 0 and files[i].suffix.lower() == ".jpg":
            shutil.copy(files[i], path)
        else:
            Image.open(files[i % len(files)]).convert("RGB").save(path, quality=95 - again)
    return target


def measured(data: Path, work: Path, arguments: list[str], number: int, workers: int) -> Rates:
    """Run `vggft featurize` in a new workspace, and return images a second of the command, and from shard to shard."""
    shutil.rmtree(work, ignore_errors=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "vggft", "featurize", data, "-w", work, "--quiet", *arguments], check=True)
    seconds = time.perf_counter() - began
    written = []
    for path in work.glob("cache/*/shards/*.h5"):
        with h5py.File(path) as file:
            written.append((path.stat().st_mtime, len(file["digest"])))
    times, rows = np.array(sorted(written)).T
    if rows.sum() != number:
        sys.exit(f"{rows.sum():.0f} of {number} images were computed")
    # As many shards as there are workers end first at about the same time: what was computed before the clock starts here.
    return number / seconds, rows[workers:].sum() / (times[-1] - times[workers - 1])


def summary(values: NDArray[np.float64]) -> str:
    """Return median, minimum and maximum."""
    return f"{np.median(values):.2f} ({values.min():.2f}–{values.max():.2f})"


if __name__ == "__main__":
    main()
