"""Trained heads on disk: one folder a head, read and written whole, and the leaderboard beside them."""

import io
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from featurize import durable
from featurize.errors import VggftError
from heads import head as heads
from heads.metrics import Metrics
from heads.search import Result, best_first
from heads.training import Epoch

_HISTORY = [field.name for field in fields(Epoch)]


def save(folder: Path, result: Result) -> None:
    """Write a head to `folder/<name>`, replacing an earlier one of that name.

    Files: head.json and weights.npz (`heads.head`), metrics.json, history.csv (dense heads), pipeline.joblib (logistic
    regression, for people with scikit-learn; never read here).
    """
    place = folder / result.head.name
    fresh = folder / f".{result.head.name}.new.tmp"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    result.head.save(fresh)
    durable.write_json(fresh / "metrics.json", result.as_json())
    if result.history:
        write_history(fresh / "history.csv", result.history)
    if result.pipeline is not None:
        durable.write_bytes(fresh / "pipeline.joblib", _joblib(result.pipeline))
    durable.replace_folder(fresh, place)


def load_all(folder: Path, on_damage: Callable[[VggftError], None] | None = None) -> list[Result]:
    """Read every head below `folder`, in name order.

    Args:
        on_damage: told of damaged heads, which are left out; without it the first one is an error.

    Raises:
        VggftError: one of them is damaged.
    """
    results = []
    for path in sorted(folder.glob("[!.]*/head.json")):
        try:
            results.append(_load(path.parent))
        except VggftError as error:
            if on_damage is None:
                raise
            on_damage(error)
    return results


def _load(folder: Path) -> Result:
    head = heads.load(folder)
    try:
        kept = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        history = folder / "history.csv"
        epochs = read_history(history) if history.exists() else []
        return Result(head, kept["seconds"], Metrics(**kept["validation"]), epochs, kept.get("remark", ""))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(f"{folder}: damaged ({error}). Train it again: vggft head") from None


def write_leaderboard(path: Path, results: Sequence[Result]) -> None:
    """Write one row a head, the best first."""
    header = ["rank", "name", "kind", "pooling", "parameters", "seconds", "n", "accuracy", "log_loss", "auc", "remark"]
    rows = []
    for rank, result in enumerate(best_first(results), start=1):
        head, v = result.head, result.validation
        auc = "" if v.auc is None else v.auc
        row = (head.name, head.kind, head.pooling, head.parameters, result.seconds, v.n, v.accuracy, v.log_loss, auc)
        rows.append((rank, *row, result.remark))
    durable.write_csv(path, header, rows)


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """Write a learning curve, a row an epoch."""
    durable.write_csv(path, _HISTORY, [_blank(epoch) for epoch in history])


def read_history(path: Path) -> list[Epoch]:
    """Read what `write_history` wrote."""
    history = []
    for row in durable.read_csv(path):
        values: dict[str, Any] = {key: float(row[key]) if row[key] else None for key in _HISTORY}
        history.append(Epoch(**{**values, "epoch": int(row["epoch"])}))
    return history


def _blank(epoch: Epoch) -> tuple[Any, ...]:
    return tuple("" if value is None else value for value in astuple(epoch))


def _joblib(pipeline: Any) -> bytes:
    import joblib

    buffer = io.BytesIO()
    joblib.dump(pipeline, buffer)
    return buffer.getvalue()
