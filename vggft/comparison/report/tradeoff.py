"""Quality against cost as PNG: what each method's log-loss took in seconds."""

import io
from pathlib import Path

from featurize import durable
from vggft.comparison.report.record import Record


def plot(path: Path, record: Record) -> None:
    """Draw log-loss against total seconds, a point a method; none where it is not known what featurizing took."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    evidence = record.comparison.evidence
    best = (*record.names.values(), record.comparison.verdict.use)
    kinds: dict[str, list[tuple[str, float, float]]] = {}
    for row in record.comparison.rows:
        cost = record.costs.get(row.name)
        if cost is not None and cost.total is not None:
            kinds.setdefault(row.candidate.kind, []).append((row.name, cost.total, row.metrics.log_loss))
    for kind, points in kinds.items():
        axes.scatter([x for _, x, _ in points], [y for _, _, y in points], label=kind)
        for name, x, y in points:
            if name in best or kind == "tuned":
                side = "right" if kind == "tuned" else "left"  # tuned networks are at the right edge: they take longest
                axes.annotate(name, (x, y), xytext=(0, 6), textcoords="offset points", fontsize="small", ha=side)
    if kinds:
        axes.set_xscale("log")
        axes.set_yscale("log")  # one head that is far off would leave the others in one spot
        axes.legend()
    axes.set(
        xlabel="seconds in all: featurizing, heads, fine-tuning (log scale)",
        ylabel=f"log-loss on {len(evidence.samples)} images ({evidence.source})",
        title="What it costs, and what it brings",
    )
    axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    durable.write_bytes(path, image.getvalue())
