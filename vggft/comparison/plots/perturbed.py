"""Accuracy on perturbed images."""

from typing import Any

from vggft.comparison.plots.plot import BASELINE, Plot, colours, render
from vggft.comparison.report.record import Record


def draw(record: Record) -> Plot | None:
    """Draw the accuracy for each perturbation, one row of dots per perturbation; None where none was measured."""
    perturbed, models = record.perturbed, record.in_focus
    if perturbed is None or not models:
        return None
    names = list(perturbed.predicted[models[0]])
    colour = colours(record.comparison)

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for i, model in enumerate(models):
            apart = 0.16 * (i - (len(models) - 1) / 2)  # equal values do not hide each other
            accuracies = [perturbed.accuracy(model, name) for name in names]
            rows = [row + apart for row in range(len(names))]
            axes.plot(accuracies, rows, "o", ms=7, color=colour.get(model, BASELINE), label=model)
        axes.set_yticks(range(len(names)), ["as it is", *names[1:]])
        axes.invert_yaxis()
        axes.set(xlabel=f"accuracy on {len(perturbed.samples)} images")
        axes.legend(fontsize="small")

    lowest = {model: min((perturbed.accuracy(model, name), name) for name in names[1:]) for model in models}
    alt = "; ".join(
        f"{model}: {perturbed.accuracy(model, names[0]):.3f} as it is, lowest {accuracy:.3f} ({name})"
        for model, (accuracy, name) in lowest.items()
    )
    return render("perturbations", "Perturbed images", f"Accuracy. {alt}.", (7, 0.38 * len(names) + 1), paint)
