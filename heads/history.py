"""Learning curves of heads and tuned networks, one row per epoch, and their CSV files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featurize.disk import checked, forms
from featurize.options import records
from featurize.options.records import AtLeast0, AtLeast1, Count, Share


@dataclass(frozen=True)
class Epoch:
    """One epoch of a learning curve. Training metrics are means over the epoch, with dropout; epoch 0 has none.

    Attributes:
        loss: training loss: cross-entropy with class weights; in fine-tuning also the penalties.
        log_loss: training log-loss, without class weights and penalties; None if not measured.
        val_loss: validation loss, defined like `loss`; None if not measured.
        temperature: of a tuned network's validation metrics (`finetune.temperature`); `val_loss` is without it.
    """

    epoch: Count
    loss: float | None
    accuracy: Share | None
    val_log_loss: AtLeast0
    val_accuracy: Share
    seconds: AtLeast0
    log_loss: AtLeast0 | None = None
    val_loss: float | None = None
    temperature: AtLeast1 | None = None


_COLUMNS = "epoch loss log_loss accuracy val_loss val_log_loss val_accuracy temperature seconds".split()


def table(history: Sequence[Epoch]) -> bytes:
    """Return a learning curve as a CSV file, one row per epoch, without columns that have no values."""
    columns = [name for name in _COLUMNS if any(getattr(epoch, name) is not None for epoch in history)]
    rows = [[getattr(epoch, name) for name in columns] for epoch in history]
    return forms.csv_bytes(columns, [["" if value is None else value for value in row] for row in rows])


def read_history(path: Path) -> list[Epoch]:
    """Read a file of `table`.

    Raises:
        OSError, KeyError, ValueError: it is missing or damaged.
    """
    history = []
    for row in checked.read_csv(path):
        values: dict[str, Any] = {key: float(value) if value else None for key, value in row.items()}
        history.append(records.build(Epoch, {"loss": None, "accuracy": None, **values, "epoch": int(row["epoch"])}))
    if not history:
        raise ValueError("no epoch in it")
    return history
