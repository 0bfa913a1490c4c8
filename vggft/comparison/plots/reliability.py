"""Reliability diagrams: how often predictions of a given confidence are correct."""

from typing import Any

import numpy as np

from heads.metrics import CALIBRATION_BINS, reliability
from vggft.comparison.comparison import Comparison
from vggft.comparison.plots.plot import INK, Plot, colours, render


def draw(comparison: Comparison) -> Plot:
    """Draw accuracy against mean confidence, in the bins of the calibration error; a dot's area is its number of images."""
    rows, targets, colour = comparison.in_focus, comparison.predictions.targets, colours(comparison)

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", lw=1, color=INK)
        for row in rows:
            bins = reliability(row.candidate.probabilities, targets)
            filled = bins.n > 0
            x, y, n = bins.confidence[filled], bins.accuracy[filled], bins.n[filled]
            label = f"{row.name}: ECE {row.metrics.calibration_error:.3f}"
            axes.plot(x, y, "-", lw=1, color=colour[row.name], label=label)
            axes.scatter(x, y, s=8 + 150 * n / np.max(n), alpha=0.6, lw=0, color=colour[row.name])
        axes.set(xlabel="confidence of the predicted class", ylabel="share that is correct", aspect="equal")
        axes.legend(fontsize="small", loc="lower right")

    errors = ", ".join(f"{row.name} {row.metrics.calibration_error:.3f}" for row in rows)
    alt = (
        f"Expected calibration error with {CALIBRATION_BINS} bins: {errors}. Above the dotted line a model is too cautious, "
        "below it too sure."
    )
    return render("reliability", "Reliability", alt, (4.4, 4.2), paint)
