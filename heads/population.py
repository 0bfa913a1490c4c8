"""Training dense heads together in one batched model, keeping each head's best epoch.

Every epoch uses all training images, and is evaluated on all validation images. The order of images and the dropout masks
depend only on seed, epoch, step and number of units, so a head is the same whichever heads it is trained with.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from featurize.backend import load_keras
from featurize.process import interrupts
from heads.features import Features
from heads.head import Head, Layer, Scaler, folded, output_activation, scales, with_both_classes
from heads.history import Epoch
from heads.metrics import losses
from heads.plan import Plan
from heads.specs import DenseSpec

_ROWS_AT_ONCE = 256
_VIEWS = 1  # for the seed that chooses views


@dataclass(frozen=True)
class TrainedHead:
    """The result of training one head.

    Attributes:
        head: with the weights of the best epoch; None if the loss diverged before any epoch could be kept.
        best: the epoch (1, 2, …) whose weights are kept; 0 if `head` is None.
        history: the learning curve; empty without validation images.
        diverged: the epoch in which the loss became NaN or infinite, or None.
        seconds: time until the head was finished, divided by the number of heads that were trained together.
    """

    spec: DenseSpec
    head: Head | None
    best: int
    history: Sequence[Epoch]
    diverged: int | None
    seconds: float


def train_together(
    specs: Sequence[DenseSpec],
    classes: Sequence[str],
    train: Features,
    plan: Plan,
    stopping: Features | Sequence[int],
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Iterator[TrainedHead]:
    """Train heads together, and yield each one as soon as its training ends.

    Args:
        specs: any number of heads, with any poolings and units.
        stopping: validation images for early stopping and for choosing the best epoch; or a fixed number of epochs for
            each head.
        on_epoch: called with the number of each finished epoch; with the last number if all heads stopped early.
    """
    start = time.perf_counter()
    trainer = _BatchedTrainer(specs, classes, train, plan)
    training = {i: _Training() for i in range(len(specs))}
    validation = stopping if isinstance(stopping, Features) else None
    lengths = [plan.epochs] * len(specs) if isinstance(stopping, Features) else list(stopping)
    for epoch in range(1, max(lengths) + 1):
        epoch_start = time.perf_counter()
        loss, accuracy = trainer.epoch(epoch)
        with np.errstate(all="ignore"):  # diverged heads are detected below
            scores = None if validation is None else trainer.evaluate(validation)
        seconds = (time.perf_counter() - epoch_start) / len(specs)
        for i, state in list(training.items()):
            if not np.isfinite([loss[i], *(scores[i] if scores else ())]).all():
                state.diverged = epoch
            elif scores:
                state.history.append(Epoch(epoch, float(loss[i]), float(accuracy[i]), *scores[i], seconds))
                if scores[i][0] < state.best_log_loss:
                    state.best, state.best_log_loss, state.best_weights = epoch, scores[i][0], trainer.weights(i)
            elif epoch == lengths[i]:
                state.best, state.best_weights = epoch, trainer.weights(i)
            out_of_patience = scores is not None and epoch - state.best >= plan.patience
            if state.diverged or out_of_patience or epoch == lengths[i]:
                del training[i]
                head = trainer.head(i, state.best_weights) if state.best_weights else None
                share = (time.perf_counter() - start) / len(specs)
                yield TrainedHead(specs[i], head, state.best, state.history, state.diverged, share)
        on_epoch(epoch if training else max(lengths))
        if not training:
            trainer.release()
            return


def untrained(spec: DenseSpec, classes: Sequence[str], train: Features, seed: int) -> Head:
    """Return a head with the initial weights of training, its inputs standardised as in training."""
    trainer = _BatchedTrainer([spec], classes, train, Plan(seed=seed))
    head = trainer.head(0, trainer.weights(0))
    trainer.release()
    return head


@dataclass
class _Training:
    """State of one head during training."""

    history: list[Epoch] = field(default_factory=list)
    best: int = 0
    best_log_loss: float = np.inf
    best_weights: list[NDArray[np.float32]] = field(default_factory=list)
    diverged: int | None = None


class _Source:
    """One input of the batched model: a pooling, standardised or not. Rows are scaled on access."""

    def __init__(self, spec: DenseSpec, train: Features) -> None:
        from sklearn.preprocessing import StandardScaler

        self.pooling = spec.pooling
        self.scaler: Scaler | None = None
        if spec.standardise:
            fitted = StandardScaler()
            for x in (pooled[spec.pooling] for pooled in (train.pooled, *train.views)):
                for first in range(0, len(x), _ROWS_AT_ONCE):
                    fitted.partial_fit(x[first : first + _ROWS_AT_ONCE].astype(np.float64))
            self.scaler = Scaler(fitted.mean_, scales(fitted.var_, spec.pooling))
            self._mean, self._scale = self.scaler.mean.astype(np.float32), self.scaler.scale.astype(np.float32)

    def rows(self, features: Features, rows: Any, views: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Return float32 inputs (n, inputs) of the images at `rows`, or of one view of each (0: the image itself)."""
        x: NDArray[np.float32] = features.pooled[self.pooling][rows].astype(np.float32)
        for number, pooled in enumerate(features.views if views is not None else (), start=1):
            chosen = views == number
            x[chosen] = pooled[self.pooling][rows[chosen]]
        if self.scaler is not None:
            x = (x - self._mean) / self._scale
        return x


class _BatchedTrainer:
    """The batched model and its training data. Heads are numbered as in `specs`."""

    def __init__(self, specs: Sequence[DenseSpec], classes: Sequence[str], train: Features, plan: Plan) -> None:
        from sklearn.utils.class_weight import compute_sample_weight

        load_keras()
        from heads import batched

        self.specs, self.classes, self.train, self.plan = specs, tuple(classes), train, plan
        self.outputs, self.activation = output_activation(classes)
        self.sources: dict[str, _Source] = {}
        members: dict[tuple[str, int], list[int]] = {}
        for i, spec in enumerate(specs):
            source = spec.pooling if spec.standardise else f"{spec.pooling}_raw"
            if source not in self.sources:
                self.sources[source] = _Source(spec, train)
            members.setdefault((source, spec.units), []).append(i)
        self.blocks = list(members.items())
        self.place = {i: (b, h) for b, (_, heads) in enumerate(self.blocks) for h, i in enumerate(heads)}
        widths = {name: train.pooled[source.pooling].shape[1] for name, source in self.sources.items()}
        block_specs = [(source, [specs[i] for i in heads]) for (source, _), heads in self.blocks]
        self._batched = batched.take(block_specs, widths, self.outputs)
        self.model, self.layers = self._batched.model, self._batched.layers
        for layer in self.layers:
            _initialise(layer, plan.seed)
        self._y = self._one_hot(train.targets)
        self._weight = compute_sample_weight(plan.class_weight, train.targets).astype(np.float32)

    def _one_hot(self, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.outputs == 1:
            return targets.astype(np.float32).reshape(-1, 1)
        return np.eye(self.outputs, dtype=np.float32)[targets]

    def release(self) -> None:
        """Hand the model over to the next training of such heads."""
        from heads import batched

        batched.give_back(self._batched)

    def epoch(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Train for one epoch; return each head's mean training loss and accuracy."""
        seed, size, n = self.plan.seed, self.plan.batch_size, len(self.train)
        for layer in self.layers:
            layer.tally.assign(np.zeros(layer.tally.shape, np.float32))
        order = np.random.default_rng([seed, number]).permutation(n)
        view = np.random.default_rng([seed, number, _VIEWS]).integers(len(self.train.views) + 1, size=n)
        for step, first in enumerate(range(0, n, size)):
            interrupts.check()
            rows = order[first : first + size]
            real = np.zeros((size, 1), np.float32)
            real[: len(rows)] = 1
            rows = np.resize(rows, size)  # pads a short last batch, so that only one shape is compiled
            batch = {"y": self._y[rows], "weight": self._weight[rows].reshape(-1, 1), "real": real}
            for name, source in self.sources.items():
                batch[f"x_{name}"] = source.rows(self.train, rows, view[rows])
            for units in {spec.units for spec in self.specs if spec.units}:
                rng = np.random.default_rng([seed, number, step, units])
                batch[f"noise_{units}"] = rng.random((size, units), np.float32)
            self.model.train_on_batch(batch)
        tallies = [_numpy(layer.tally) / n for layer in self.layers]
        both = np.array([tallies[b][:, h] for b, h in (self.place[i] for i in range(len(self.specs)))])
        return both[:, 0], both[:, 1]

    def evaluate(self, features: Features) -> list[tuple[float, float]]:
        """Return log-loss and accuracy of each head."""
        weights = [[_numpy(w) for w in layer.trainable_variables] for layer in self.layers]
        sums = np.zeros((len(self.specs), 2))
        for first in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            targets = features.targets[rows]
            inputs = {name: source.rows(features, rows) for name, source in self.sources.items()}
            for ((source, _), heads), arrays in zip(self.blocks, weights, strict=True):
                logits = _forward(inputs[source], arrays).astype(np.float64)
                for h, i in enumerate(heads):
                    p = with_both_classes(expit(logits[:, h])) if self.outputs == 1 else softmax(logits[:, h], axis=1)
                    sums[i] += losses(p, targets).sum(), np.sum(p.argmax(axis=1) == targets)
        return [(float(a), float(b)) for a, b in sums / len(features)]

    def weights(self, i: int) -> list[NDArray[np.float32]]:
        """Return a copy of one head's kernels and biases, from input to output."""
        block, h = self.place[i]
        return [np.array(_numpy(w)[..., h, :]) for w in self.layers[block].trainable_variables]

    def head(self, i: int, arrays: Sequence[NDArray[np.float32]]) -> Head:
        """Return head `i` with the given weights and the scaler folded into its first layer."""
        spec = self.specs[i]
        activations = ["relu", self.activation] if spec.units else [self.activation]
        layers = [Layer(arrays[2 * k], arrays[2 * k + 1], activation) for k, activation in enumerate(activations)]
        (source, _), _ = self.blocks[self.place[i][0]]
        scaler = self.sources[source].scaler
        if scaler is not None:
            layers[0] = folded(layers[0], scaler)
        return Head(spec.name, "dense", spec.pooling, self.classes, tuple(layers), spec.dropout, scaler=scaler)


def _numpy(variable: Any) -> NDArray[np.float32]:
    return np.asarray(load_keras().ops.convert_to_numpy(variable))


def _forward(x: NDArray[np.float32], arrays: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return a block's logits (n, heads, outputs), without dropout."""
    kernel, bias = arrays[:2]
    logits = (x @ kernel.reshape(len(kernel), -1)).reshape(-1, *bias.shape) + bias
    if len(arrays) > 2:
        logits = np.einsum("nhu,uho->nho", np.maximum(logits, 0), arrays[2], optimize=True) + arrays[3]
    return logits


def _initialise(layer: Any, seed: int) -> None:
    """Set the initial weights: kernels uniform within ±√(6 / (inputs + outputs)), biases 0 (Glorot & Bengio 2010).

    Heads of the same shape start from the same weights, so that they differ only by their hyper-parameters.
    """
    for variable in layer.trainable_variables:
        if len(variable.shape) == 3:
            inputs, heads, outputs = variable.shape
            limit = np.sqrt(6 / (inputs + outputs))
            kernel = np.random.default_rng([seed, inputs, outputs]).uniform(-limit, limit, (inputs, 1, outputs))
            variable.assign(np.repeat(kernel, heads, axis=1).astype(np.float32))
