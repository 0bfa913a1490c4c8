"""Trained heads on disk: one folder per head, and the leaderboard. A head is always written as a whole."""

import io
import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from featurize.disk import checked, durable, forms, listing
from featurize.errors import VggftError, reason
from featurize.options import records
from featurize.options.records import AtLeast0, Count
from heads import history, predictions
from heads.head import HEAD_FILES, Head, Kind, load_head
from heads.history import read_history
from heads.logistic import SearchPoint
from heads.metrics import Metrics
from heads.search import TRAINING_FOLDS, Result, Spread, best_first, criterion, of_recipe
from heads.specs import Pooling

METRICS, HISTORY, PIPELINE = "metrics.json", "history.csv", "pipeline.joblib"
PREDICTIONS, OUT_OF_FOLD = predictions.FILE, "out_of_fold.csv"
FILES = (*HEAD_FILES, METRICS, HISTORY, PIPELINE, PREDICTIONS, OUT_OF_FOLD, checked.CHECKSUMS)

_SEARCH_COLUMNS = ("strength", "log_loss", "unconverged")  # "strength" is C


def save(folder: Path, result: Result) -> None:
    """Write a head to `folder/<name>`, replacing an earlier head of that name. Files that vggft did not write are kept.

    Files: head.json and weights.npz (see `heads.head`); metrics.json; history.csv (dense: learning curve; logistic: search for
    C); predictions.csv (validation images); out_of_fold.csv (training and validation images, if cross-validated); and
    pipeline.joblib (logistic regression; for use with scikit-learn, never read by vggft).

    If the folder already holds this same head, its files that `result` has no data for, such as predictions.csv, are kept.
    """
    target = folder / result.head.name
    durable.refuse_link(target)
    files = {**result.head.files(), METRICS: forms.json_bytes(result.as_json())}
    if result.history:
        files[HISTORY] = history.table(result.history)
    elif result.search:
        files[HISTORY] = forms.csv_bytes(_SEARCH_COLUMNS, [astuple(point) for point in result.search])
    for name, predicted in ((PREDICTIONS, result.predictions), (OUT_OF_FOLD, result.out_of_fold)):
        if predicted:
            files[name] = predictions.table(predicted, result.head.classes)
    if result.pipeline is not None:
        files[PIPELINE] = _joblib(result.pipeline)
    new = durable.fresh_folder(target)
    if target.exists():
        outdated = set(FILES)
        if _holds_head(target, result.head):
            outdated = set(files) if result.folds else {*files, OUT_OF_FOLD}
        for path in target.iterdir():
            if path.name not in outdated:
                durable.copy(path, new / path.name)  # the checksums, too: a damaged file stays damaged
    checked.write_checked(new, files)
    durable.replace_folder(new, target)


def foreign_files(folder: Path) -> list[Path]:
    """Return the files that `save` would replace in a folder where nothing shows that vggft wrote a head there."""
    if any(os.path.lexists(folder / name) for name in (*HEAD_FILES, METRICS)):
        return []
    try:
        recorded = set(checked.read_checksums(folder))
    except ValueError:
        recorded = set()
    return [folder / name for name in FILES if os.path.lexists(folder / name)] if not recorded & set(FILES) else []


def _holds_head(folder: Path, head: Head) -> bool:
    try:
        return load_head(folder).digest == head.digest
    except VggftError:
        return False


def load_all(folder: Path, on_damage: Callable[[VggftError], None] | None = None) -> list[Result]:
    """Read all heads in `folder`, sorted by name.

    Args:
        on_damage: called with the error of each damaged head, which is then left out. Without it, the error is raised.

    Raises:
        VggftError: a head is damaged, or the folder cannot be read.
    """
    results = []
    for path in listing.folders(folder):
        if not any((path / name).exists() for name in (*HEAD_FILES, METRICS, checked.CHECKSUMS)):
            continue  # a folder of the user's
        try:
            results.append(_load(path))
        except VggftError as error:
            if on_damage is None:
                raise
            on_damage(error)
    return results


def _load(folder: Path) -> Result:
    head = load_head(folder)
    if head.name != folder.name:
        raise VggftError(
            f"{folder}: a copy of the head {head.name!r}, which would be counted twice. Move it out of {folder.parent}."
        )
    try:
        stored = checked.read_json(folder / METRICS)
        for key in ("validation", "folds"):
            if key in stored:
                stored[key] = Metrics.of_json(stored[key])
        metrics = records.build(_HeadMetrics, stored)
        if metrics.name != head.name:
            raise ValueError(f"{METRICS} of the head {metrics.name!r}")
        if any(m and len(m.per_class) != len(head.classes) for m in (metrics.validation, metrics.folds)):
            raise ValueError(f"{METRICS} of other classes than {', '.join(head.classes)}")
        if "recipe" in head.provenance:
            of_recipe(head.name, head.provenance["recipe"])
        number = head.provenance.get(TRAINING_FOLDS, 2)
        if not isinstance(number, int) or number < 2:
            raise ValueError(f"{number!r} folds")
        curve = folder / HISTORY
        dense = head.kind == "dense"
        searched = curve.exists() or checked.lists(folder, HISTORY)  # not where C could not be searched
        return Result(
            head,
            metrics.seconds,
            metrics.validation,
            history=read_history(curve) if dense else (),
            search=_read_search(curve) if not dense and searched else (),
            status=metrics.status,
            remark=metrics.remark,
            folds=metrics.folds,
            spread=metrics.seeds,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, VggftError) as error:
        raise VggftError(f"{folder}: damaged ({reason(error)}). Train it again: vggft head") from None


@dataclass(frozen=True)
class _HeadMetrics:
    """metrics.json, as `Result.as_json` makes it."""

    name: str
    kind: Kind
    pooling: Pooling
    parameters: Count
    seconds: AtLeast0
    status: str
    remark: str
    validation: Metrics
    folds: Metrics | None = None
    seeds: Spread | None = None


def write_leaderboard(path: Path, results: Sequence[Result], stale: Sequence[Result] = ()) -> None:
    """Write one row per head, best first, then the stale heads (trained on an earlier state of the data) without a rank."""
    header = ["rank", "name", "kind", "pooling", "parameters", "seconds", "n", "accuracy", "accuracy_low"]
    header += [
        "accuracy_high",
        "log_loss",
        "auc",
        "macro_f1",
        "folds_n",
        "folds_accuracy",
        "folds_log_loss",
        "folds_auc",
    ]
    header += ["seeds", "seeds_log_loss", "seeds_log_loss_sd", "folds", "seed", "epochs", "class_weight", "ranked_by"]
    header += ["status", "remark"]
    by = criterion(results)
    rows = []
    for rank, result in enumerate([*best_first(results), *stale], start=1):
        head, v, f, s = result.head, result.validation, result.folds, result.spread
        fresh = rank <= len(results)
        row = [rank if fresh else None, head.name, head.kind, head.pooling, head.parameters, result.seconds]
        row += [v.n, v.accuracy, *v.accuracy_interval, v.log_loss, v.auc, v.macro.f1]
        row += [f.n, f.accuracy, f.log_loss, f.auc] if f else [None] * 4
        row += [s.seeds, s.log_loss, s.log_loss_sd] if s else [None] * 3
        recipe = head.provenance.get("recipe", {})
        row += [head.provenance.get(TRAINING_FOLDS), *(recipe.get(key) for key in ("seed", "epochs", "class_weight"))]
        row += [by if fresh else None]
        row += [result.status if fresh else "stale", result.remark]
        rows.append(["" if value is None else value for value in row])
    forms.write_csv(path, header, rows)


def _read_search(path: Path) -> list[SearchPoint]:
    rows = checked.read_csv(path)
    return [SearchPoint(float(row["strength"]), float(row["log_loss"]), int(row["unconverged"])) for row in rows]


def read_probabilities(folder: Path, head: Head, samples: Sequence[Sample], file: str) -> NDArray[np.float64]:
    """Return the probabilities (n, classes) that a head in `folder` gave n images.

    Args:
        file: `PREDICTIONS` for validation images, or `OUT_OF_FOLD` for those and training images.

    Raises:
        VggftError: the predictions are missing or damaged.
    """
    path = folder / head.name / file
    columns = predictions.columns(head.classes)
    try:
        rows = {(row["digest"], row["label"]): row for row in checked.read_csv(path)}
        return np.array([[float(rows[s.digest, s.label][column]) for column in columns] for s in samples])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(
            f"{path}: missing or damaged ({reason(error)}). Train the head again, with --retrain."
        ) from None


def _joblib(pipeline: Any) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(pipeline, buffer)
    return buffer.getvalue()
