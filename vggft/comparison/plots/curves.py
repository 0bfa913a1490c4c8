"""Learning curves: log-loss and accuracy against epochs, of a few models in one figure, of all in small ones, and of runs."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from finetune.store import Run
from vggft.comparison.plots.plot import HEAD, NETWORK, Plot, render
from vggft.prediction.model import Model
from vggft.ui.visible import shortened

_COLUMNS = 4  # of small figures
_COLOURS = 10  # after which matplotlib's cycle starts again
_STYLES = ("-", "--", ":", "-.")

_TITLE = 60  # characters of the name of a run above its curves

_LEGEND = "Solid: validation; dashed: training (with dropout); circle: the epoch that is kept"


def draw(models: Sequence[Model], colour: Mapping[str, str]) -> Plot | None:
    """Draw a few models in one figure; None where none of them was trained in epochs.

    A model that was not trained in epochs is a dotted line at its validation metric.

    Args:
        colour: the name of each model to draw → its colour.
    """
    shown = [model for model in models if model.name in colour]
    if not any(model.history for model in shown):
        return None

    def paint(figure: Any) -> None:
        panels = figure.subplots(1, 2)
        for model in shown:
            if model.history:
                for axes, accuracy in zip(panels, (False, True), strict=True):
                    _curve(axes, model, accuracy, colour[model.name])
            else:
                panels[0].axhline(model.validation.log_loss, ls=":", color=colour[model.name], label=model.name)
                panels[1].axhline(model.validation.accuracy, ls=":", color=colour[model.name], label=model.name)
        for axes, label in zip(panels, ("log-loss", "accuracy"), strict=True):
            axes.set(xlabel="epoch", ylabel=label)
            axes.xaxis.get_major_locator().set_params(integer=True)
        panels[0].legend(fontsize="small")  # the right panel's would say the same

    kept = "; ".join(
        f"{model.name} keeps epoch {model.kept_epoch.epoch}, validation log-loss {model.kept_epoch.val_log_loss:.4f}"
        for model in shown
        if model.history
    )
    return render("curves", "Learning curves", f"{_LEGEND}; dotted: a model without epochs. {kept}.", (10, 3.8), paint)


def draw_all(models: Sequence[Model]) -> Plot | None:
    """Draw the log-loss of every model that was trained in epochs, each in a small panel; None where there is none."""
    trained = [model for model in models if model.history]
    if not trained:
        return None
    rows = -(-len(trained) // _COLUMNS)
    height = 2 * rows

    def paint(figure: Any) -> None:
        # Fixed margins, in inches above and below: with this many panels, constrained layout takes twice as long.
        figure.set_layout_engine(None)
        figure.subplots_adjust(0.04, 0.25 / height, 0.99, 1 - 0.25 / height, wspace=0.2, hspace=0.4)
        panels = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes, model in itertools.zip_longest(panels, trained):
            if model is None:
                axes.set_visible(False)
                continue
            _curve(axes, model, False, NETWORK if model.tuned else HEAD)
            axes.set_title(model.name, fontsize="small")
            axes.tick_params(labelsize="x-small")
            axes.xaxis.get_major_locator().set_params(integer=True, nbins=4)

    alt = f"Log-loss against epochs of {len(trained)} models. {_LEGEND}."
    return render("curves-all", "Learning curves of all models", alt, (11, height), paint)


def draw_run(run: Run) -> tuple[Plot, Plot]:
    """Draw loss and accuracy of one run against epochs, training and validation, each in a figure of its own."""
    return _curve_of_run(run, "loss"), _curve_of_run(run, "accuracy")


def _curve_of_run(run: Run, quantity: Literal["loss", "accuracy"]) -> Plot:
    epochs = [epoch.epoch for epoch in run.history]
    lines = {  # label → values, style, colour; epoch 0 has no training
        "training, with dropout": ([getattr(epoch, quantity) for epoch in run.history], "--", HEAD),
        "validation": ([getattr(epoch, f"val_{quantity}") for epoch in run.history], "-", NETWORK),
    }
    if quantity == "loss" and any((epoch.temperature or 1) > 1 for epoch in run.history):
        lines["validation log-loss, with temperature"] = ([epoch.val_log_loss for epoch in run.history], ":", NETWORK)
    kept = list(lines.values())[-1][0][run.best_epoch]

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for label, (values, style, colour) in lines.items():
            known = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
            axes.plot(*zip(*known, strict=True) if known else ((), ()), style, color=colour, label=label)
        axes.plot([run.best_epoch], [kept], "o", mfc="none", ms=9, color=NETWORK, label=f"epoch {run.best_epoch}, kept")
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.set_title(shortened(run.name, _TITLE), fontsize="medium")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize="small")

    alt = f"{quantity.capitalize()} of {run.name} against epochs; validation {kept:.4f} in epoch {run.best_epoch}, which is kept."
    return render(quantity, quantity.capitalize(), alt, (6, 4), paint)


def draw_runs(runs: Sequence[Run]) -> Plot:
    """Draw the validation log-loss of runs against their seconds of training, in one panel; a circle marks the epoch kept."""

    def paint(figure: Any) -> None:
        axes = figure.subplots()
        for i, run in enumerate(runs):
            seconds = list(itertools.accumulate(epoch.seconds for epoch in run.history))
            losses = [epoch.val_log_loss for epoch in run.history]
            (line,) = axes.plot(seconds, losses, _STYLES[i // _COLOURS % len(_STYLES)], marker=".", label=run.name)
            kept = run.best_epoch
            axes.plot([seconds[kept]], [losses[kept]], "o", mfc="none", ms=11, color=line.get_color())
        axes.set(xlabel="seconds of training", ylabel="validation log-loss")
        axes.legend(fontsize="small")

    return render("sweep", "Sweep", "Validation log-loss against seconds of training.", (10, 6), paint)


def _curve(axes: Any, model: Model, accuracy: bool, colour: str) -> None:
    """Draw validation, training and the epoch that is kept."""
    history, kept = model.history, model.kept_epoch
    learnt = [epoch for epoch in history if epoch.loss is not None]
    if accuracy:
        training = [epoch.accuracy for epoch in learnt]
        validation, best = [epoch.val_accuracy for epoch in history], kept.val_accuracy
    else:
        training = [epoch.loss if epoch.log_loss is None else epoch.log_loss for epoch in learnt]
        validation, best = [epoch.val_log_loss for epoch in history], kept.val_log_loss
    axes.plot([epoch.epoch for epoch in learnt], training, "--", lw=1, color=colour)
    axes.plot([epoch.epoch for epoch in history], validation, "-", color=colour, label=model.name)
    axes.plot([kept.epoch], [best], "o", mfc="none", ms=9, color=colour)
