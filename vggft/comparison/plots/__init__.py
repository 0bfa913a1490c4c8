"""The plots of a comparison, each as PNG and as SVG."""

from collections.abc import Sequence

from vggft.comparison.plots import confusion, curves, difference, perturbed, reliability, roc, tradeoff
from vggft.comparison.plots.plot import Plot, colours
from vggft.comparison.report.record import Record
from vggft.prediction.model import Model

_NAMES = ("difference", "curves", "curves-all", "confusion", "roc", "reliability", "tradeoff", "perturbations")


def files(plots: Sequence[Plot]) -> dict[str, bytes | None]:
    """Return file name → content; None for plots that there may be, but are not among these."""
    absent = {f"{name}.{form}": None for name in _NAMES for form in ("png", "svg")}
    return absent | {name: content for plot in plots for name, content in plot.files.items()}


def draw(record: Record, models: Sequence[Model]) -> list[Plot]:
    """Draw everything there is to draw, in the order of the page.

    Args:
        models: the fresh models of the workspace, for their learning curves.
    """
    comparison = record.comparison
    plots = [
        difference.draw(comparison),
        curves.draw(models, colours(comparison)),
        curves.draw_all(models),
        confusion.draw(comparison),
        roc.draw(comparison),
        reliability.draw(comparison),
        tradeoff.draw(record),
        perturbed.draw(record),
    ]
    return [plot for plot in plots if plot is not None]
