"""The training loop above the split point. Epoch 0 is the untuned network.

Every epoch uses all training images, and is evaluated on all validation images.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from featurize.process import interrupts
from finetune import temperature
from finetune.examples import Examples
from finetune.plan import Plan
from heads.history import Epoch
from heads.metrics import Metrics, measure

_VIEWS = 1  # for the seed that chooses views

if TYPE_CHECKING:
    from finetune.program import Arrays, Means, Program


@dataclass(frozen=True)
class State:
    """State of a training after an epoch, complete enough to resume it without any difference.

    Attributes:
        history: learning curve, from epoch 0.
        start, validation: validation metrics of epoch 0 and of the epoch that is kept.
        weights, optimizer: variables after the last epoch.
        best: weights of the epoch that is kept, its temperature in the last layer.
        diverged: epoch and step in which the loss or a weight became NaN or infinite; None if training did not diverge.
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
        """The number of the last epoch."""
        return self.history[-1].epoch

    def kept_epoch(self, plan: Plan) -> int:
        """Return the number of the epoch whose weights are kept."""
        return self.epoch if plan.keep == "last" else best(self.history).epoch

    def ended(self, plan: Plan) -> Literal["diverged", "epochs", "patience"] | None:
        """Return the reason why training has ended, or None if it has not."""
        if self.diverged:
            return "diverged"
        if self.epoch >= plan.epochs:
            return "epochs"
        return "patience" if self.epoch - self.kept_epoch(plan) >= plan.patience else None


def best(history: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the lowest validation log-loss; the first one, if there are several."""
    return min(history, key=lambda epoch: epoch.val_log_loss)


class Diverged(Exception):
    """The loss, or a weight, became NaN or infinite."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(epoch, step)
        self.at = (epoch, step)


@dataclass(frozen=True)
class Callbacks:
    """Callbacks for training progress.

    Attributes:
        step: called after each step with the epoch, its number of images so far, and their mean loss.
        epoch: called with the state after each epoch, for example to save a checkpoint.
    """

    step: Callable[[int, int, float], None] = lambda epoch, images, loss: None
    epoch: Callable[[State], None] = lambda state: None


def train(
    program: "Program",
    data: tuple[Examples, Examples],
    plan: Plan,
    state: State | None = None,
    callbacks: Callbacks | None = None,
) -> State:
    """Train until the plan ends the training. The program is left with the weights of the epoch that is kept.

    Args:
        program: the network part to train; its weights are the start, unless `state` is given.
        data: training and validation images.
        state: the state to resume from; None starts at epoch 0.
        callbacks: called after every step and epoch.
    """
    training, validation = data
    callbacks = callbacks or Callbacks()
    if state is None:
        start = time.perf_counter()
        p, objective = _predict(program, validation, plan, 0)
        metrics = measure(p, validation.targets)
        row = _row(0, None, objective, metrics, time.perf_counter() - start)
        weights = program.weights()
        state = State((row,), metrics, metrics, weights, program.optimizer(), weights)
        callbacks.epoch(state)
    else:
        program.set_weights(state.weights)
        program.set_optimizer(state.optimizer)
    while not state.ended(plan):
        state = _next(program, (training, validation), plan, state, callbacks)
        callbacks.epoch(state)
    program.set_weights(state.best)
    return state


def _next(program: "Program", data: tuple[Examples, Examples], plan: Plan, state: State, callbacks: Callbacks) -> State:
    """Train and evaluate the next epoch."""
    training, validation = data
    start = time.perf_counter()
    number, steps = state.epoch + 1, -(-len(training.targets) // plan.batch_size)
    try:
        means = _train_epoch(program, training, plan, number, callbacks)
        weights = program.weights()
        # A finite loss is not enough: on CPUs, TensorFlow's ReLU turns NaN into 0.
        if not all(np.isfinite(array).all() for array in weights):
            raise Diverged(number, steps)
        program.hand_back()
        p, objective = _predict(program, validation, plan, number, steps)
    except Diverged as error:
        return replace(state, diverged=error.at)
    found = temperature.fit(p, validation.targets) if plan.keep == "best" else 1.0
    metrics = measure(temperature.scaled(p, found), validation.targets)
    row = replace(_row(number, means, objective, metrics, time.perf_counter() - start), temperature=found)
    state = replace(state, history=(*state.history, row), weights=weights, optimizer=program.optimizer())
    if state.kept_epoch(plan) < number:
        return state
    return replace(state, validation=metrics, best=program.with_temperature(weights, found))


def _row(number: int, means: "Means | None", objective: float, metrics: Metrics, seconds: float) -> Epoch:
    return Epoch(
        number,
        means.loss if means else None,
        means.accuracy if means else None,
        metrics.log_loss,
        metrics.accuracy,
        seconds,
        log_loss=means.log_loss if means else None,
        val_loss=objective,
    )


def order(plan: Plan, epoch: int, n: int) -> NDArray[np.intp]:
    """Return the order of n images in an epoch: a permutation that depends only on seed and epoch."""
    return np.random.default_rng([plan.seed, epoch]).permutation(n)


def views(plan: Plan, epoch: int, n: int, number: int) -> NDArray[np.intp]:
    """Return which of `number` views of each of n images an epoch has; 0 is the image itself."""
    return np.random.default_rng([plan.seed, epoch, _VIEWS]).integers(number + 1, size=n)


def _train_epoch(program: "Program", data: Examples, plan: Plan, number: int, callbacks: Callbacks) -> "Means":
    from finetune.program import Means

    permutation = order(plan, number, len(data.targets))
    sums = np.zeros(3)
    images = 0
    rows = permutation + len(data.targets) * views(plan, number, len(data.targets), data.views)[permutation]
    for step, inputs in enumerate(data.rows.batches(rows, plan.batch_size), start=1):
        interrupts.check()
        targets = data.targets[permutation[images : images + len(inputs)]]
        means = program.step(inputs, targets, number, step)
        if not np.isfinite(means.loss):
            raise Diverged(number, step)
        sums += np.array([means.loss, means.log_loss, means.accuracy]) * len(inputs)
        images += len(inputs)
        callbacks.step(number, images, sums[0] / images)
    return Means(*(float(value) for value in sums / images))


def _predict(
    program: "Program", data: Examples, plan: Plan, number: int, steps: int = 0
) -> tuple[NDArray[np.float64], float]:
    """Return class probabilities and objective on all images of a split.

    Raises:
        Diverged: a prediction or the objective is NaN or infinite; attributed to the last of the epoch's `steps`.
    """
    all_images = np.arange(len(data.targets))
    parts = []
    for inputs in data.rows.batches(all_images, plan.batch_size):
        interrupts.check()
        parts.append(program.predict(inputs))
        if not np.isfinite(parts[-1]).all():
            raise Diverged(number, steps)
    p = np.concatenate(parts)
    objective = program.objective(p, data.targets)
    if not np.isfinite(objective):  # its penalty overflows before a weight does
        raise Diverged(number, steps)
    return p, objective
