"""The comparison for people: what is shown in the terminal; every number of it, and more, is in the files."""

from collections.abc import Sequence

from vggft.comparison.comparison import Measured
from vggft.comparison.perturbations import UNPERTURBED
from vggft.comparison.report.record import CLASSES_SHOWN, Record
from vggft.comparison.verdict import Pair
from vggft.ui.console import Ui
from vggft.ui.table import auc_text, interval_text

_SOURCES = {
    "test": "test images",
    "validation": "validation images",
    "folds": "images, each predicted out of its fold",
}


def show(record: Record, ui: Ui) -> None:
    """Print tables, contrast and recommendation."""
    found, evidence = record.comparison, record.comparison.evidence
    title = f"{len(evidence.samples)} {_SOURCES[evidence.source]}, lowest log-loss first"
    columns = ("method", "kind", "accuracy", "95% interval", "balanced", "log-loss", "Brier", "AUC", "AP", "ECE")
    ui.table(title, columns, [_quality(row) for row in found.rows])
    if evidence.grouped:
        ui.print(
            "Some of these images belong together: the intervals in this table, which do not know of it, are too narrow."
        )
    shown = _in_focus(record)
    _show_costs(record, shown, ui)
    _show_perturbations(record, shown, ui)
    used = found.contrast.a if found.verdict.use == record.names[found.contrast.a] else found.contrast.b
    _show_classes(found.row(used), evidence.classes, ui)
    ui.print(_contrast_text(found.contrast, found.no_p_value))
    ui.print(f"\n{found.verdict.sentence}")
    for offer in record.offers:
        ui.print(offer)
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
    """Return the methods whose costs and probes are shown: the two that are compared first, and the best baseline."""
    found = record.comparison
    logistic = [row.name for row in found.rows if row.candidate.kind == "logistic"][:1]
    names = [record.names[found.contrast.a], record.names[found.contrast.b], *logistic]
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
    shared = "" if record.featurizing is None else f"; total: with {record.featurizing:.0f} s of featurizing for all"
    ui.table(f"Costs here{shared}; MB of a head: without VGG16", columns, rows)


def _show_perturbations(record: Record, shown: Sequence[str], ui: Ui) -> None:
    perturbed = record.perturbed
    if perturbed is None:
        return
    names = list(perturbed.predicted[shown[0]])
    rows = []
    for name in shown:
        cells = [f"{perturbed.accuracy(name, UNPERTURBED):.3f}"]
        cells += [
            f"{perturbed.accuracy(name, perturbation):.3f} {100 * perturbed.changed(name, perturbation):.0f}%"
            for perturbation in names
            if perturbation != UNPERTURBED
        ]
        rows.append((name, *cells))
    images = f"{len(perturbed.samples)} {record.perturbed_split} images"
    title = f"Perturbed pictures: accuracy, and the share of predictions that changed; {images}"
    ui.table(title, ("model", "as it is", *(name for name in names if name != UNPERTURBED)), rows)


def _show_classes(row: Measured, classes: Sequence[str], ui: Ui) -> None:
    if len(classes) > CLASSES_SHOWN:
        ui.say(f"{len(classes)} classes: precision, recall, F1 and confusions of each are in compare.json")
        return
    rows = []
    for i, (label, own) in enumerate(zip(classes, row.metrics.per_class, strict=True)):
        others = [(int(number), classes[j]) for j, number in enumerate(row.confusion[i]) if j != i and number]
        taken_for = ", ".join(f"{name} {number}" for number, name in sorted(others, key=lambda one: -one[0])[:3])
        scores = ["–" if value is None else f"{value:.3f}" for value in (own.precision, own.recall, own.f1)]
        rows.append((label, str(own.n), *scores, taken_for or "–"))
    ui.table(f"{row.name}, by class", ("class", "images", "precision", "recall", "F1", "taken for"), rows)


def _contrast_text(pair: Pair, no_p_value: str | None) -> str:
    low, high = (100 * value for value in pair.accuracy_interval)
    accuracy = f"{100 * pair.accuracy_difference:+.1f} points of accuracy ({low:+.1f} to {high:+.1f})"
    low, high = pair.log_loss_interval
    loss = f"{pair.log_loss_difference:+.4f} of log-loss ({low:+.4f} to {high:+.4f})"
    apart = "" if pair.independent == pair.n else f" ({pair.independent} images, one of each set of near-duplicates)"
    p = f"no p-value: {no_p_value}" if pair.p_value is None else f"McNemar's exact p {pair.p_value:.3g}{apart}"
    return f"{pair.a} against {pair.b}: {accuracy}, {loss}; 95% bootstrap intervals; {p}"
