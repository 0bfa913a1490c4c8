"""Confusion matrices of the models that are compared first, and of the baseline."""

from typing import Any

import numpy as np

from vggft.comparison.comparison import Comparison
from vggft.comparison.plots.plot import Plot, render
from vggft.ui.visible import shortened, visible

_NUMBERED = 12  # classes; with more, the cells are too small for numbers
_NAMED = 40  # classes; with more, the rows are too low for names
_LONGEST, _TITLE = 18, 34  # characters of the name of a class, and of a model above its matrix


def draw(comparison: Comparison) -> Plot:
    """Draw one matrix per model: a row per true class, a column per predicted one; colour: share of the row."""
    rows, classes = comparison.in_focus, list(map(visible, comparison.predictions.classes))
    names = [shortened(name, _LONGEST) for name in classes] if len(classes) <= _NAMED else []
    side = 3.2 if len(classes) <= _NUMBERED else 4.2

    def paint(figure: Any) -> None:
        for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
            shares = row.confusion / np.maximum(1, row.confusion.sum(axis=1, keepdims=True))
            axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
            axes.grid(False)
            small = "small" if len(classes) <= _NUMBERED else "xx-small"
            axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 3 else 0, fontsize=small)
            axes.set_yticks(range(len(names)), names, fontsize=small)
            axes.set(xlabel="predicted", ylabel="true")
            axes.set_title(shortened(row.name, _TITLE), fontsize="small")
            if len(classes) <= _NUMBERED:
                for (i, j), number in np.ndenumerate(row.confusion):
                    if number:
                        colour = "white" if shares[i, j] > 0.5 else "black"
                        axes.text(j, i, str(number), ha="center", va="center", fontsize="small", color=colour)

    wrong = "; ".join(f"{row.name}: {most_confused(row.confusion, classes)}" for row in rows)
    return render(
        "confusion", "Confusion matrices", f"Most confused classes. {wrong}.", (side * len(rows) + 0.6, side), paint
    )


def most_confused(matrix: Any, classes: Any, most: int = 3) -> str:
    """Return the most frequent mistakes in words."""
    wrong = [(int(n), classes[i], classes[j]) for (i, j), n in np.ndenumerate(matrix) if i != j and n]
    first = sorted(wrong, key=lambda mistake: -mistake[0])[:most]
    return ", ".join(f"{true} for {predicted} {n}" for n, true, predicted in first) or "none"
