"""Grad-CAM: Selvaraju et al. 2017, arXiv:1610.02391.

The map of a class is the weighted sum of the last convolution's activations, where it is positive; the weight of a filter is the
mean gradient of the class's logit over its activations (equations 1 and 2). That mean is known in closed form, because a head is
dense layers with ReLU behind a pooling: no framework has to differentiate.
"""

import numpy as np
from numpy.typing import NDArray

from heads.head import Head, pool


def maps(head: Head, activations: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the map of one class of each image, float32 (n, height, width), from 0 to 1.

    1 is the place that speaks most for the class in its image; a map is 0 everywhere where no place speaks for it.

    Args:
        head: reads the 2×2 max-pooling of the activations.
        activations: outputs of the last convolution, after ReLU (n, height, width, filters).
        targets: position of a class (n,).
    """
    weights = mean_gradients(head, activations, targets)
    sums: NDArray[np.float32] = np.einsum("nhwc,nc->nhw", activations, weights, optimize=True)
    positive: NDArray[np.float32] = np.maximum(sums, 0)
    largest: NDArray[np.float32] = positive.max(axis=(1, 2), keepdims=True)
    largest[largest == 0] = 1
    return positive / largest


def mean_gradients(head: Head, activations: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the mean gradient of a class's logit over the activations of each filter, float32 (n, filters).

    Of two classes, the logit of the second is that of the sigmoid unit, and the logit of the first its negative.

    Args:
        head, activations, targets: as for `maps`.
    """
    _, height, width, filters = activations.shape
    x = pool(max_pooled(activations), head.pooling)
    passing = []  # of each hidden layer: the units that ReLU lets through
    for layer in head.layers[:-1]:
        x = np.maximum(x @ layer.kernel + layer.bias, 0)
        passing.append(x > 0)
    last = head.layers[-1].kernel
    both = np.concatenate([-last, last], axis=1) if last.shape[1] == 1 else last
    gradient = both.T[targets]
    for layer, units in zip(head.layers[-2::-1], passing[::-1], strict=True):
        gradient = (gradient * units) @ layer.kernel.T
    # Every pooling passes on the whole gradient of a filter, to one place or shared between some, and so the places of a filter
    # have the same sum. "flatten" and "avgmax" read a filter several times.
    total: NDArray[np.float32] = gradient.reshape(len(gradient), -1, filters).sum(axis=1)
    return total / np.float32(height * width)


def max_pooled(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the 2×2 max-pooling of activations (n, height, width, filters), as networks do it: without an odd last row."""
    height, width = (side // 2 * 2 for side in activations.shape[1:3])
    halves = np.maximum(activations[:, :height:2], activations[:, 1:height:2])
    largest: NDArray[np.float32] = np.maximum(halves[:, :, :width:2], halves[:, :, 1:width:2])
    return largest
