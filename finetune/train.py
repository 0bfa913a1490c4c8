"""Training above the split point, epoch by epoch, epoch 0 (the head as it came) included.

Every training image is used in every epoch and every validation image judges it: no step is left out at the end.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from featurize import interrupts
from finetune.examples import Examples
from finetune.plan import Plan
from heads.history import Epoch
from heads.metrics import Metrics, measure

if TYPE_CHECKING:
    from finetune.program import Arrays, Means, Program


@dataclass(frozen=True)
class State:
    """All there is to know of a training after an epoch: enough to go on as if it had never stopped.

    Attributes:
        history: a row an epoch, from epoch 0 on.
        start, validation: metrics on validation of epoch 0 and of the best epoch.
        weights, optimizer: as they are after the last epoch.
        best: the weights of the best epoch.
        diverged: epoch and step at which the loss or a weight became NaN or infinite, if it did.
    """

    history: tuple[Epoch, ...]
    start: Metrics
    validation: Metrics
    weights: "Arrays"
    optimizer: "Arrays"
    best: "Arrays"
    diverged: tuple[int, int] | None = None

    @property
    def epoch(self) -> int:
        """The last epoch."""
        return self.history[-1].epoch

    @property
    def best_epoch(self) -> int:
        """The epoch that is kept."""
        return best(self.history).epoch

    def ended(self, plan: Plan) -> Literal["diverged", "epochs", "patience"] | None:
        """Return why there is nothing more to train, or None if there is."""
        if self.diverged:
            return "diverged"
        if self.epoch >= plan.epochs:
            return "epochs"
        return "patience" if self.epoch - self.best_epoch >= plan.patience else None


def best(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the lowest validation log-loss, the first of them."""
    return min(history, key=lambda epoch: epoch.val_log_loss)


class Diverged(Exception):
    """The loss, or a weight, became NaN or infinite."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(epoch, step)
        self.at = (epoch, step)


@dataclass(frozen=True)
class Watch:
    """Who is told how training goes.

    `step(epoch, images of it done, loss so far)`; `epoch(state)`, which keeps the state.
    """

    step: Callable[[int, int, float], None] = lambda epoch, done, loss: None
    epoch: Callable[[State], None] = lambda state: None


def train(
    program: "Program",
    data: tuple[Examples, Examples],
    plan: Plan,
    state: State | None = None,
    watch: Watch | None = None,
) -> State:
    """Train until the plan says stop, and leave the network with the weights of the best epoch.

    Args:
        program: with the weights to start from; where `state` is given they are replaced by those of it.
        data: training and validation images.
        state: how far it was trained before; None: from epoch 0.
        watch: told of every step and epoch.
    """
    training, validation = data
    watch = watch or Watch()
    if state is None:
        began = time.perf_counter()
        measured, objective = _judge(program, validation, plan, 0)
        row = _row(0, None, objective, measured, time.perf_counter() - began)
        now = program.weights()
        state = State((row,), measured, measured, now, program.optimizer(), now)
        watch.epoch(state)
    else:
        program.set_weights(state.weights)
        program.set_optimizer(state.optimizer)
    while not state.ended(plan):
        state = _next(program, (training, validation), plan, state, watch)
        watch.epoch(state)
    program.set_weights(state.best)
    return state


def _next(program: "Program", data: tuple[Examples, Examples], plan: Plan, state: State, watch: Watch) -> State:
    """Train one epoch more."""
    training, validation = data
    began = time.perf_counter()
    number, steps = state.epoch + 1, -(-len(training.targets) // plan.batch_size)
    try:
        means = _one_epoch(program, training, plan, number, watch)
        now = program.weights()
        # A loss alone does not tell: on CPUs, TensorFlow's ReLU makes 0 of NaN.
        if not all(np.isfinite(array).all() for array in now):
            raise Diverged(number, steps)
        program.hand_back()
        measured, objective = _judge(program, validation, plan, number, steps)
    except Diverged as stop:
        return replace(state, diverged=stop.at)
    row = _row(number, means, objective, measured, time.perf_counter() - began)
    state = replace(state, history=(*state.history, row), weights=now, optimizer=program.optimizer())
    return replace(state, validation=measured, best=now) if state.best_epoch == number else state


def _row(number: int, means: "Means | None", objective: float, measured: Metrics, seconds: float) -> Epoch:
    return Epoch(
        number,
        means.loss if means else None,
        means.accuracy if means else None,
        measured.log_loss,
        measured.accuracy,
        seconds,
        log_loss=means.log_loss if means else None,
        val_loss=objective,
    )


def order(plan: Plan, epoch: int, n: int) -> NDArray[np.intp]:
    """Return in which order an epoch sees n images: a permutation of all of them, a function of seed and epoch."""
    return np.random.default_rng([plan.seed, epoch]).permutation(n)


def _one_epoch(program: "Program", data: Examples, plan: Plan, number: int, watch: Watch) -> "Means":
    """Take every step of one epoch."""
    from finetune.program import Means

    chosen = order(plan, number, len(data.targets))
    sums = np.zeros(3)
    done = 0
    for step, inputs in enumerate(data.rows.batches(chosen, plan.batch_size), start=1):
        interrupts.check()
        targets = data.targets[chosen[done : done + len(inputs)]]
        means = program.step(inputs, targets, number, step)
        if not np.isfinite(means.loss):
            raise Diverged(number, step)
        sums += np.array([means.loss, means.log_loss, means.accuracy]) * len(inputs)
        done += len(inputs)
        watch.step(number, done, sums[0] / done)
    return Means(*(float(value) for value in sums / done))


def _judge(program: "Program", data: Examples, plan: Plan, number: int, steps: int = 0) -> tuple[Metrics, float]:
    """Return metrics and objective on all images of a split; numbers that are none are the fault of the last step."""
    in_order = np.arange(len(data.targets))
    parts = []
    for inputs in data.rows.batches(in_order, plan.batch_size):
        interrupts.check()
        parts.append(program.predict(inputs))
        if not np.isfinite(parts[-1]).all():
            raise Diverged(number, steps)
    p = np.concatenate(parts)
    return measure(p, data.targets), program.objective(p, data.targets)
