"""The search for a learning rate: short trainings with several rates, of which the better half goes on.

Successive halving (Jamieson & Talwalkar, arXiv:1502.07943). A part of the training images is held back to judge the rates, so
that no validation image takes part; the head that the trainings start from has not seen that part either.
"""

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from featurize.disk import durable
from featurize.options.records import AtLeast0, Count
from featurize.process import interrupts
from finetune.examples import Examples
from finetune.plan import Optimizer, Plan
from finetune.train import Diverged, evaluate, order

if TYPE_CHECKING:
    from finetune.program import Arrays, Program

PICTURE = "learning_rate.png"

# Half a decade apart, around the rates that are taken where none can be searched for. SGD's best rate depends on the scale of the
# features: it is 1e-3 for ten classes of clothes, while with 1e-3 a head on enlarged digits diverges in the first epoch.
CANDIDATES: dict[Optimizer, tuple[float, ...]] = {
    "sgd": (3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
    "adam": (3e-6, 1e-5, 3e-5, 1e-4, 3e-4),
}

_SHARE = 0.2  # of the time of all epochs, at most
_FORWARD = 1 / 3  # of the time of a training step: its backward pass takes about twice as long as its forward pass
_FEWEST = 6  # steps before the first decision, which are 563 training images with the default settings


@dataclass(frozen=True)
class Trial:
    """A learning rate that was tried.

    Attributes:
        log_losses: of the images held back, after each round that it took part in; None where training diverged.
    """

    learning_rate: AtLeast0
    log_losses: tuple[float | None, ...]


@dataclass(frozen=True)
class Search:
    """A finished search.

    Attributes:
        trained, held_back: numbers of images to train on and to judge by.
        steps: training steps after each round.
        start: log-loss of the images held back before any step.
        seconds: time of the search, with the training of its head.
    """

    trained: Count
    held_back: Count
    steps: tuple[Count, ...]
    start: AtLeast0
    trials: tuple[Trial, ...]
    seconds: AtLeast0

    @property
    def best(self) -> Trial:
        """The trial with the lowest log-loss of those that came furthest; the smaller rate, if there are several."""
        return min(self.trials, key=_merit)

    def describe(self) -> str:
        """Return a sentence about the choice."""
        rates = ", ".join(f"{trial.learning_rate:g}" for trial in self.trials)
        last = self.best.log_losses[-1]
        found = "all diverged" if last is None else f"log-loss {last:.4f} (before: {self.start:.4f})"
        return (
            f"learning rate {self.best.learning_rate:g}, of {rates}: {found} on {self.held_back} training images held back, "
            f"after {self.steps[-1]} steps; {self.seconds:.1f} s"
        )


def rounds(plan: Plan, images: int, held_back: int) -> tuple[int, ...]:
    """Return the number of training steps after each round: of all rates, and of the better half of them.

    Args:
        images: number of training images, with those held back.

    Returns:
        An empty tuple, if so few steps fit into a fifth of the training that they would show nothing.
    """
    rates = len(CANDIDATES[plan.optimizer])
    looks = rates + rates // 2
    budget = _SHARE * plan.epochs * images - _FORWARD * looks * held_back  # in images that are trained on
    first = int(budget / plan.batch_size / (rates + 2 * (rates // 2)))
    return (first, 3 * first) if first >= _FEWEST else ()


def total(plan: Plan, steps: Sequence[int]) -> int:
    """Return the number of training steps of a search, over all trials."""
    rates = len(CANDIDATES[plan.optimizer])
    return rates * steps[0] + max(1, rates // 2) * (steps[1] - steps[0])


def search(
    program: "Program",
    training: Examples,
    held_back: Examples,
    steps: Sequence[int],
    advance: Callable[[int], None] = lambda steps: None,
) -> Search:
    """Try the candidates.

    Args:
        program: the part above the split point, with a head that has not seen the images held back; it is left as it was.
        steps: training steps after each round, as from `rounds`.
        advance: called with the number of steps so far, over all trials.
    """
    began, done = time.perf_counter(), 0
    rates = CANDIDATES[program.plan.optimizer]
    before = program.weights(), program.optimizer()
    start, _ = evaluate(program, held_back, program.plan, 0)
    losses: dict[float, list[float | None]] = {rate: [] for rate in rates}
    reached: dict[float, tuple[Arrays, Arrays]] = dict.fromkeys(rates, before)
    first = 0
    for end in steps:
        for rate, (weights, optimizer) in list(reached.items()):
            program.set_weights(weights)
            program.set_optimizer(optimizer)
            program.set_learning_rate(rate)
            try:
                _train(program, training, first, end)
                losses[rate].append(evaluate(program, held_back, program.plan, 0)[0].log_loss)
            except Diverged:
                losses[rate].append(None)
            reached[rate] = program.weights(), program.optimizer()
            done += end - first
            advance(done)
        trials = sorted((Trial(rate, tuple(losses[rate])) for rate in reached), key=_merit)
        reached = {trial.learning_rate: reached[trial.learning_rate] for trial in trials[: max(1, len(trials) // 2)]}
        first = end
    program.set_weights(before[0])
    program.set_optimizer(before[1])
    trials = [Trial(rate, tuple(losses[rate])) for rate in rates]
    n = len(training.targets), len(held_back.targets)
    return Search(*n, tuple(steps), start.log_loss, tuple(trials), time.perf_counter() - began)


def _merit(trial: Trial) -> tuple[int, float, float]:
    last = trial.log_losses[-1]
    return -len(trial.log_losses), np.inf if last is None else last, trial.learning_rate


def _train(program: "Program", data: Examples, first: int, end: int) -> None:
    """Do the steps `first` + 1 to `end` of a training; they go through all images in turn."""
    plan, n = program.plan, len(data.targets)
    an_epoch = -(-n // plan.batch_size)
    step = first
    while step < end:
        epoch, at = divmod(step, an_epoch)
        wanted = order(plan, epoch + 1, n)[at * plan.batch_size : (at + end - step) * plan.batch_size]
        seen = 0
        for inputs in data.rows.batches(wanted, plan.batch_size):
            interrupts.check()
            targets = data.targets[wanted[seen : seen + len(inputs)]]
            step, seen = step + 1, seen + len(inputs)
            if not np.isfinite(program.step(inputs, targets, 0, step).loss):
                raise Diverged(0, step)


def plot(path: Path, found: Search) -> None:
    """Draw the log-loss of the images held back against the rate, a line for each round."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for i, steps in enumerate(found.steps):
        points = [(t.learning_rate, t.log_losses[i]) for t in found.trials if len(t.log_losses) > i]
        axes.plot(
            [x for x, y in points if y is not None],
            [y for _, y in points if y is not None],
            "-o",
            label=f"{steps} steps",
        )
    axes.axhline(found.start, ls=":", color="grey", label="before")
    axes.axvline(found.best.learning_rate, ls="--", color="C1", label=f"chosen: {found.best.learning_rate:g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel=f"log-loss of {found.held_back} training images held back")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    durable.write_bytes(path, image.getvalue())
