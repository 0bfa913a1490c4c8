"""Learning curves of heads and tuned networks, one row per epoch, and their CSV files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurize import durable


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve. Training metrics are means over the epoch, with dropout; epoch 0 has none.

    Attributes:
        loss: training loss: cross-entropy with class weights; in fine-tuning also the penalties.
        log_loss: training log-loss, without class weights and penalties; None if not measured.
        val_loss: validation loss, defined like `loss`; None if not measured.
    """

    epoch: int
    loss: float | None
    accuracy: float | None
    val_log_loss: float
    val_accuracy: float
    seconds: float
    log_loss: float | None = None
    val_loss: float | None = None


_COLUMNS = "epoch loss log_loss accuracy val_loss val_log_loss val_accuracy seconds".split()


def write_history(path: Path, history: Sequence[Epoch], then: str = durable.AGAIN) -> None:
    """Write a learning curve, one row per epoch, without columns that have no values; `then` as in `durable.write_bytes`."""
    columns = [name for name in _COLUMNS if any(getattr(epoch, name) is not None for epoch in history)]
    rows = [[getattr(epoch, name) for name in columns] for epoch in history]
    durable.write_csv(path, columns, [["" if value is None else value for value in row] for row in rows], then)


def read_history(path: Path) -> list[Epoch]:
    """Read a file written by `write_history`."""
    history = []
    for row in durable.read_csv(path):
        values: dict[str, Any] = {key: float(value) if value else None for key, value in row.items()}
        history.append(Epoch(**{"loss": None, "accuracy": None, **values, "epoch": int(row["epoch"])}))
    return history
