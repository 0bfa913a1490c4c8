"""Training above the split point, epochs over cached outputs: stochastic gradient descent from the best head, epoch 0 included.

Every training image is used in every epoch and every validation image judges it: no step is left out at the end.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backend import load_keras
from featurize.errors import VggftError
from finetune.network import above
from heads.head import with_both_classes
from heads.history import Epoch
from heads.metrics import Metrics, judge


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum; the defaults are those of the original experiment."""

    learning_rate: float = 1e-4
    momentum: float = 0.9


@dataclass(frozen=True)
class Examples:
    """Inputs (n, …) of any float type, and targets (n,), positions of the true classes."""

    inputs: NDArray[Any]
    targets: NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """How long and in what order to train. The order of epoch e is a function of seed and e alone."""

    epochs: int
    batch_size: int
    seed: int
    from_epoch_zero: bool = False  # the network as it was handed in may be the best (fine-tuning)


@dataclass(frozen=True)
class Trained:
    """Learning curve, and the epoch whose weights the model now has (the lowest validation log-loss)."""

    history: list[Epoch]
    best: Epoch
    validation: Metrics  # of the best epoch
    start: Metrics | None  # of epoch 0, where it was measured


class Diverged(Exception):
    """The loss became NaN or infinite."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__(f"the loss is no number at epoch {epoch}, step {step}")


def train(
    network: Any,
    split_point: str,
    data: tuple[Examples, Examples],
    plan: Plan,
    sgd: Sgd,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train an assembled network's layers above the split point, and leave it with the weights of the best epoch.

    Args:
        network: from `finetune.network.assemble`.
        data: training and validation examples whose inputs are the split point's outputs (n, height, width, filters).
        plan: `from_epoch_zero` should be set, so that the head as it came may win.

    Raises:
        VggftError: the loss became NaN or infinite.
    """
    keras = load_keras()

    keras.utils.set_random_seed(plan.seed)
    upper = above(network, split_point)
    compile_for(upper, keras.optimizers.SGD(sgd.learning_rate, momentum=sgd.momentum))
    try:
        return fit(upper, *data, plan, on_epoch)
    except Diverged as error:
        raise VggftError(
            f"{error}, with --lr {sgd.learning_rate:g}. Try a tenth of it: --lr {sgd.learning_rate / 10:g}"
        ) from None


def compile_for(model: Any, optimizer: Any) -> None:
    """Compile for one sigmoid unit or a softmax, whichever the model ends in."""
    keras = load_keras()

    binary = model.output_shape[-1] == 1
    loss = keras.losses.BinaryCrossentropy() if binary else keras.losses.SparseCategoricalCrossentropy()
    accuracy = keras.metrics.BinaryAccuracy() if binary else keras.metrics.SparseCategoricalAccuracy()
    # XLA is left off on TensorFlow: measured on CPUs, its training step is slower, and each batch size costs seconds more.
    jit = keras.backend.backend() == "jax"
    model.compile(optimizer, loss=loss, metrics=[accuracy], jit_compile=jit)


def fit(
    model: Any,
    train: Examples,
    validation: Examples,
    plan: Plan,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train a compiled model and leave it with the weights of its best epoch.

    Raises:
        Diverged: the loss is no number; the model has the weights of its best epoch so far, if there was one.
    """
    history: list[Epoch] = []
    best: tuple[Epoch, Metrics, list[NDArray[Any]]] | None = None
    start = None

    def close(epoch: Epoch, measured: Metrics) -> None:
        nonlocal best
        history.append(epoch)
        if best is None or measured.log_loss < best[0].val_log_loss:
            best = (epoch, measured, model.get_weights())
        on_epoch(epoch)

    if plan.from_epoch_zero:
        began = time.perf_counter()
        start = judge(predict(model, validation.inputs, plan.batch_size), validation.targets)
        close(Epoch(0, None, None, start.log_loss, start.accuracy, time.perf_counter() - began), start)
    try:
        for number in range(1, plan.epochs + 1):
            began = time.perf_counter()
            loss, accuracy = _one_epoch(model, train, plan, number)
            measured = judge(predict(model, validation.inputs, plan.batch_size), validation.targets)
            seconds = time.perf_counter() - began
            close(Epoch(number, loss, accuracy, measured.log_loss, measured.accuracy, seconds), measured)
    finally:
        if best is not None:
            model.set_weights(best[2])
    assert best is not None  # a plan has at least one epoch
    return Trained(history, best[0], best[1], start)


def _one_epoch(model: Any, train: Examples, plan: Plan, number: int) -> tuple[float, float]:
    """Take every step of one epoch; return loss and accuracy as means over its images."""
    order = np.random.default_rng([plan.seed, number]).permutation(len(train.targets))
    loss = accuracy = 0.0
    for step, first in enumerate(range(0, len(order), plan.batch_size), start=1):
        chosen = order[first : first + plan.batch_size]
        targets = train.targets[chosen].astype(np.float32).reshape(-1, 1)
        model.reset_metrics()  # what comes back is of this batch alone, whatever a backend carries over
        logs = model.train_on_batch(train.inputs[chosen].astype(np.float32), targets, return_dict=True)
        if not np.isfinite(float(logs["loss"])):
            raise Diverged(number, step)
        loss += float(logs["loss"]) * len(chosen)
        accuracy += next(float(value) for key, value in logs.items() if key.endswith("accuracy")) * len(chosen)
    return loss / len(order), accuracy / len(order)


def predict(model: Any, inputs: NDArray[Any], batch_size: int) -> NDArray[np.float64]:
    """Return class probabilities (n, classes), the batches cast to float32 one at a time."""
    parts = []
    for first in range(0, len(inputs), batch_size):
        batch = inputs[first : first + batch_size].astype(np.float32)
        parts.append(with_both_classes(model.predict_on_batch(batch)))
    return np.concatenate(parts)
