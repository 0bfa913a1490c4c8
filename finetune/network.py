"""Backbone and head as one network from pixels to scores; freezing layers; the parity gate."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.backbone.network import between, build
from featurize.backbone.weights import Weights
from featurize.backend import load_keras
from featurize.errors import VggftError
from featurize.options.choices import FULL_PRECISION, MIXED_PRECISION, Precision
from heads.head import Head, unfolded, with_both_classes

# Largest allowed difference between the probabilities of the assembled network (float32, from pixels) and of the head on cached
# float16 features, by the precision in which the features were computed. Storage in float16 changes a probability by less than
# 1e-4, and computing in 16 bits by 2.5e-3 (measured on 16 photographs); a wrong layer, order or preprocessing by far more.
PARITY_BOUNDS = {FULL_PRECISION: 2e-3, MIXED_PRECISION: 1e-2}
PARITY_IMAGES = 16

LOGITS_LAYER, SCORES_LAYER = "logits", "scores"


def assemble(weights: Weights, preprocess: str, size: int, head: Head) -> Any:
    """Build a network from the backbone and a head.

    A head that was trained on standardised features gets a normalisation layer again. With the scaler folded into the first dense
    layer, its inputs would be far from mean 0 and variance 1, and an epoch of SGD would undo the head's training.

    Args:
        weights, preprocess, size: as in `featurize.backbone.network.build`.
        head: a head that was trained on outputs of the top layer for pictures of this size.

    Returns:
        keras.Model: pixels float32 (batch, size, size, 3), RGB 0–255 → scores (batch, 1), the probability of the second of two
        classes, or (batch, classes). All layers are built into Keras.
    """
    keras = load_keras()

    base = build(weights, preprocess, size)
    x = _pooled(keras, base.output, head.pooling)
    layers = list(head.layers)
    if head.scaler is not None:
        variance = head.scaler.scale**2
        x = keras.layers.Normalization(mean=head.scaler.mean, variance=variance, name="head_standardise")(x)
        layers[0] = unfolded(layers[0], head.scaler)
    dense = []
    for i, layer in enumerate(layers):
        last = i == len(layers) - 1
        if last and head.dropout:
            # Without a seed, the layer ignores the state that `finetune.program` sets for each step (on PyTorch).
            x = keras.layers.Dropout(head.dropout, seed=0, name="head_dropout")(x)
        name = LOGITS_LAYER if last else f"head_dense{i + 1}"
        dense.append(keras.layers.Dense(layer.bias.size, activation=None if last else layer.activation, name=name))
        x = dense[-1](x)
    x = keras.layers.Activation(layers[-1].activation, name=SCORES_LAYER)(x)
    for keras_layer, layer in zip(dense, layers, strict=True):
        keras_layer.set_weights([layer.kernel, layer.bias])
    return keras.Model(base.input, x, name="vggft")


def _pooled(keras: Any, x: Any, pooling: str) -> Any:
    if pooling == "flatten":
        return keras.layers.Flatten(name="pool_flatten")(x)
    parts = []
    if pooling in ("avg", "avgmax"):
        parts.append(keras.layers.GlobalAveragePooling2D(name="pool_avg")(x))
    if pooling in ("max", "avgmax"):
        parts.append(keras.layers.GlobalMaxPooling2D(name="pool_max")(x))
    return parts[0] if len(parts) == 1 else keras.layers.Concatenate(name="pool_avgmax")(parts)


def freeze(network: Any, architecture: Architecture, split_point: str | None) -> None:
    """Freeze all convolutions up to the split point, and unfreeze those above it; None unfreezes all."""
    frozen = architecture.up_to(split_point)
    for layer in architecture.convolutions:
        network.get_layer(layer.name).trainable = layer not in frozen


def above(network: Any, architecture: Architecture, split_point: str | None) -> Any:
    """Freeze the network up to the split point, and return the part above it, to the logits; the weights are shared."""
    freeze(network, architecture, split_point)
    return between(network, split_point, [LOGITS_LAYER])


class ParityError(VggftError):
    """The assembled network and its head give different probabilities."""


def check_parity(
    network: Any, pictures: NDArray[np.uint8], expected: NDArray[np.float64], precision: Precision = FULL_PRECISION
) -> float:
    """The parity gate: from pixels, the network must give the same probabilities as the head on cached features.

    Args:
        pictures: uint8 (n, size, size, 3).
        expected: the head's probabilities (n, classes).
        precision: precision in which the cached features were computed.

    Returns:
        The largest absolute difference between two probabilities.

    Raises:
        ParityError: the difference is too large, so head or features belong to another network.
    """
    actual = with_both_classes(network.predict_on_batch(pictures.astype(np.float32)))
    difference = float(np.abs(actual - expected).max())
    bound = PARITY_BOUNDS[precision]
    if not difference <= bound:
        raise ParityError(
            f"parity gate: probabilities of network and head differ by {difference:.2g} on {len(pictures)} images, expected at "
            f"most {bound:g}. Head or features belong to another network: run vggft featurize and vggft head again."
        )
    return difference


def moved_layers(network: Any, weights: Weights, split_point: str | None) -> list[str]:
    """Return the convolutions whose weights differ from the pretrained `weights`.

    Raises:
        VggftError: a frozen layer has changed.
    """
    architecture, moved = weights.architecture, []
    for layer in architecture.convolutions:
        trained = network.get_layer(layer.name).get_weights()
        if any(not np.array_equal(a, b) for a, b in zip(trained, weights.arrays[layer.name], strict=True)):
            moved.append(layer.name)
    frozen = {layer.name for layer in architecture.up_to(split_point)}
    wrong = [name for name in moved if name in frozen]
    if wrong:
        raise VggftError(
            f"frozen layers changed in training: {', '.join(wrong)}. This is a bug in vggft; nothing was saved."
        )
    return moved


def tuned_layers(architecture: Architecture, split_point: str | None) -> list[str]:
    """Return the convolutions above the split point."""
    return [layer.name for layer in architecture.above(split_point) if layer.convolution]


def parameters(network: Any) -> int:
    """Return the number of trainable parameters of a network after `freeze`, including the head's."""
    return int(sum(np.prod(w.shape) for w in network.trainable_weights))
