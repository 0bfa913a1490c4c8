"""The tables of a comparison: what the terminal and the page show. Every number in them, and more, is in the files."""

from collections.abc import Sequence
from dataclasses import dataclass

from featurize.wording import counted
from vggft.comparison.candidates import Source
from vggft.comparison.comparison import Comparison, Measured
from vggft.comparison.perturbations import UNPERTURBED
from vggft.comparison.report.record import CLASSES_SHOWN, Record, misclassified
from vggft.prediction.mistakes import SHOWN
from vggft.ui.table import auc_text, interval_text

_MODELS_SHOWN = 5  # in the terminal
_NETWORKS_SHOWN = 3

SOURCES: dict[Source, str] = {
    "test": "test images",
    "validation": "validation images",
    "folds": "images, each held out in one fold",
}


@dataclass(frozen=True)
class Table:
    """A table; the first column is text, the others are mostly numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def quality(record: Record, rows: Sequence[Measured]) -> Table:
    """Return the metrics of some of the models."""
    predictions = record.comparison.predictions
    title = f"{len(predictions.samples)} {SOURCES[predictions.source]}, lowest log-loss first"
    columns = ("model", "kind", "log-loss", "accuracy", "95% interval", "AUC", "balanced", "Brier", "AP", "ECE")
    return Table(title, columns, [_quality(row) for row in rows])


def most_important(record: Record) -> list[Measured]:
    """Return the first few models, the best networks, the baseline, and those that are compared first."""
    rows = record.comparison.rows
    tuned = [row for row in rows if row.candidate.kind == "tuned"]
    important = (*rows[:_MODELS_SHOWN], *tuned[:_NETWORKS_SHOWN], *record.comparison.in_focus)
    names = {row.name for row in important}
    listed = [row for row in rows if row.name in names]
    return listed if len(listed) + 1 < len(rows) else list(rows)


def _quality(row: Measured) -> tuple[str, ...]:
    m = row.metrics
    average_precision = "–" if m.average_precision is None else f"{m.average_precision:.3f}"
    numbers = (
        f"{m.log_loss:.4f}",
        f"{m.accuracy:.3f}",
        interval_text(m),
        auc_text(m),
        f"{m.balanced_accuracy:.3f}",
        f"{m.brier:.4f}",
    )
    return (row.name, row.candidate.kind, *numbers, average_precision, f"{m.calibration_error:.3f}")


def costs(record: Record) -> Table:
    """Return the costs of the models in focus."""
    rows = []
    for name in record.in_focus:
        cost = record.costs[name]
        total = "–" if cost.total is None else f"{cost.total:.1f}"
        latency = [f"{ms:.0f}" for ms in cost.latency.values()] or ["–", "–"]
        size = "–" if cost.size is None else f"{cost.size / 1e6:.1f}"
        rows.append((name, f"{cost.parameters:,}", f"{cost.training:.1f}", total, *latency, size))
    columns = ("cost", "parameters", "training (s)", "total (s)", "1 image (ms)", "32 images (ms)", "MB")
    shared = "" if record.featurizing is None else f"; total includes {record.featurizing:.0f} s of featurizing"
    return Table(f"Costs on this machine{shared}; MB of a head: without the pretrained network", columns, rows)


def perturbations(record: Record) -> Table | None:
    """Return accuracies on perturbed images, of the models in focus; None where none were measured."""
    perturbed, shown = record.perturbed, record.in_focus
    if perturbed is None or not shown:
        return None
    names = [name for name in perturbed.predicted[shown[0]] if name != UNPERTURBED]
    rows = []
    for model in shown:
        cells = [f"{perturbed.accuracy(model, n):.3f} {100 * perturbed.changed(model, n):.0f}%" for n in names]
        rows.append((model, f"{perturbed.accuracy(model, UNPERTURBED):.3f}", *cells))
    images = f"{len(perturbed.samples)} of the {record.perturbed_split} split"
    title = f"Perturbed images: accuracy, and the share of predictions that changed; {images}"
    return Table(title, ("model", "as it is", *names), rows)


def by_class(comparison: Comparison) -> Table | None:
    """Return the metrics of each class, of the model to use; None with many classes."""
    row, classes = comparison.used_row, comparison.predictions.classes
    if len(classes) > CLASSES_SHOWN:
        return None
    rows = []
    for i, (label, scores) in enumerate(zip(classes, row.metrics.per_class, strict=True)):
        wrong = [(int(number), classes[j]) for j, number in enumerate(row.confusion[i]) if j != i and number]
        most = sorted(wrong, key=lambda number_and_class: -number_and_class[0])[:3]
        confused_with = ", ".join(f"{name} {number}" for number, name in most)
        numbers = ["–" if value is None else f"{value:.3f}" for value in (scores.precision, scores.recall, scores.f1)]
        rows.append((label, str(scores.n), *numbers, confused_with or "–"))
    return Table(f"{row.name}, by class", ("class", "images", "precision", "recall", "F1", "confused with"), rows)


def mistakes(comparison: Comparison) -> Table | None:
    """Return the most confident mistakes of the model to use; None where it makes none."""
    wrong = misclassified(comparison)
    if not wrong:
        return None
    images = counted(len(comparison.predictions.samples), "image")
    shown = f"; {SHOWN} of {len(wrong)} shown" if len(wrong) > SHOWN else ""
    rows = [(w["path"], w["label"], w["predicted"], f"{w['score']:.3f}") for w in wrong[:SHOWN]]
    name = comparison.used_row.name
    title = f"{len(wrong)} of {images} misclassified by {name}, the most confident mistakes first{shown}"
    return Table(title, ("image", "label", "predicted", "score"), rows)
