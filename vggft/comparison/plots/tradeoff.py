"""Quality against cost: the log-loss of each model, and the seconds that it took."""

from typing import Any

from vggft.comparison.plots.plot import BASELINE, HEAD, NETWORK, OTHER, Plot, render
from vggft.comparison.report.record import Record

_COLOURS = {"tuned": NETWORK, "dense": HEAD, "logistic": BASELINE}


def draw(record: Record) -> Plot | None:
    """Draw log-loss against total seconds, one point per model; None where the time of featurizing is not known."""
    predictions = record.comparison.predictions
    named = record.comparison.in_workspace.values()
    kinds: dict[str, list[tuple[str, float, float]]] = {}
    for row in record.comparison.rows:
        cost = record.costs.get(row.name)
        if cost is not None and cost.total is not None:
            kinds.setdefault(row.candidate.kind, []).append((row.name, cost.total, row.metrics.log_loss))
    if not kinds:
        return None

    def paint(figure: Any) -> None:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes = figure.subplots()
        for kind, points in kinds.items():
            colour = _COLOURS.get(kind, OTHER)
            axes.scatter([x for _, x, _ in points], [y for _, _, y in points], label=kind, color=colour)
            for name, x, y in points:
                if name in named or kind == "tuned":
                    side = (
                        "right" if kind == "tuned" else "left"
                    )  # tuned networks are at the right edge: they take longest
                    axes.annotate(name, (x, y), xytext=(0, 6), textcoords="offset points", fontsize="small", ha=side)
        axes.set_xscale("log")
        axes.set_yscale("log")  # one very bad head would squeeze all others together
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter(NullFormatter())
        axes.legend()
        axes.set(
            xlabel="total seconds: featurizing, training (log scale)",
            ylabel=f"log-loss on {len(predictions.samples)} images ({predictions.source})",
        )

    points = "; ".join(
        f"{name}: {x:.0f} s, {y:.4f}" for points in kinds.values() for name, x, y in points if name in named
    )
    alt = f"Seconds from images to model, and log-loss, of {sum(map(len, kinds.values()))} models; {points}."
    return render("tradeoff", "Quality against cost", alt, (7, 4.2), paint)
