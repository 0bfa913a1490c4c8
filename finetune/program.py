"""The part of a network above the split point, compiled for training and prediction.

A step depends only on the weights, the optimizer's variables and (seed, epoch, step): the dropout masks are seeded for each step.
So a training that is resumed after any epoch gives bit-identical weights (if the backend is deterministic, as TensorFlow and JAX
are on a CPU), and training from the cache can be compared with training from pixels step by step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.backbone.weights import Weights
from featurize.options.choices import FULL_PRECISION
from finetune.network import LOGITS_LAYER
from finetune.plan import Plan
from heads.head import probabilities

Arrays = list[NDArray[Any]]


@dataclass(frozen=True)
class Means:
    """Mean training metrics of a step or an epoch, with dropout.

    Attributes:
        loss: the minimised loss, with penalties, label smoothing and class weights.
        log_loss, accuracy: without them.
    """

    loss: float
    log_loss: float
    accuracy: float


class Program:
    """Trains a part of an assembled network in place; in mixed precision a copy of it, see `hand_back`."""

    def __init__(self, part: Any, plan: Plan, targets: NDArray[np.int64], pretrained: Weights) -> None:
        """Compile the part.

        Args:
            part: model from the split point, or from pixels, to the logits. Frozen layers stay frozen.
            plan: training settings.
            targets: classes of the training images, (n,); they determine class weights and the number of steps.
            pretrained: pretrained backbone weights, for the L2-SP penalty.
        """
        self.plan = plan
        self.outputs = part.output_shape[-1]
        self._part = part
        self._classes = max(2, self.outputs)
        self._weights = _class_weights(plan.class_weight, targets, self._classes)
        architecture = pretrained.architecture
        inner = part if plan.precision == FULL_PRECISION else _recast(part, architecture, plan.precision)
        self._model = _Penalised(inner.input, inner.output, name="tuned")
        tuned = _tuned(self._model, architecture)
        self._model.penalty = _Pull(plan.l2_sp, [(layer, pretrained.arrays[layer.name]) for layer in tuned])
        self._dropouts = [
            layer for layer in self._model.layers if isinstance(layer, keras.layers.Dropout) and layer.rate
        ]
        steps = -(-len(targets) // plan.batch_size) * plan.epochs
        self._optimizer = _optimizer(plan, self._model, tuned, steps)
        if self.outputs == 1:
            loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=plan.label_smoothing)
            metrics = [keras.metrics.BinaryCrossentropy(from_logits=True, name="log_loss"), _Accuracy()]
        else:
            loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=plan.label_smoothing)
            metrics = [
                keras.metrics.CategoricalCrossentropy(from_logits=True, name="log_loss"),
                keras.metrics.CategoricalAccuracy(name="accuracy"),
            ]
        # No XLA on TensorFlow: on CPUs, training steps are slower, and compiling takes seconds for each batch size.
        jit = keras.backend.backend() == "jax"
        self._model.compile(self._optimizer, loss=loss, metrics=metrics, jit_compile=jit)
        self._inference = self._model
        if inner is not part:  # a separate model, because Keras saves the compile settings of `part` with the network
            self._inference = keras.Model(part.input, part.output)
            self._inference.compile(jit_compile=jit)
        self._optimizer.build(self._model.trainable_variables)

    def step(self, inputs: NDArray[Any], targets: NDArray[np.int64], epoch: int, number: int) -> Means:
        """Train on one batch.

        Args:
            inputs: (batch, …), any numeric type; cast to float32 on the device.
            targets: indices of the true classes, (batch,).
            epoch, number: numbers of the epoch and of the step in it, from 1.
        """
        for i, layer in enumerate(self._dropouts):
            state = layer.seed_generator.state
            seeds = np.random.default_rng([self.plan.seed, epoch, number, i]).integers(2**31, size=2)
            state.assign(ops.convert_to_tensor(seeds, dtype=state.dtype))
        y = self._encoded(targets)
        logs = self._model.train_on_batch(inputs, y, self._weights[targets], return_dict=True)
        return Means(float(logs["loss"]), float(logs["log_loss"]), float(logs["accuracy"]))

    def predict(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """Return class probabilities (batch, classes), computed in float32 in any training precision."""
        return probabilities(ops.convert_to_numpy(self._inference.predict_on_batch(inputs)))

    def objective(self, p: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
        """Return the training loss, penalties included, for class probabilities `p` (n, classes) and the current weights.

        Probabilities are clipped at the resolution of float64, as in `heads.metrics.losses`.
        """
        smooth = self.plan.label_smoothing
        y = np.eye(self._classes)[targets] * (1 - smooth) + smooth / self._classes
        clipped = np.clip(p, np.finfo(np.float64).eps, 1)
        return float(np.mean(self._weights[targets] * -(y * np.log(clipped)).sum(axis=1)) + self._model.penalty())

    def hand_back(self) -> None:
        """Copy the trained weights to the original part, if training uses a copy."""
        if self.plan.precision != FULL_PRECISION:
            self._part.set_weights(self._model.get_weights())

    def weights(self) -> Arrays:
        """Return a copy of all weights."""
        return [np.array(w) for w in self._model.get_weights()]

    def with_temperature(self, arrays: Sequence[NDArray[Any]], temperature: float) -> Arrays:
        """Return a copy of all weights whose logits are divided by `temperature`."""
        last = {variable.path for variable in self._model.get_layer(LOGITS_LAYER).weights}
        return [
            array / np.float32(temperature) if variable.path in last else array.copy()
            for array, variable in zip(arrays, self._model.weights, strict=True)
        ]

    def set_weights(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Set all weights, also those of the original part."""
        self._model.set_weights(list(arrays))
        self.hand_back()

    def optimizer(self) -> Arrays:
        """Return a copy of the optimizer's variables: step count, momenta, loss scale."""
        return [np.array(variable.numpy()) for variable in self._optimizer.variables]

    def set_optimizer(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Set the optimizer's variables."""
        for variable, array in zip(self._optimizer.variables, arrays, strict=True):
            variable.assign(array)

    def _encoded(self, targets: NDArray[np.int64]) -> NDArray[np.float32]:
        if self.outputs == 1:
            return targets.astype(np.float32).reshape(-1, 1)
        return np.eye(self._classes, dtype=np.float32)[targets]


class _Penalised(keras.Model):
    """A model with a penalty on its weights; the penalty is not saved with the model."""

    penalty: Any

    def compute_loss(self, *arguments: Any, **options: Any) -> Any:
        """Add the penalty to the loss."""
        return super().compute_loss(*arguments, **options) + self.penalty.tensor()


class _Accuracy(keras.metrics.MeanMetricWrapper):
    """Binary accuracy from logits."""

    def __init__(self) -> None:
        super().__init__(lambda y, logits: ops.equal(y > 0.5, logits > 0), name="accuracy")


class _Pull:
    """α/2 · ‖w − w⁰‖² over kernels and biases of some layers."""

    def __init__(self, alpha: float, layers: Sequence[tuple[Any, Sequence[NDArray[Any]]]]) -> None:
        self._alpha = alpha
        self._pairs = [pair for layer, start in layers for pair in zip(layer.trainable_variables, start, strict=True)]

    def tensor(self) -> Any:
        if not self._alpha:
            return 0.0
        return self._alpha / 2 * sum(ops.sum(ops.square(variable - start)) for variable, start in self._pairs)

    def __call__(self) -> float:
        return float(ops.convert_to_numpy(self.tensor()))


def _class_weights(kind: str | None, targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Return the weight of each class; 1 for classes without training images."""
    from sklearn.utils.class_weight import compute_class_weight

    weights = np.ones(classes, np.float32)
    present = np.unique(targets)
    weights[present] = compute_class_weight(kind, classes=present, y=targets)
    return weights


class _LayerRates:
    """Optimizer mix-in: a factor on the learning rate of each variable."""

    factors: Sequence[float]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        factor = self.factors[self._get_variable_index(variable)]  # type: ignore[attr-defined]
        super().update_step(gradient, variable, learning_rate * factor)  # type: ignore[misc]


class LayeredSgd(_LayerRates, keras.optimizers.SGD):
    """SGD with a learning rate for each layer."""


class LayeredAdam(_LayerRates, keras.optimizers.Adam):
    """Adam with a learning rate for each layer."""


class _Cosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear rise over the first `warmup` steps, then a cosine that is 0 after the last step.

    Keras's CosineDecay begins its rise with a step of rate 0, which may be the only step of an epoch.
    """

    def __init__(self, rate: float, warmup: int, steps: int) -> None:
        self._rate, self._warmup, self._steps = rate, warmup, steps

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rising = (step + 1) / max(1, self._warmup)
        falling = (1 + ops.cos(np.pi * (step - self._warmup) / max(1, self._steps - self._warmup))) / 2
        return self._rate * ops.where(step < self._warmup, rising, falling)


def _tuned(model: Any, architecture: Architecture) -> list[Any]:
    """Return the trainable convolutions of a model, from input to output."""
    trained = {layer.name: layer for layer in model.layers if layer.trainable}
    return [trained[layer.name] for layer in architecture.convolutions if layer.name in trained]


def _optimizer(plan: Plan, model: Any, tuned: Sequence[Any], steps: int) -> Any:
    rate: Any = plan.learning_rate
    if plan.schedule == "cosine":
        rate = _Cosine(plan.learning_rate, steps // plan.epochs, steps)
    if plan.optimizer == "sgd":
        optimizer = LayeredSgd(rate, momentum=float(plan.momentum), global_clipnorm=plan.clip)
    else:
        optimizer = LayeredAdam(rate, global_clipnorm=plan.clip)
    optimizer.factors = _factors(plan.layer_decay, model, tuned)
    return optimizer if plan.precision == FULL_PRECISION else keras.optimizers.LossScaleOptimizer(optimizer)


def _factors(decay: float, model: Any, tuned: Sequence[Any]) -> list[float]:
    """Return the factor of each trainable variable: 1 in the head, `decay` in the last convolution, and so on down."""
    from_last = enumerate(reversed(tuned), start=1)
    factor = {id(v): decay**depth for depth, layer in from_last for v in layer.trainable_variables}
    return [factor.get(id(variable), 1.0) for variable in model.trainable_variables]


def _recast(part: Any, architecture: Architecture, precision: str) -> Any:
    """Return a copy of a part with the backbone in another precision; the head stays in float32."""

    def copy(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in architecture.names:
            config["dtype"] = precision
        return type(layer).from_config(config)

    recast = keras.models.clone_model(part, clone_function=copy)
    recast.set_weights(part.get_weights())
    return recast
