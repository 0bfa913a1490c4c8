"""Backbone and head as one network: from pixels to scores, which layers are frozen, and the parity gate."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import backbone
from featurize.backend import load_keras
from featurize.errors import VggftError
from featurize.layers import CONVOLUTIONS, LAYERS, NAMES
from featurize.weights import Weights
from heads.head import Head, with_both_classes

# Largest difference of a probability between the assembled network (float32, from pixels) and the head on cached
# float16 features. Storage alone moves a probability by less than 1e-4; a wrong layer, order or preprocessing by far more.
PARITY_BOUND = 2e-3
PARITY_IMAGES = 16

SCORES_LAYER = "scores"


def assemble(weights: Weights, preprocess: str, size: int, head: Head, seed: int = 0) -> Any:
    """Put a head on the backbone.

    Args:
        weights, preprocess, size: as for `featurize.backbone.build`.
        head: trained on `block5_pool` of pictures of this size.
        seed: of the dropout masks.

    Returns:
        keras.Model: pixels float32 (batch, size, size, 3), RGB 0–255 → scores (batch, 1), the probability of the second
        class, or (batch, classes). Built-in layers only.
    """
    keras = load_keras()

    base = backbone.build(weights, preprocess, size)
    x = _pooled(keras, base.output, head.pooling)
    dense = []
    for i, layer in enumerate(head.layers):
        last = i == len(head.layers) - 1
        if last and head.dropout:
            x = keras.layers.Dropout(head.dropout, seed=seed, name="head_dropout")(x)
        name = SCORES_LAYER if last else f"head_dense{i + 1}"
        dense.append(keras.layers.Dense(layer.bias.size, activation=layer.activation, name=name))
        x = dense[-1](x)
    for keras_layer, layer in zip(dense, head.layers, strict=True):
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


def above(network: Any, split_point: str) -> Any:
    """Return the part of an assembled network above the split point, sharing its weights; freeze the rest."""
    below = NAMES[: NAMES.index(split_point) + 1]
    for name in below:
        network.get_layer(name).trainable = False
    return backbone.between(network, split_point, [SCORES_LAYER])


def check_parity(network: Any, pictures: NDArray[np.uint8], expected: NDArray[np.float64]) -> float:
    """The parity gate: the network, fed pixels, must give what the head gave on cached features.

    Args:
        pictures: uint8 (n, size, size, 3); expected: the head's probabilities (n, classes).

    Returns:
        The largest absolute difference of a probability.

    Raises:
        VggftError: it is above `PARITY_BOUND`, so this network is not the one that made the features and the head.
    """
    found = with_both_classes(network.predict_on_batch(pictures.astype(np.float32)))
    difference = float(np.abs(found - expected).max())
    if not difference <= PARITY_BOUND:
        raise VggftError(
            f"parity gate: network and head differ by {difference:.2g} in a probability on {len(pictures)} images; expected "
            f"{PARITY_BOUND:g} at most. Head or features belong to another network: run vggft featurize and vggft head again."
        )
    return difference


def moved_layers(network: Any, weights: Weights, split_point: str) -> list[str]:
    """Return the convolutions whose weights differ from those it was built with.

    Raises:
        VggftError: a layer at or below the split point moved.
    """
    moved = []
    for name in CONVOLUTIONS:
        now = network.get_layer(name).get_weights()
        if any(not np.array_equal(a, b) for a, b in zip(now, weights.arrays[name], strict=True)):
            moved.append(name)
    frozen = set(NAMES[: NAMES.index(split_point) + 1])
    wrong = [name for name in moved if name in frozen]
    if wrong:
        raise VggftError(
            f"frozen layers moved in training: {', '.join(wrong)}. This is a bug of vggft: nothing was saved."
        )
    return moved


def tuned_layers(split_point: str) -> Sequence[str]:
    """Return the convolutions above the split point."""
    return [layer.name for layer in LAYERS[NAMES.index(split_point) + 1 :] if layer.convolution]
