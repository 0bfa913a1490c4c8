"""Many dense heads as one Keras model, each with its own learning rate. Imports Keras at import time.

Heads share no parameters and no optimizer state, so each is trained as it would be alone.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from featurize.backend import gpus
from heads.specs import DenseSpec


class Block(keras.layers.Layer):
    """Heads with the same inputs and the same number of hidden units, computed in one matrix product.

    Axis −2 of every weight is the head: kernel1 (inputs, heads, units), bias1 (heads, units), kernel2 (units, heads, outputs),
    bias2 (heads, outputs). A linear block has only kernel1 (inputs, heads, outputs) and bias1. `tally` (2, heads) accumulates
    the summed loss and the number of correct predictions over an epoch.
    """

    def __init__(self, specs: Sequence[DenseSpec], outputs: int, **options: Any) -> None:
        """Group `specs`, all with the same inputs and units; `outputs` is 1 (sigmoid) or the number of classes (softmax)."""
        super().__init__(dtype="float32", **options)  # whatever policy the program has set
        self.specs = tuple(specs)
        self.outputs = outputs
        self.hidden = specs[0].units
        self.dropout = np.array([[spec.dropout] for spec in specs], np.float32)  # (heads, 1)
        self.l2 = np.array([spec.l2 for spec in specs], np.float32)

    def build(self, shapes: dict[str, Any]) -> None:
        """Create the weights as zeros; `heads.population` sets the initial values."""
        heads, units = len(self.specs), self.hidden or self.outputs
        inputs = shapes["x"][-1]
        self.kernel1 = self.add_weight(shape=(inputs, heads, units), initializer="zeros", name="kernel1")
        self.bias1 = self.add_weight(shape=(heads, units), initializer="zeros", name="bias1")
        if self.hidden:
            shape = (units, heads, self.outputs)
            self.kernel2 = self.add_weight(shape=shape, initializer="zeros", name="kernel2")
            self.bias2 = self.add_weight(shape=(heads, self.outputs), initializer="zeros", name="bias2")
        self.tally = self.add_weight(shape=(2, heads), initializer="zeros", trainable=False, name="tally")

    def call(self, batch: dict[str, Any]) -> Any:
        """Return logits (b, heads, outputs), and add the sum of the heads' losses to the layer's loss.

        Args:
            batch: x (b, inputs); y (b, outputs), 0 or 1; weight (b, 1), the weight of each image in the loss; real (b, 1),
                0 for padding rows; noise (b, units), uniform in [0, 1), the random numbers for dropout.
        """
        x, y, real = batch["x"], batch["y"], batch["real"]
        heads, units = len(self.specs), self.hidden or self.outputs
        flat = ops.reshape(self.kernel1, (-1, heads * units))
        logits = ops.reshape(ops.matmul(x, flat), (-1, heads, units)) + self.bias1
        if self.hidden:
            hidden = ops.relu(logits)
            if self.dropout.any():
                rates = ops.convert_to_tensor(self.dropout)  # PyTorch does not mix tensors and NumPy arrays
                mask = ops.cast(ops.expand_dims(batch["noise"], 1) >= rates, hidden.dtype)
                hidden = hidden * mask / (1 - rates)
            logits = ops.einsum("bhu,uho->bho", hidden, self.kernel2) + self.bias2
        y = ops.expand_dims(y, 1)
        if self.outputs == 1:
            losses = ops.softplus(logits) - y * logits
            correct = ops.equal(logits > 0, y > 0.5)
        else:
            losses = ops.logsumexp(logits, axis=-1, keepdims=True) - ops.sum(y * logits, axis=-1, keepdims=True)
            correct = ops.equal(ops.argmax(logits, axis=-1, keepdims=True), ops.argmax(y, axis=-1, keepdims=True))
        losses = ops.sum(losses[:, :, 0] * batch["weight"] * real, axis=0)  # (heads,)
        self.tally.assign_add(ops.stack([losses, ops.sum(ops.cast(correct[:, :, 0], real.dtype) * real, axis=0)]))
        self.add_loss(ops.sum(losses) / ops.sum(real))
        if self.l2.any():
            kernels = [self.kernel1, self.kernel2] if self.hidden else [self.kernel1]
            squares = sum(ops.sum(ops.square(kernel), axis=(0, 2)) for kernel in kernels)
            self.add_loss(ops.sum(squares * ops.convert_to_tensor(self.l2)))
        return logits


_LEARNING_RATE = 1.0  # of the optimizer; each head has its own factor


class AdamPerHead(keras.optimizers.Adam):
    """Adam with a separate learning rate for each head."""

    def __init__(self, rates: Sequence[NDArray[np.float32]]) -> None:
        """Set the learning rates: an array (heads, 1) for each trainable variable, in the order of the variables."""
        super().__init__(learning_rate=_LEARNING_RATE)
        self.rates = rates

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable."""
        rates = ops.convert_to_tensor(self.rates[self._get_variable_index(variable)])
        super().update_step(gradient, variable, learning_rate * rates)


@dataclass(frozen=True)
class Batched:
    """A compiled model that trains several blocks at once.

    Attributes:
        form: blocks, widths and outputs that it was built for.
        model: takes y, weight, real, x_<input> and noise_<units>.
        layers: its blocks.
    """

    form: Hashable
    model: Any
    layers: tuple[Block, ...]


# Parameters of a model whose steps XLA compiles: the pooled default heads together have 790,000, the classic head 6.4 million.
_MANY = 500_000
_KEPT = 4
_idle: dict[Hashable, Batched] = {}


def take(blocks: Sequence[tuple[str, Sequence[DenseSpec]]], widths: dict[str, int], outputs: int) -> Batched:
    """Return a model with all weights 0: one that an earlier training gave back, or a new one.

    Cross-validation trains the same heads in every fold, and TensorFlow takes longer to trace a step than to train some heads.

    Args:
        blocks: the name of each block's input, and its heads.
        widths: input name → features per image.
        outputs: units in the last layer of each head.
    """
    form = (tuple((source, tuple(specs)) for source, specs in blocks), tuple(widths.items()), outputs)
    batched = _idle.pop(form, None)
    if batched is None:
        return Batched(form, *_build(blocks, widths, outputs))
    optimizer = batched.model.optimizer
    for variable in (*batched.model.variables, *optimizer.variables):  # JAX's `zeros_like` takes no variable
        variable.assign(ops.zeros(variable.shape, variable.dtype))
    optimizer.learning_rate = _LEARNING_RATE
    return batched


def give_back(batched: Batched) -> None:
    """Keep a model that is not used any more for a later training; the last few are kept."""
    while len(_idle) >= _KEPT:
        _idle.pop(next(iter(_idle)), None)
    _idle[batched.form] = batched


def _fused(parameters: int) -> bool:
    """Return whether XLA compiles a training step: always on JAX, on TensorFlow only on a CPU, where it was measured.

    Adam passes over all weights about ten times, and once if XLA fuses its operations. With few weights, that saves less time
    than compiling takes.
    """
    backend = keras.backend.backend()
    return backend == "jax" or (backend == "tensorflow" and parameters >= _MANY and not gpus())


def _build(
    blocks: Sequence[tuple[str, Sequence[DenseSpec]]], widths: dict[str, int], outputs: int
) -> tuple[Any, tuple[Block, ...]]:
    shared = {name: keras.Input((size,), name=name) for name, size in (("y", outputs), ("weight", 1), ("real", 1))}
    entries = dict(shared)
    layers, logits = [], []
    for number, (source, specs) in enumerate(blocks):
        x = entries.setdefault(f"x_{source}", keras.Input((widths[source],), name=f"x_{source}"))
        batch = {**shared, "x": x}
        if units := specs[0].units:
            batch["noise"] = entries.setdefault(f"noise_{units}", keras.Input((units,), name=f"noise_{units}"))
        layers.append(Block(specs, outputs, name=f"block{number}"))
        logits.append(layers[-1](batch))
    model = keras.Model(entries, logits)
    rates = {
        id(variable): np.array([[spec.learning_rate] for spec in layer.specs], np.float32)
        for layer in layers
        for variable in layer.trainable_variables
    }
    adam = AdamPerHead([rates[id(variable)] for variable in model.trainable_variables])
    adam.build(
        model.trainable_variables
    )  # else TensorFlow traces a step twice: once to create the optimizer's variables
    model.compile(adam, loss=None, jit_compile=_fused(model.count_params()))
    return model, tuple(layers)
