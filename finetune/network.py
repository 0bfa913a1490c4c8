"""Backbone and head as one network: from pixels to scores, which layers are frozen, and the parity gate."""

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

# Largest difference of a probability between the assembled network (float32, from pixels) and the head on cached
# float16 features, by the precision that these were computed in. Storage alone moves a probability by less than 1e-4,
# computing in 16 bits by 2.5e-3 (seen on 16 photographs); a wrong layer, order or preprocessing by far more.
PARITY_BOUNDS = {FULL_PRECISION: 2e-3, MIXED_PRECISION: 1e-2}
PARITY_IMAGES = 16

LOGITS_LAYER, SCORES_LAYER = "logits", "scores"


def assemble(weights: Weights, preprocess: str, size: int, head: Head) -> Any:
    """Put a head on the backbone.

    What standardised the head's inputs when it was trained is a layer of its own again. Folded into the first dense layer,
    its inputs are far from mean 0 and variance 1, and steps of SGD undo in an epoch what the head has learnt.

    Args:
        weights, preprocess, size: as for `featurize.backbone.network.build`.
        head: trained on the top layer's outputs for pictures of this size.

    Returns:
        keras.Model: pixels float32 (batch, size, size, 3), RGB 0–255 → scores (batch, 1), the probability of the second
        class, or (batch, classes). Built-in layers only.
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
            # Without a seed, PyTorch's layer does not ask the state that `finetune.program` sets for each step.
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
    """Freeze all convolutions at and below the split point, and thaw those above it; None: thaw all."""
    frozen = architecture.up_to(split_point)
    for layer in architecture.convolutions:
        network.get_layer(layer.name).trainable = layer not in frozen


def above(network: Any, architecture: Architecture, split_point: str | None) -> Any:
    """Return the part of an assembled network from the split point to the logits, sharing its weights; freeze the rest."""
    freeze(network, architecture, split_point)
    return between(network, split_point, [LOGITS_LAYER])


class ParityError(VggftError):
    """The assembled network does not give what its head gave."""


def check_parity(
    network: Any, pictures: NDArray[np.uint8], expected: NDArray[np.float64], precision: Precision = FULL_PRECISION
) -> float:
    """The parity gate: the network, fed pixels, must give what the head gave on cached features.

    Args:
        pictures: uint8 (n, size, size, 3); expected: the head's probabilities (n, classes).
        precision: that of the features which the head read.

    Returns:
        The largest absolute difference of a probability.

    Raises:
        ParityError: it is above its bound, so this network is not the one that made the features and the head.
    """
    found = with_both_classes(network.predict_on_batch(pictures.astype(np.float32)))
    difference = float(np.abs(found - expected).max())
    bound = PARITY_BOUNDS[precision]
    if not difference <= bound:
        raise ParityError(
            f"parity gate: network and head differ by {difference:.2g} in a probability on {len(pictures)} images; expected "
            f"{bound:g} at most. Head or features belong to another network: run vggft featurize and vggft head again."
        )
    return difference


def moved_layers(network: Any, weights: Weights, split_point: str | None) -> list[str]:
    """Return the convolutions whose weights differ from those it was built with.

    Raises:
        VggftError: a layer at or below the split point moved.
    """
    architecture, moved = weights.architecture, []
    for layer in architecture.convolutions:
        now = network.get_layer(layer.name).get_weights()
        if any(not np.array_equal(a, b) for a, b in zip(now, weights.arrays[layer.name], strict=True)):
            moved.append(layer.name)
    frozen = {layer.name for layer in architecture.up_to(split_point)}
    wrong = [name for name in moved if name in frozen]
    if wrong:
        raise VggftError(
            f"frozen layers moved in training: {', '.join(wrong)}. This is a bug of vggft: nothing was saved."
        )
    return moved


def tuned_layers(architecture: Architecture, split_point: str | None) -> list[str]:
    """Return the convolutions above the split point."""
    return [layer.name for layer in architecture.above(split_point) if layer.convolution]


def parameters(network: Any) -> int:
    """Return how many numbers are trained of a network that `freeze` has seen, the head's among them."""
    return int(sum(np.prod(w.shape) for w in network.trainable_weights))
