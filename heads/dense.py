"""Dense heads: what they look like and how one is trained on pooled features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Head, Layer, Pooling, output_activation
from heads.training import Epoch, Examples, Plan, Trained, compile_for, fit


@dataclass(frozen=True)
class DenseSpec:
    """Architecture and hyper-parameters of a dense head: pooling → hidden ReLU units → dropout → classes."""

    name: str
    pooling: Pooling
    units: int
    dropout: float
    learning_rate: float  # of Adam (Kingma & Ba, arXiv:1412.6980), other parameters as Keras has them


def train(
    spec: DenseSpec,
    classes: Sequence[str],
    train: Examples,
    validation: Examples,
    plan: Plan,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Head, Trained]:
    """Train one dense head.

    Args:
        train: pooled features (n, inputs) and targets (n,); validation: the same, deciding which epoch is kept.

    Returns:
        The head with the weights of its best epoch, and its learning curve. Provenance is left to the caller.
    """
    import keras

    keras.utils.set_random_seed(plan.seed)
    units, activation = output_activation(classes)
    model: Any = keras.Sequential(
        [
            keras.Input(train.inputs.shape[1:]),
            keras.layers.Dense(spec.units, activation="relu"),
            keras.layers.Dropout(spec.dropout, seed=plan.seed),
            keras.layers.Dense(units, activation=activation),
        ]
    )
    compile_for(model, keras.optimizers.Adam(spec.learning_rate))
    trained = fit(model, train, validation, plan, on_epoch)
    hidden, output = (
        [_float32(array) for array in layer.get_weights()] for layer in (model.layers[0], model.layers[-1])
    )
    layers = (Layer(hidden[0], hidden[1], "relu"), Layer(output[0], output[1], activation))
    return Head(spec.name, "dense", spec.pooling, tuple(classes), layers, spec.dropout), trained


def _float32(array: Any) -> NDArray[np.float32]:
    return np.asarray(array, np.float32)
