"""Evaluating a model on a folder of labelled images: metrics, and the predictions behind them."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data import labels
from featurize.data.folders import ignored
from featurize.disk import forms
from featurize.errors import VggftError
from featurize.process import places
from featurize.wording import counted
from heads import predictions
from heads.metrics import Metrics, confusion, measure
from vggft.prediction import inference, labelled, scoring, selection
from vggft.prediction.mistakes import SHOWN, mistakes
from vggft.prediction.scoring import File
from vggft.steps import scan_report
from vggft.steps.options import EvaluateOptions
from vggft.ui.console import Ui
from vggft.ui.table import auc_text, interval_text
from vggft.workspace.backbone import decoder
from vggft.workspace.workspace import Workspace

_CLASSES_SHOWN = 20  # classes; more rows do not fit on a screen
_CONFUSION_SHOWN = 10  # classes; more columns do not fit on a line


@dataclass
class _Evaluated:
    """The predicted images with their targets and probabilities, the rejected files, and known images by split.

    Attributes:
        alike: digest → target → the first path with these bytes.
    """

    paths: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    probabilities: list[NDArray[np.float64]] = field(default_factory=list)
    rejected: list[dict[str, str]] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=lambda: {"train": 0, "validate": 0, "test": 0})
    alike: dict[str, dict[int, str]] = field(default_factory=lambda: defaultdict(dict))

    def conflicts(self) -> list[list[str]]:
        """Return the identical images under different labels: of each, one path for each label."""
        return [list(paths.values()) for paths in self.alike.values() if len(paths) > 1]


def run(workspace: Workspace, options: EvaluateOptions, ui: Ui) -> dict[str, Any]:
    """Predict every labelled image of a folder, and compute metrics of the named, recommended or best model.

    Writes evaluate.json and evaluate-predictions.csv into the report folder.

    Raises:
        VggftError: folders that are not the model's classes, no images, no such model, or a report folder that cannot be
            written.
    """
    folder = options.folder
    choice = selection.choose(workspace, options.model, lambda error: ui.warn(f"left out: {error}"))
    classes = choice.model.classes
    files = _files(options, folder, classes, ui)
    workspace.report_folder()
    ui.say(f"model: {choice.model.name} ({choice.reason})")
    if choice.age:
        ui.warn(choice.age)
    evaluated = _Evaluated()
    splits = {s.digest: s.split for split in evaluated.seen for s in workspace.dataset.accepted(split)}
    decode = decoder(workspace.settings.fingerprint)
    scorer = inference.from_pixels(choice.model, workspace)
    scored_files = scoring.scored((file for _, file in files), decode, scorer)
    with (
        contextlib.closing(scorer),
        contextlib.closing(scored_files),
        ui.progress("evaluating", len(files)) as advance,
    ):
        for done, ((label, _), scored) in enumerate(zip(files, scored_files, strict=True), start=1):
            if scored.probabilities is None:
                ui.warn(f"rejected {scored.path}: {scored.reason}")
                evaluated.rejected.append({"path": str(scored.path), "reason": scored.reason})
            else:
                evaluated.paths.append(str(scored.path))
                evaluated.targets.append(classes.index(label))
                evaluated.alike[scored.digest].setdefault(evaluated.targets[-1], evaluated.paths[-1])
                evaluated.probabilities.append(scored.probabilities)
                if scored.digest in splits:
                    evaluated.seen[splits[scored.digest]] += 1
            advance(done)
    if scorer.note:
        ui.warn(scorer.note)
    if not evaluated.paths:
        first = evaluated.rejected[0]
        raise VggftError(
            f"{folder}: none of its {counted(len(files), 'file')} can be used (the first: {first['path']}: {first['reason']}). "
            "Expected images."
        )
    p, targets = np.stack(evaluated.probabilities), np.asarray(evaluated.targets, np.int64)
    metrics, matrix = measure(p, targets), confusion(p, targets)
    conflicts, misclassified = evaluated.conflicts(), mistakes(evaluated.paths, targets, p, classes)
    result = {
        "model": choice.model.name,
        "stale": bool(choice.age),
        "kind": choice.model.kind,
        "folder": str(folder.absolute()),
        "classes": list(classes),
        "metrics": metrics.as_json(),
        "confusion": matrix.tolist(),
        "seen": evaluated.seen,
        "misclassified": misclassified,
        "conflicts": conflicts,
        "rejected": evaluated.rejected,
    }
    written = _write(workspace, result, evaluated, classes)  # before anything is printed, which may fail
    ui.print(f"{choice.model.name} on {counted(metrics.n, 'image')} of {folder}")
    _show(metrics, classes, matrix, ui)
    _show_misclassified(misclassified, written["report"], ui)
    if conflicts:
        ui.warn(
            f"{counted(len(conflicts), 'image')} under different labels, of which at most one is right (first: "
            f"{', '.join(conflicts[0])})"
        )
    if choice.age:
        _warn_of_age(evaluated.seen, metrics.n, ui)
    else:
        _warn(evaluated.seen, metrics.n, ui)
    ui.print(f"written: {written['report']} and {Path(written['predictions']).name}")
    return {**result, **written}


def _files(options: EvaluateOptions, folder: Path, classes: Sequence[str], ui: Ui) -> list[tuple[str, File]]:
    notes: list[Path] = []
    if options.labels is not None and not folder.is_dir():
        raise VggftError(f"{folder}: no such folder. Expected the folder of the files in {options.labels}.")
    if options.labels is None:
        files = labelled.files(folder, classes, notes.append)
    else:
        found = labels.read(options.labels, folder, notes.append)
        scan_report.tell_of_labels(found, str(options.labels), ui)
        files = labelled.in_table(found, options.labels, places.resolved(folder), classes)
    if notes:
        ui.say(ignored(notes))
    return files


def _warn(seen: Mapping[str, int], n: int, ui: Ui) -> None:
    """Warn of images that make the numbers optimistic, and of the use of the test split."""
    if seen["train"] or seen["validate"]:
        ui.warn(
            f"the metrics are optimistic: of {counted(n, 'image')}, {seen['train']} are in the training split and "
            f"{seen['validate']} in the validation split"
        )
    if seen["test"]:
        ui.warn(
            f"{seen['test']} of {counted(n, 'image')} are in the test split. Selecting models on these numbers uses up the test "
            "split"
        )


def _warn_of_age(seen: Mapping[str, int], n: int, ui: Ui) -> None:
    """Warn of images that may make the numbers of a stale model optimistic: its splits were others."""
    if any(seen.values()):
        ui.warn(
            f"{sum(seen.values())} of {counted(n, 'image')} are in this workspace: the model was trained on an earlier state of "
            "the data, so they may have trained or selected it, and the numbers may be optimistic"
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
    ui.table("All classes", ("metric", "value"), rows)
    if m.auc_reason:
        ui.print(f"no AUC and no average precision: {m.auc_reason}")
    if len(classes) <= _CLASSES_SHOWN:
        by_class = [
            (name, str(c.n), *map(_number, (c.precision, c.recall, c.f1, c.auc, c.average_precision)))
            for name, c in zip(classes, m.per_class, strict=True)
        ]
        columns = ("class", "images", "precision", "recall", "F1", "AUC", "average precision")
        ui.table("Each class against the rest", columns, by_class)
    if len(classes) <= _CONFUSION_SHOWN:
        counts = [(name, *map(str, row)) for name, row in zip(classes, matrix.tolist(), strict=True)]
        ui.table("Confusion (rows: true class)", ("", *classes), counts)


def _show_misclassified(misclassified: Sequence[Mapping[str, Any]], report: str, ui: Ui) -> None:
    if not misclassified:
        return
    ui.print(f"Misclassified: {counted(len(misclassified), 'image')}, the most confident first")
    for mistake in misclassified[:SHOWN]:
        ui.print("  {path}: {predicted} ({score:.4f}), labelled {label}".format(**mistake))
    more = len(misclassified) - SHOWN
    if more > 0:
        ui.print(f"  {more} more in {report} (misclassified)")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _write(
    workspace: Workspace, result: Mapping[str, Any], evaluated: _Evaluated, classes: Sequence[str]
) -> dict[str, str]:
    """Write the result and one row per image, from which it can be recomputed; return the paths."""
    header = ["path", "label", "predicted", *predictions.columns(classes)]
    rows = [
        (path, classes[target], classes[int(p.argmax())], *p.tolist())
        for path, target, p in zip(evaluated.paths, evaluated.targets, evaluated.probabilities, strict=True)
    ]
    report, table = workspace.report / "evaluate.json", workspace.report / "evaluate-predictions.csv"
    with workspace.writing():
        workspace.report.mkdir(exist_ok=True)
        forms.write_csv(table, header, rows)
        forms.write_json(report, result)
    return {"report": str(report), "predictions": str(table)}
