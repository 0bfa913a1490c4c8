"""The differences that the verdict is about, with their intervals."""

from typing import Any

from vggft.comparison.comparison import Comparison
from vggft.comparison.plots.plot import HEAD, INK, Plot, render
from vggft.comparison.verdict import RELEVANT


def draw(comparison: Comparison) -> Plot | None:
    """Draw the differences of log-loss and accuracy of the first pair; None where there is none."""
    pair = comparison.difference
    if pair is None:
        return None
    points = tuple(
        100 * value for value in (pair.accuracy_interval[0], pair.accuracy_difference, pair.accuracy_interval[1])
    )
    losses = (pair.log_loss_interval[0], pair.log_loss_difference, pair.log_loss_interval[1])

    def paint(figure: Any) -> None:
        panels = {"log-loss (lower is better)": losses, "accuracy, points (higher is better)": points}
        for axes, (label, (low, middle, high)) in zip(figure.subplots(1, 2), panels.items(), strict=True):
            axes.axvline(0, lw=1, color=INK)
            axes.plot([low, high], [0, 0], "-", lw=3, color=HEAD, solid_capstyle="butt")
            axes.plot([middle], [0], "o", ms=9, color=HEAD)
            axes.set(yticks=[], ylim=(-1, 1), xlabel=label)
            axes.spines["left"].set_visible(False)
            axes.margins(x=0.15)
        figure.axes[0].axvspan(-RELEVANT, RELEVANT, alpha=0.15, color=HEAD, lw=0)
        figure.suptitle(f"{pair.a} minus {pair.b}, with 95% intervals", fontsize="medium")

    alt = f"{pair.a} minus {pair.b}. Shaded: differences of log-loss below {RELEVANT}, too small to matter."
    return render("difference", "The difference", alt, (9, 1.9), paint)
