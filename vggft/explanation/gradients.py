"""The gradient of a class's logit with respect to the outputs of the top layer, which heads read, in closed form.

A head is dense layers with ReLU behind a pooling, so no framework has to differentiate it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Head, pool


def of_logits(head: Head, features: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the gradient of each image's logit, float32 (n, height, width, filters).

    Of two classes, the logit of the second is that of the sigmoid unit, and the logit of the first its negative.

    Args:
        features: outputs of the top layer (n, height, width, filters).
        targets: position of the class whose logit is meant, for each image (n,).
    """
    x = pool(features, head.pooling)
    active = []  # of each hidden layer: which units ReLU lets through
    for layer in head.layers[:-1]:
        x = np.maximum(x @ layer.kernel + layer.bias, 0)
        active.append(x > 0)
    last = head.layers[-1].kernel
    both = np.concatenate([-last, last], axis=1) if last.shape[1] == 1 else last
    gradient = both.T[targets]
    for layer, passing in zip(head.layers[-2::-1], active[::-1], strict=True):
        gradient = (gradient * passing) @ layer.kernel.T
    return _unpooled(gradient, features, head.pooling)


def _unpooled(gradient: NDArray[np.float32], features: NDArray[np.float32], pooling: str) -> NDArray[np.float32]:
    """Return the gradient with respect to feature maps, given that with respect to `pool(features, pooling)`."""
    if pooling == "flatten":
        return gradient.reshape(features.shape)
    n, height, width, filters = features.shape
    through = np.zeros((n, height * width, filters), np.float32)
    if pooling in ("avg", "avgmax"):
        through += gradient[:, None, :filters] / (height * width)
    if pooling in ("max", "avgmax"):
        largest = features.reshape(through.shape).argmax(axis=1)[:, None]
        np.put_along_axis(through, largest, np.take_along_axis(through, largest, 1) + gradient[:, None, -filters:], 1)
    return through.reshape(features.shape)


def max_pooled(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the 2×2 max-pooling of activations (n, height, width, filters), as the networks do it: without an odd last row."""
    first, *others = quarters(activations)
    largest: NDArray[np.float32] = first
    for quarter in others:
        largest = np.maximum(largest, quarter)
    return largest


def quarters(activations: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return the four places of each 2×2 window as views (n, height // 2, width // 2, filters), row by row."""
    height, width = (side // 2 * 2 for side in activations.shape[1:3])
    return tuple(activations[:, i:height:2, j:width:2] for i in (0, 1) for j in (0, 1))
