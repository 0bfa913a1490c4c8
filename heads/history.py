"""Learning curves, of heads and of tuned networks: a row an epoch, and how they lie on disk."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from featurize import durable


@dataclass(frozen=True)
class Epoch:
    """One row of a learning curve. Training numbers are means over the epoch, with dropout; epoch 0 has none."""

    epoch: int
    loss: float | None
    accuracy: float | None
    val_log_loss: float
    val_accuracy: float
    seconds: float


_COLUMNS = [field.name for field in fields(Epoch)]


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """Write a learning curve, a row an epoch."""
    durable.write_csv(
        path, _COLUMNS, [["" if value is None else value for value in astuple(epoch)] for epoch in history]
    )


def read_history(path: Path) -> list[Epoch]:
    """Read what `write_history` wrote."""
    history = []
    for row in durable.read_csv(path):
        values: dict[str, Any] = {key: float(row[key]) if row[key] else None for key in _COLUMNS}
        history.append(Epoch(**{**values, "epoch": int(row["epoch"])}))
    return history
