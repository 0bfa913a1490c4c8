"""Coverage of the intervals of a comparison, on losses as they occur: with a few that are very large.

    python -m benchmarks.interval_coverage vggft-work/report [--images 40 80 150 300] [--rounds 200]

The predictions of a comparison (predictions.csv) are the population. Samples are drawn from it, and for each sample and each pair
of models, 95% intervals of the differences in log-loss and accuracy are computed by `vggft.comparison.statistics` and by the
percentiles of a plain bootstrap. The worst pair is the pair with the lowest coverage.
"""

import argparse
import csv
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heads.metrics import losses, losses_otherwise
from vggft.comparison import statistics


def main() -> None:
    """Draw, count and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=[40, 80, 150, 300])
    parser.add_argument("--rounds", type=int, default=200)
    options = parser.parse_args()
    loss, otherwise, right = read(options.report / "predictions.csv")
    population, models = loss.shape
    pairs = list(combinations(range(models), 2))
    print(f"{models} models on {population} images, {len(pairs)} pairs; coverage in % (worst pair):")
    print("images  log-loss: vggft  bootstrap alone  accuracy: vggft  bootstrap alone")
    for n in options.images:
        held = np.zeros((4, len(pairs)))
        for round_ in range(options.rounds):
            drawn = np.random.default_rng(round_).integers(0, population, n)
            ours = statistics.resample(loss[drawn], otherwise[drawn], right[drawn], list(map(str, range(n))))
            weights = np.random.default_rng(round_).multinomial(n, np.full(n, 1 / n), 2000) / n
            alone = [weights @ values[drawn] for values in (loss, right)]
            for k, (a, b) in enumerate(pairs):
                by_loss, by_accuracy = (np.percentile(own[:, a] - own[:, b], [2.5, 97.5]) for own in alone)
                intervals = ours.log_loss_interval(a, b), by_loss, ours.accuracy_interval(a, b), by_accuracy
                truths = np.repeat([(values[:, a] - values[:, b]).mean() for values in (loss, 1.0 * right)], 2)
                held[:, k] += [low <= true <= high for (low, high), true in zip(intervals, truths, strict=True)]
        held *= 100 / options.rounds
        print(f"{n:6}  " + "  ".join(f"{own.mean():7.0f} ({own.min():3.0f})" for own in held))


def read(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return log-losses, those of the other classes, and whether the prediction is correct, (images, models) each."""
    rows = defaultdict(list)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            rows[row["method"]].append(row)
    columns = [name for name in next(iter(rows.values()))[0] if name.startswith("p_")]
    found = []
    for own in rows.values():
        p = np.array([[float(row[name]) for name in columns] for row in own])
        targets = np.array([columns.index(f"p_{row['label']}") for row in own])
        found.append((losses(p, targets), losses_otherwise(p, targets), p.argmax(axis=1) == targets))
    loss, otherwise, right = (np.stack(columns, axis=1) for columns in zip(*found, strict=True))
    return loss, otherwise, right


if __name__ == "__main__":
    main()
