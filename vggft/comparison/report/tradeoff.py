"""Quality against cost as PNG: the log-loss of each model, and the seconds that it took."""

import io
from pathlib import Path

from featurize.disk import durable
from vggft.comparison.report.record import Record


def plot(path: Path, record: Record) -> None:
    """Draw log-loss against total seconds, one point per model; none where the time of featurizing is not known."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    predictions = record.comparison.predictions
    named = record.comparison.in_workspace.values()
    kinds: dict[str, list[tuple[str, float, float]]] = {}
    for row in record.comparison.rows:
        cost = record.costs.get(row.name)
        if cost is not None and cost.total is not None:
            kinds.setdefault(row.candidate.kind, []).append((row.name, cost.total, row.metrics.log_loss))
    for kind, points in kinds.items():
        axes.scatter([x for _, x, _ in points], [y for _, _, y in points], label=kind)
        for name, x, y in points:
            if name in named or kind == "tuned":
                side = "right" if kind == "tuned" else "left"  # tuned networks are at the right edge: they take longest
                axes.annotate(name, (x, y), xytext=(0, 6), textcoords="offset points", fontsize="small", ha=side)
    if kinds:
        axes.set_xscale("log")
        axes.set_yscale("log")  # one very bad head would squeeze all others together
        axes.legend()
    axes.set(
        xlabel="total seconds: featurizing, training (log scale)",
        ylabel=f"log-loss on {len(predictions.samples)} images ({predictions.source})",
        title="Quality against cost",
    )
    axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    durable.write_bytes(path, image.getvalue())
