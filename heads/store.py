"""Trained heads on disk: one folder a head, read and written whole, and the leaderboard beside them."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import durable
from featurize.data.dataset import Sample
from featurize.errors import VggftError
from heads import head as heads
from heads import predictions
from heads.history import read_history, write_history
from heads.logistic import Tried
from heads.metrics import Metrics
from heads.search import Result, Spread, best_first, criterion

HEAD, WEIGHTS = heads.FILES
METRICS, HISTORY, PIPELINE = "metrics.json", "history.csv", "pipeline.joblib"
PREDICTIONS, OUT_OF_FOLD = predictions.FILE, "out_of_fold.csv"
FILES = (HEAD, WEIGHTS, METRICS, HISTORY, PIPELINE, PREDICTIONS, OUT_OF_FOLD)

_TRIED = [field.name for field in fields(Tried)]


def save(folder: Path, result: Result) -> None:
    """Write a head to `folder/<name>`, replacing an earlier one of that name. Files that are not ours stay.

    Files: head.json and weights.npz (`heads.head`); metrics.json; history.csv (dense: the learning curve; logistic: the
    search for the strength); predictions.csv, of the validation images; out_of_fold.csv, of all images, where it was
    cross-validated; pipeline.joblib (logistic regression, for people with scikit-learn; never read here).

    What `result` does not carry of a head that lies there (its predictions, say) is kept as it is.
    """
    place = folder / result.head.name
    durable.refuse_link(place)
    fresh = durable.fresh_folder(place)
    if place.exists():
        outdated = set(FILES)
        if _is(place, result):
            outdated = set() if result.folds else {OUT_OF_FOLD}
        for path in place.iterdir():
            if path.name not in outdated:
                _copy(path, fresh / path.name)
    result.head.save(fresh)
    durable.write_json(fresh / METRICS, result.as_json())
    if result.history:
        write_history(fresh / HISTORY, result.history)
    elif result.search:
        durable.write_csv(fresh / HISTORY, _TRIED, [astuple(tried) for tried in result.search])
    for name, made in ((PREDICTIONS, result.predictions), (OUT_OF_FOLD, result.out_of_fold)):
        if made:
            predictions.write(fresh / name, made, result.head.classes)
    if result.pipeline is not None:
        durable.write_bytes(fresh / PIPELINE, _joblib(result.pipeline))
    durable.replace_folder(fresh, place)


def _is(place: Path, result: Result) -> bool:
    """True where the head that lies there is the one of `result`, to which something was added."""
    try:
        return heads.load(place).digest == result.head.digest
    except VggftError:
        return False


def _copy(path: Path, to: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)
        if not path.is_symlink():
            durable.sync_file(to)  # before the folder that it comes from goes


def load_all(folder: Path, on_damage: Callable[[VggftError], None] | None = None) -> list[Result]:
    """Read every head below `folder`, in name order.

    Args:
        on_damage: told of damaged heads, which are left out; without it the first one is an error.

    Raises:
        VggftError: one of them is damaged.
    """
    results = []
    for path in sorted(folder.glob(f"[!.]*/{HEAD}")):
        try:
            results.append(_load(path.parent))
        except VggftError as error:
            if on_damage is None:
                raise
            on_damage(error)
    return results


def _load(folder: Path) -> Result:
    head = heads.load(folder)
    if head.name != folder.name:
        raise VggftError(
            f"{folder}: a copy of the head {head.name!r}, which would count twice. Move it out of this folder."
        )
    try:
        kept = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        history = folder / HISTORY
        dense = head.kind == "dense"
        return Result(
            head,
            kept["seconds"],
            Metrics.of_json(kept["validation"]),
            history=read_history(history) if dense else (),
            search=_read_search(history) if not dense and history.exists() else (),
            status=kept["status"],
            remark=kept["remark"],
            folds=Metrics.of_json(kept["folds"]) if "folds" in kept else None,
            spread=Spread(**kept["seeds"]) if "seeds" in kept else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(f"{folder}: damaged ({error}). Train it again: vggft head") from None


def write_leaderboard(path: Path, results: Sequence[Result], stale: Sequence[Result] = ()) -> None:
    """Write one row a head, the best first; those made from another state of the data follow without a rank."""
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
        row += [head.provenance.get("folds"), *(recipe.get(key) for key in ("seed", "epochs", "class_weight"))]
        row += [by if fresh else None]
        row += [result.status if fresh else "stale", result.remark]
        rows.append(["" if value is None else value for value in row])
    durable.write_csv(path, header, rows)


def _read_search(path: Path) -> list[Tried]:
    rows = durable.read_csv(path)
    return [Tried(float(row["strength"]), float(row["log_loss"]), int(row["unconverged"])) for row in rows]


def read_out_of_fold(folder: Path, head: heads.Head, samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return the out-of-fold probabilities (n, classes) of n images, by a head below `folder`.

    Raises:
        VggftError: they are missing or damaged.
    """
    path = folder / head.name / OUT_OF_FOLD
    columns = predictions.columns(head.classes)
    try:
        rows = {(row["digest"], row["label"]): row for row in durable.read_csv(path)}
        return np.array([[float(rows[s.digest, s.label][column]) for column in columns] for s in samples])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(f"{path}: missing or damaged ({error!r}). Train again: vggft head --cv 5 --retrain") from None


def _joblib(pipeline: Any) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(pipeline, buffer)
    return buffer.getvalue()
