"""An architecture with its weights as a Keras model, from 0–255 RGB pixels, preprocessing inside.

Built-in layers only, each under its own name, so that what is saved loads in plain Keras.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import PREPROCESS_LAYER, Architecture
from featurize.backbone.weights import Weights
from featurize.backend import load_keras


def preprocessed(pixels: NDArray[np.uint8], preprocess: str, architecture: Architecture) -> NDArray[np.float32]:
    """Return what the first convolution reads of 0–255 RGB pixels, for engines without Keras; `preprocess` as in `build`."""
    x = pixels.astype(np.float32)
    return x[..., ::-1] - np.asarray(architecture.means, np.float32) if preprocess == "caffe" else x


def build(weights: Weights, preprocess: str, size: int, precision: str = "float32") -> Any:
    """Build the backbone: pixels → the top layer's output.

    Args:
        weights: with their architecture.
        preprocess: "caffe" or "raw", see `featurize.cache.fingerprint`.
        size: side of the square input in pixels.
        precision: a Keras dtype policy for the convolutions ("float32", "mixed_float16"). The preprocessing layer
            always works in float32: 16 bits hold 0–255 exactly but not 255 − 103.939.

    Returns:
        keras.Model with input float32 (batch, size, size, 3), RGB from 0 to 255.
    """
    keras = load_keras()

    architecture = weights.architecture
    pixels = x = keras.Input((size, size, 3), name="pixels")
    if preprocess == "caffe":
        x = _caffe_layer(keras, architecture.means)(x)
    for layer in architecture.layers:
        if layer.convolution:
            conv = keras.layers.Conv2D(
                layer.filters, 3, padding="same", activation="relu", name=layer.name, dtype=precision
            )
            x = conv(x)
            conv.set_weights(weights.arrays[layer.name])
        else:
            x = keras.layers.MaxPooling2D(2, strides=2, name=layer.name, dtype=precision)(x)
    return keras.Model(pixels, x, name=architecture.name.lower())


def between(model: Any, below: str | None, outputs: Sequence[str]) -> Any:
    """Return the part of a network above a layer, sharing its weights.

    Args:
        model: a keras.Model in one chain.
        below: name of the layer whose output becomes the input; None for the pixels.
        outputs: names of the layers whose outputs are wanted.
    """
    keras = load_keras()

    start = model.input if below is None else model.get_layer(below).output
    return keras.Model(start, [model.get_layer(name).output for name in outputs])


def _caffe_layer(keras: Any, means: Sequence[float]) -> Any:
    """Return RGB → BGR minus means as a frozen 1×1 convolution: bit for bit x − mean, since the other terms are 0."""
    layer = keras.layers.Conv2D(3, 1, name=PREPROCESS_LAYER, trainable=False, dtype="float32")
    layer.build((None, None, None, 3))
    kernel = np.zeros((1, 1, 3, 3), np.float32)
    kernel[0, 0, [2, 1, 0], [0, 1, 2]] = 1.0  # (input channel R=0 G=1 B=2) → (output channel B, G, R)
    layer.set_weights([kernel, -np.asarray(means, np.float32)])
    return layer
