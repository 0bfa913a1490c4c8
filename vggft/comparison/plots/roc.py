"""ROC curves of the models that are compared first, and of the baseline."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggft.comparison.comparison import Comparison, Measured
from vggft.comparison.plots.plot import INK, Plot, colours, render
from vggft.ui.table import auc_text

_RATES = 501  # false positive rates at which the curves of classes are averaged


def draw(comparison: Comparison) -> Plot | None:
    """Draw one curve per model; None where the area is undefined, because a class has no image.

    With two classes the second one is the positive class; with more, the curve is the mean over the classes, each against the
    rest, so that its area is the AUC of the table.
    """
    rows, targets, colour = comparison.in_focus, comparison.predictions.targets, colours(comparison)
    if any(row.metrics.auc is None for row in rows):
        return None

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], ":", lw=1, color=INK)
        for row in rows:
            axes.plot(*curve(row, targets), color=colour[row.name], label=f"{row.name}: {auc_text(row.metrics)}")
        axes.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
        axes.legend(fontsize="small", loc="lower right")

    areas = ", ".join(f"{row.name} {auc_text(row.metrics)}" for row in rows)
    return render("roc", "ROC curves", f"Area under the curve: {areas}.", (4.4, 4.2), paint)


def curve(row: Measured, targets: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return false and true positive rates, each (points,)."""
    from sklearn.metrics import roc_curve

    p = row.candidate.probabilities
    if p.shape[1] == 2:
        false, true, _ = roc_curve(targets == 1, p[:, 1])
        return false, true
    rates = np.linspace(0, 1, _RATES)
    of_classes = [roc_curve(targets == c, p[:, c])[:2] for c in range(p.shape[1])]
    return rates, np.mean([np.interp(rates, false, true) for false, true in of_classes], axis=0)
