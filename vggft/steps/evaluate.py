"""A model on a labelled folder, from the pixels: every metric, and the predictions that they are computed from."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import durable
from featurize.errors import VggftError
from featurize.wording import counted
from heads import predictions
from heads.metrics import Metrics, confusion, measure
from vggft.prediction import judging, labelled, models, scoring
from vggft.steps.options import EvaluateOptions
from vggft.ui.console import Ui
from vggft.ui.table import auc_text, interval_text
from vggft.workspace.filling import decoder
from vggft.workspace.workspace import Workspace

_CLASSES_SHOWN = 20  # rows of a table that fit on a screen
_CONFUSION_SHOWN = 10  # columns that fit on a line


@dataclass
class _Found:
    """What came of the files: images with their targets and probabilities, and those that were rejected."""

    paths: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    probabilities: list[NDArray[np.float64]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=lambda: {"train": 0, "validate": 0, "test": 0})


def run(workspace: Workspace, options: EvaluateOptions, ui: Ui) -> dict[str, Any]:
    """Predict every image below a folder's class folders, and judge the model of that name, the recommended or the best one.

    Writes evaluate.json and evaluate-predictions.csv into the report folder.

    Raises:
        VggftError: a folder that is none of the model's classes, no images, no model yet, an unknown one, or a report
            folder that cannot be written.
    """
    folder = options.folder.expanduser()
    choice = models.chosen(workspace, options.model, lambda error: ui.warn(f"left out: {error}"))
    method = choice.method
    classes = method.classes
    files = labelled.files(folder, classes)
    workspace.report_folder()
    ui.say(f"model: {method.name} ({choice.why})")
    found = _Found()
    splits = {s.digest: s.split for split in found.seen for s in workspace.dataset.accepted(split)}
    decode = decoder(workspace.settings.fingerprint)
    scored = scoring.scored((file for _, file in files), decode, judging.from_pixels(method, workspace))
    with contextlib.closing(scored), ui.progress("evaluating", len(files)) as advance:
        for done, ((label, _), one) in enumerate(zip(files, scored, strict=True), start=1):
            if one.probabilities is None:
                ui.warn(f"rejected {one.path}: {one.reason}")
                found.rejected.append({"path": str(one.path), "reason": one.reason})
            else:
                found.paths.append(str(one.path))
                found.targets.append(classes.index(label))
                found.probabilities.append(one.probabilities)
                if one.digest in splits:
                    found.seen[splits[one.digest]] += 1
            advance(done)
    if not found.paths:
        first = found.rejected[0]
        raise VggftError(
            f"{folder}: none of its files can be used ({len(files)} in all; the first: {first['path']}: {first['reason']}). "
            "Expected pictures."
        )
    p, targets = np.stack(found.probabilities), np.asarray(found.targets, np.int64)
    metrics, matrix = measure(p, targets), confusion(p, targets)
    ui.print(f"{method.name} on {counted(metrics.n, 'image')} of {folder}")
    _show(metrics, classes, matrix, ui)
    _warn(found, len(found.paths), ui)
    result = {
        "model": method.name,
        "kind": method.kind,
        "folder": str(folder.absolute()),
        "classes": list(classes),
        "metrics": metrics.as_json(),
        "confusion": matrix.tolist(),
        "seen": found.seen,
        "rejected": found.rejected,
    }
    return {**result, **_write(workspace, result, found, classes, ui)}


def _warn(found: _Found, n: int, ui: Ui) -> None:
    """Say what makes the numbers better than they are."""
    train, validate = found.seen["train"], found.seen["validate"]
    if train or validate:
        ui.warn(
            f"of {counted(n, 'image')} {train} among those the model was trained on, {validate} among those that chose it: "
            "the numbers are optimistic"
        )
    if found.seen["test"]:
        ui.warn(
            f"of {counted(n, 'image')} {found.seen['test']} of the test split: whoever chooses by these numbers has no images "
            "left that chose nothing"
        )


def _show(m: Metrics, classes: Sequence[str], matrix: NDArray[np.int64], ui: Ui) -> None:
    rows = [
        ("accuracy", f"{m.accuracy:.4f}"),
        ("95% interval", interval_text(m)),
        ("balanced accuracy", f"{m.balanced_accuracy:.4f}"),
        ("log-loss", f"{m.log_loss:.4f}"),
        ("Brier score", f"{m.brier:.4f}"),
        ("AUC", auc_text(m)),
        ("average precision", _number(m.average_precision)),
        ("calibration error", f"{m.calibration_error:.4f}"),
    ]
    ui.table("All classes together", ("metric", "value"), rows)
    if m.auc_reason:
        ui.print(f"no AUC and no average precision: {m.auc_reason}")
    if len(classes) <= _CLASSES_SHOWN:
        by_class = [
            (name, str(one.n), *map(_number, (one.precision, one.recall, one.f1, one.auc, one.average_precision)))
            for name, one in zip(classes, m.per_class, strict=True)
        ]
        columns = ("class", "images", "precision", "recall", "F1", "AUC", "average precision")
        ui.table("Each class against the others", columns, by_class)
    if len(classes) <= _CONFUSION_SHOWN:
        counts = [(name, *map(str, row)) for name, row in zip(classes, matrix.tolist(), strict=True)]
        ui.table("Confusion (rows: truth)", ("", *classes), counts)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _write(
    workspace: Workspace, result: Mapping[str, Any], found: _Found, classes: Sequence[str], ui: Ui
) -> dict[str, str]:
    """Write the result, and a row an image, so that anyone can recompute it; return where."""
    header = ["path", "label", "predicted", *predictions.columns(classes)]
    rows = [
        (path, classes[target], classes[int(p.argmax())], *p.tolist())
        for path, target, p in zip(found.paths, found.targets, found.probabilities, strict=True)
    ]
    report, table = workspace.report / "evaluate.json", workspace.report / "evaluate-predictions.csv"
    with workspace.writing():
        workspace.report.mkdir(exist_ok=True)
        durable.write_csv(table, header, rows)
        durable.write_json(report, result)
    ui.print(f"written: {report} and {table.name}")
    return {"report": str(report), "predictions": str(table)}
