"""Training dense heads together: one batched program, the best epoch of each head kept.

Every training image is used in every epoch and every validation image judges it. The order of an epoch and the noise of
dropout are functions of seed, epoch, step and number of units alone: the same for all heads, whichever train together.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from featurize import interrupts
from featurize.backend import load_keras
from heads.features import Features
from heads.head import Head, Layer, Scaler, folded, output_activation, with_both_classes
from heads.history import Epoch
from heads.metrics import losses
from heads.plan import Plan
from heads.specs import DenseSpec

_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Grown:
    """A head that has finished: with the weights of `best` (1, 2, …), or `head` None where its loss never was a number.

    `diverged`: the epoch in which its loss became NaN or infinite, if it did. `seconds`: its share of the time of the heads
    that trained together.
    """

    spec: DenseSpec
    head: Head | None
    best: int
    history: Sequence[Epoch]
    diverged: int | None
    seconds: float


def grow(
    specs: Sequence[DenseSpec],
    classes: Sequence[str],
    train: Features,
    plan: Plan,
    judge_on: Features | Sequence[int],
    on_epoch: Callable[[int], None] = lambda epoch: None,
) -> Iterator[Grown]:
    """Train heads together, and yield each as soon as it has finished.

    Args:
        specs: any number of heads, of any poolings and units.
        judge_on: validation images, whose log-loss decides when a head stops and which epoch is kept; or, where nothing is
            to be chosen, how many epochs each head trains.
        on_epoch: told of each epoch that is done; the last one where all heads stopped earlier.
    """
    began = time.perf_counter()
    program = _Program(specs, classes, train, plan)
    growing = {i: _Growing() for i in range(len(specs))}
    validation = judge_on if isinstance(judge_on, Features) else None
    lengths = [plan.epochs] * len(specs) if isinstance(judge_on, Features) else list(judge_on)
    for epoch in range(1, max(lengths) + 1):
        epoch_began = time.perf_counter()
        loss, accuracy = program.epoch(epoch)
        with np.errstate(all="ignore"):  # a head that diverges is found by its numbers
            judged = None if validation is None else program.judge(validation)
        seconds = (time.perf_counter() - epoch_began) / len(specs)
        for i, own in list(growing.items()):
            if not np.isfinite([loss[i], *(judged[i] if judged else ())]).all():
                own.diverged = epoch
            elif judged:
                own.history.append(Epoch(epoch, float(loss[i]), float(accuracy[i]), *judged[i], seconds))
                if judged[i][0] < own.lowest:
                    own.best, own.lowest, own.kept = epoch, judged[i][0], program.weights(i)
            elif epoch == lengths[i]:
                own.best, own.kept = epoch, program.weights(i)
            tired = judged is not None and epoch - own.best >= plan.patience
            if own.diverged or tired or epoch == lengths[i]:
                del growing[i]
                head = program.head(i, own.kept) if own.kept else None
                share = (time.perf_counter() - began) / len(specs)
                yield Grown(specs[i], head, own.best, own.history, own.diverged, share)
        on_epoch(epoch if growing else max(lengths))
        if not growing:
            return


def untrained(spec: DenseSpec, classes: Sequence[str], train: Features, seed: int) -> Head:
    """Return a head with the weights that training would begin with, its inputs standardised as in training."""
    program = _Program([spec], classes, train, Plan(seed=seed))
    return program.head(0, program.weights(0))


@dataclass
class _Growing:
    """What is kept of one head while it trains."""

    history: list[Epoch] = field(default_factory=list)
    best: int = 0
    lowest: float = np.inf
    kept: list[NDArray[np.float32]] = field(default_factory=list)
    diverged: int | None = None


class _Source:
    """One input of the program: a pooling, standardised or not. Rows are scaled when they are asked for."""

    def __init__(self, spec: DenseSpec, train: Features) -> None:
        from sklearn.preprocessing import StandardScaler

        self.pooling = spec.pooling
        self.scaler: Scaler | None = None
        if spec.standardise:
            x = train.pooled[spec.pooling]
            fitted = StandardScaler()
            for first in range(0, len(x), _ROWS_AT_ONCE):
                fitted.partial_fit(x[first : first + _ROWS_AT_ONCE].astype(np.float64))
            self.scaler = Scaler(fitted.mean_, fitted.scale_)
            self._mean, self._scale = fitted.mean_.astype(np.float32), fitted.scale_.astype(np.float32)

    def rows(self, features: Features, rows: Any) -> NDArray[np.float32]:
        """Return inputs float32 (n, inputs) of some images."""
        x: NDArray[np.float32] = features.pooled[self.pooling][rows].astype(np.float32)
        if self.scaler is not None:
            x = (x - self._mean) / self._scale
        return x


class _Program:
    """The batched model, fed from features. Heads are numbered as in `specs`."""

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
        self.place = {i: (b, h) for b, (_, own) in enumerate(self.blocks) for h, i in enumerate(own)}
        widths = {name: train.pooled[source.pooling].shape[1] for name, source in self.sources.items()}
        described = [(source, [specs[i] for i in own]) for (source, _), own in self.blocks]
        self.model, self.layers = batched.build(described, widths, self.outputs)
        for layer in self.layers:
            _initialise(layer, plan.seed)
        self._y = self._one_hot(train.targets)
        self._weight = compute_sample_weight(plan.class_weight, train.targets).astype(np.float32)

    def _one_hot(self, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.outputs == 1:
            return targets.astype(np.float32).reshape(-1, 1)
        return np.eye(self.outputs, dtype=np.float32)[targets]

    def epoch(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take every step of one epoch; return training loss and accuracy of each head, means over its images."""
        seed, size, n = self.plan.seed, self.plan.batch_size, len(self.train)
        for layer in self.layers:
            layer.tally.assign(np.zeros(layer.tally.shape, np.float32))
        order = np.random.default_rng([seed, number]).permutation(n)
        for step, first in enumerate(range(0, n, size)):
            interrupts.check()
            rows = order[first : first + size]
            real = np.zeros((size, 1), np.float32)
            real[: len(rows)] = 1
            rows = np.resize(rows, size)  # a short last batch is filled up: one shape, compiled once
            batch = {"y": self._y[rows], "weight": self._weight[rows].reshape(-1, 1), "real": real}
            for name, source in self.sources.items():
                batch[f"x_{name}"] = source.rows(self.train, rows)
            for units in {spec.units for spec in self.specs if spec.units}:
                rng = np.random.default_rng([seed, number, step, units])
                batch[f"noise_{units}"] = rng.random((size, units), np.float32)
            self.model.train_on_batch(batch)
        tallies = [_numpy(layer.tally) / n for layer in self.layers]
        both = np.array([tallies[b][:, h] for b, h in (self.place[i] for i in range(len(self.specs)))])
        return both[:, 0], both[:, 1]

    def judge(self, features: Features) -> list[tuple[float, float]]:
        """Return log-loss and accuracy of each head."""
        weights = [[_numpy(w) for w in layer.trainable_variables] for layer in self.layers]
        sums = np.zeros((len(self.specs), 2))
        for first in range(0, len(features), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            targets = features.targets[rows]
            inputs = {name: source.rows(features, rows) for name, source in self.sources.items()}
            for ((source, _), own), arrays in zip(self.blocks, weights, strict=True):
                logits = _forward(inputs[source], arrays).astype(np.float64)
                for h, i in enumerate(own):
                    p = with_both_classes(expit(logits[:, h])) if self.outputs == 1 else softmax(logits[:, h], axis=1)
                    sums[i] += losses(p, targets).sum(), np.sum(p.argmax(axis=1) == targets)
        return [(float(a), float(b)) for a, b in sums / len(features)]

    def weights(self, i: int) -> list[NDArray[np.float32]]:
        """Return a copy of one head's kernels and biases, from bottom to top."""
        block, h = self.place[i]
        return [np.array(_numpy(w)[..., h, :]) for w in self.layers[block].trainable_variables]

    def head(self, i: int, arrays: Sequence[NDArray[np.float32]]) -> Head:
        """Return a head with these weights, the scaler folded into its first layer."""
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
    """Return logits (n, heads, outputs) of a block, without dropout."""
    kernel, bias = arrays[:2]
    logits = (x @ kernel.reshape(len(kernel), -1)).reshape(-1, *bias.shape) + bias
    if len(arrays) > 2:
        logits = np.einsum("nhu,uho->nho", np.maximum(logits, 0), arrays[2], optimize=True) + arrays[3]
    return logits


def _initialise(layer: Any, seed: int) -> None:
    """Set the initial weights: kernels uniform within ±√(6 / (inputs + outputs)), biases 0 (Glorot & Bengio 2010).

    Heads of one shape start alike, so that what sets them apart is their hyper-parameters.
    """
    for variable in layer.trainable_variables:
        if len(variable.shape) == 3:
            inputs, heads, outputs = variable.shape
            limit = np.sqrt(6 / (inputs + outputs))
            one = np.random.default_rng([seed, inputs, outputs]).uniform(-limit, limit, (inputs, 1, outputs))
            variable.assign(np.repeat(one, heads, axis=1).astype(np.float32))
