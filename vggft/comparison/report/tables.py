"""The comparison in the terminal: tables and sentences. Every number in them, and more, is in the files."""

from collections.abc import Sequence

from vggft.comparison.comparison import Measured
from vggft.comparison.perturbations import UNPERTURBED
from vggft.comparison.report import sentences
from vggft.comparison.report.record import CLASSES_SHOWN, Record
from vggft.ui.console import Ui
from vggft.ui.table import auc_text, interval_text

_SOURCES = {
    "test": "test images",
    "validation": "validation images",
    "folds": "images, each held out in one fold",
}


def show(record: Record, ui: Ui) -> None:
    """Print the recommendation, the first pair, tables and what to do next."""
    comparison, predictions = record.comparison, record.comparison.predictions
    ui.print(sentences.recommendation(comparison))
    ui.print("")
    ui.print(sentences.first_pair(comparison))
    ui.print("")
    title = f"{len(predictions.samples)} {_SOURCES[predictions.source]}, lowest log-loss first"
    columns = ("model", "kind", "accuracy", "95% interval", "balanced", "log-loss", "Brier", "AUC", "AP", "ECE")
    ui.table(title, columns, [_quality(row) for row in comparison.rows])
    heads = [row.name for row in comparison.rows if row.candidate.kind != "tuned"]
    if record.ranked_by == "folds" and predictions.source != "folds" and heads[:1] != [comparison.contrast.head]:
        ui.print(
            f"{comparison.contrast.head} is the best head by cross-validation (vggft head), which uses more images."
        )
    if predictions.grouped:
        ui.print("Some of these images belong together. The intervals in this table ignore that, and are too narrow.")
    shown = _in_focus(record)
    _show_costs(record, shown, ui)
    _show_perturbations(record, shown, ui)
    _show_classes(comparison.used_row, predictions.classes, ui)
    for advice in record.advice:
        ui.print(sentences.advise(advice))
    if record.stale:
        ui.warn(f"stale, not compared (made from an earlier state of the data): {', '.join(record.stale)}")


def _quality(row: Measured) -> tuple[str, ...]:
    m = row.metrics
    average_precision = "–" if m.average_precision is None else f"{m.average_precision:.3f}"
    numbers = (
        f"{m.accuracy:.3f}",
        interval_text(m),
        f"{m.balanced_accuracy:.3f}",
        f"{m.log_loss:.4f}",
        f"{m.brier:.4f}",
    )
    return (row.name, row.candidate.kind, *numbers, auc_text(m), average_precision, f"{m.calibration_error:.3f}")


def _in_focus(record: Record) -> list[str]:
    """Return the models whose costs and perturbations are shown: the two compared first, and the best baseline."""
    comparison = record.comparison
    logistic = [row.name for row in comparison.rows if row.candidate.kind == "logistic"][:1]
    names = [comparison.contrast.network, comparison.contrast.head, *logistic]
    return [name for name in dict.fromkeys(names) if name in record.costs]


def _show_costs(record: Record, shown: Sequence[str], ui: Ui) -> None:
    rows = []
    for name in shown:
        cost = record.costs[name]
        total = "–" if cost.total is None else f"{cost.total:.1f}"
        latency = [f"{ms:.0f}" for ms in cost.latency.values()] or ["–", "–"]
        size = "–" if cost.size is None else f"{cost.size / 1e6:.1f}"
        rows.append((name, f"{cost.parameters:,}", f"{cost.training:.1f}", total, *latency, size))
    columns = ("cost", "parameters", "training, s", "total, s", "1 image, ms", "32 images, ms", "MB")
    shared = "" if record.featurizing is None else f"; total includes {record.featurizing:.0f} s of featurizing"
    ui.table(f"Costs on this machine{shared}; MB of a head: without the pretrained network", columns, rows)


def _show_perturbations(record: Record, shown: Sequence[str], ui: Ui) -> None:
    perturbed = record.perturbed
    if perturbed is None:
        return
    names = [name for name in perturbed.predicted[shown[0]] if name != UNPERTURBED]
    rows = []
    for model in shown:
        cells = [f"{perturbed.accuracy(model, n):.3f} {100 * perturbed.changed(model, n):.0f}%" for n in names]
        rows.append((model, f"{perturbed.accuracy(model, UNPERTURBED):.3f}", *cells))
    images = f"{len(perturbed.samples)} of the {record.perturbed_split} split"
    title = f"Perturbed images: accuracy, and the share of predictions that changed; {images}"
    ui.table(title, ("model", "as it is", *names), rows)


def _show_classes(row: Measured, classes: Sequence[str], ui: Ui) -> None:
    if len(classes) > CLASSES_SHOWN:
        ui.say(f"{len(classes)} classes: compare.json has precision, recall, F1 and confusions of each")
        return
    rows = []
    for i, (label, scores) in enumerate(zip(classes, row.metrics.per_class, strict=True)):
        wrong = [(int(number), classes[j]) for j, number in enumerate(row.confusion[i]) if j != i and number]
        most = sorted(wrong, key=lambda number_and_class: -number_and_class[0])[:3]
        confused_with = ", ".join(f"{name} {number}" for number, name in most)
        numbers = ["–" if value is None else f"{value:.3f}" for value in (scores.precision, scores.recall, scores.f1)]
        rows.append((label, str(scores.n), *numbers, confused_with or "–"))
    ui.table(f"{row.name}, by class", ("class", "images", "precision", "recall", "F1", "confused with"), rows)
