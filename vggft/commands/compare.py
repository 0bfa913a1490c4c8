"""Heads against tuned networks: the table, the sentence, and the files that hold every number shown."""

from typing import Any

from featurize import durable
from vggft.compare import Comparison, compare
from vggft.console import Ui
from vggft.report import curves
from vggft.table import auc_text, interval_text
from vggft.workspace import Workspace


def run(workspace: Workspace, ui: Ui) -> dict[str, Any]:
    """Compare all fresh methods and write compare.json, compare.csv, predictions.csv and curves.png.

    Raises:
        VggftError: nothing to compare yet; the message says what to run.
    """
    _ = workspace.settings  # before the lock makes a folder: is there anything here?
    folder = workspace.report
    with workspace.writing():
        found = compare(workspace)
        result = _as_json(found)
        folder.mkdir(exist_ok=True)
        durable.write_json(folder / "compare.json", result)
        header = list(result["methods"][0])
        durable.write_csv(folder / "compare.csv", header, [list(row.values()) for row in result["methods"]])
        _write_predictions(workspace, found)
        histories = {row.method.name: row.method.history for row in found.rows if row.method.history}
        baselines = {
            row.method.name: (row.method.validation.log_loss, row.method.validation.accuracy)
            for row in found.rows
            if not row.method.history
        }
        curves.plot(folder / "curves.png", histories, baselines)
    _show(found, ui)
    ui.print(f"report: {folder} (compare.json, compare.csv, predictions.csv, curves.png)")
    return {**result, "report": str(folder)}


def _as_json(found: Comparison) -> dict[str, Any]:
    contrast = found.contrast
    return {
        "measured_on": found.measured_on,
        "methods": [row.as_json() for row in found.rows],
        "recommendation": found.recommendation,
        "contrast": {
            "head": contrast.head,
            "tuned": contrast.tuned,
            "log_loss_difference": contrast.difference,
            "log_loss_difference_interval": list(contrast.interval),
        },
        "stale": list(found.stale),
    }


def _write_predictions(workspace: Workspace, found: Comparison) -> None:
    """One row an image and method, so that anyone can recompute the table."""
    classes = workspace.dataset.classes
    rows = [
        (path, classes[target], row.method.name, *(float(value) for value in p))
        for row in found.rows
        for path, target, p in zip(found.paths, found.targets, row.probabilities, strict=True)
    ]
    durable.write_csv(workspace.report / "predictions.csv", ["path", "label", "method", *classes], rows)


def _show(found: Comparison, ui: Ui) -> None:
    rows = []
    for row in found.rows:
        m = row.metrics
        numbers = (f"{m.accuracy:.3f}", interval_text(m), f"{m.log_loss:.4f}", auc_text(m))
        rows.append((row.method.name, row.method.kind, *numbers, f"{row.method.seconds:.1f}"))
    columns = ("method", "kind", "accuracy", "95% interval", "log-loss", "AUC", "training, s")
    ui.table(f"{found.rows[0].metrics.n} {found.measured_on} images, lowest log-loss first", columns, rows)
    if found.stale:
        ui.warn(f"stale, not compared (made from an earlier state of the data): {', '.join(found.stale)}")
    ui.print(found.recommendation)
