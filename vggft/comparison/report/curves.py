"""Learning curves as PNG."""

import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featurize.disk import durable
from heads.history import Epoch
from vggft.prediction.model import Model

_ROW = 3.2  # inches
_COLOURS = 10  # after which matplotlib's cycle starts again
_STYLES = ("-", "--", ":", "-.")


def plot(path: Path, models: Sequence[Model]) -> None:
    """Draw loss and accuracy against epochs: a row of two panels for each model that was trained in epochs.

    Dashed: training (with dropout); solid: validation; dotted: the validation metrics of models without epochs.
    """
    from matplotlib.figure import Figure

    histories = {model.name: model.history for model in models if model.history}
    references = {m.name: (m.validation.log_loss, m.validation.accuracy) for m in models if not m.history}
    height = _ROW * max(1, len(histories))
    figure = Figure(figsize=(10, height))
    panels = figure.subplots(len(histories), 2, squeeze=False)
    # Fixed margins, in inches: fitting them to the texts draws everything twice.
    figure.subplots_adjust(0.07, 0.5 / height, 0.98, 1 - 0.35 / height, wspace=0.18, hspace=0.9 / (_ROW - 0.9))
    for (left, right), (name, history) in zip(panels, histories.items(), strict=True):
        epochs = [e.epoch for e in history]
        learnt = [e for e in history if e.loss is not None]
        best = min(history, key=lambda e: e.val_log_loss)
        series = (
            (
                left,
                "log-loss",
                [e.loss if e.log_loss is None else e.log_loss for e in learnt],
                [e.val_log_loss for e in history],
                best.val_log_loss,
                0,
            ),
            (right, "accuracy", [e.accuracy for e in learnt], [e.val_accuracy for e in history], best.val_accuracy, 1),
        )
        for axes, what, training, validation, kept, column in series:
            axes.plot([e.epoch for e in learnt], training, "--", marker=".", label="training (with dropout)")
            axes.plot(epochs, validation, "-", marker=".", label="validation")
            axes.plot([best.epoch], [kept], "o", mfc="none", ms=11, color="C1", label=f"kept: epoch {best.epoch}")
            for i, (other, values) in enumerate(references.items()):
                axes.axhline(values[column], ls=":", color=f"C{i + 2}", label=f"{other}, validation")
            axes.set(xlabel="epoch", ylabel=what, title=f"{name}: {what}")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
        left.legend(fontsize="small")  # the right panel's would say the same
    _write(path, figure)


def plot_runs(path: Path, histories: Mapping[str, Sequence[Epoch]]) -> None:
    """Draw the validation log-loss of runs against their seconds of training, in one panel; a circle marks the epoch kept."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    for i, (name, history) in enumerate(histories.items()):
        seconds = list(itertools.accumulate(epoch.seconds for epoch in history))
        losses = [epoch.val_log_loss for epoch in history]
        (line,) = axes.plot(seconds, losses, _STYLES[i // _COLOURS % len(_STYLES)], marker=".", label=name)
        kept = losses.index(min(losses))
        axes.plot([seconds[kept]], [losses[kept]], "o", mfc="none", ms=11, color=line.get_color())
    axes.set(xlabel="seconds of training", ylabel="validation log-loss")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    _write(path, figure)


def _write(path: Path, figure: Any) -> None:
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    durable.write_bytes(path, image.getvalue())
