"""Class activation maps: activations of the last convolution, weighted by the gradient of a class's logit.

Both methods are stated for any convolution. Here the layer above is a 2×2 max-pooling, whose gradient goes to the largest place
of each window (the first of equal ones), so they are computed from the gradient above it.
"""

import numpy as np
from numpy.typing import NDArray

from vggft.explanation.gradients import quarters


def grad_cam(activations: NDArray[np.float32], gradients: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2): one weight a filter, its mean gradient.

    Args:
        activations: of the last convolution, after ReLU (n, height, width, filters).
        gradients: of the logit with respect to their 2×2 max-pooling.

    Returns:
        float32 (n, height, width), ≥ 0, not scaled.
    """
    places = activations.shape[1] * activations.shape[2]
    weights = gradients.sum(axis=(1, 2)) / places
    weighted: NDArray[np.float32] = np.einsum("nhwc,nc->nhw", activations, weights, optimize=True)
    return np.maximum(weighted, 0)


def layer_cam(
    activations: NDArray[np.float32], pooled: NDArray[np.float32], gradients: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return LayerCAM (Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, equations 6 and 7): a weight a filter and place.

    The weight is the gradient there where it is positive, else 0.

    Args:
        activations, gradients: as for `grad_cam`.
        pooled: the 2×2 max-pooling of the activations.

    Returns:
        As `grad_cam`.
    """
    products = np.maximum(gradients, 0) * pooled
    result = np.zeros(activations.shape[:3], np.float32)
    free = np.ones(pooled.shape, bool)  # windows whose largest place has not come yet
    for place, window in zip(quarters(activations), quarters(result[..., None]), strict=True):
        largest = free & (place == pooled)
        window[..., 0] = np.einsum("nhwc,nhwc->nhw", products, largest)
        free &= ~largest
    return result


def scaled(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return maps (n, height, width), ≥ 0, each divided by its largest value; a map that is 0 everywhere stays so."""
    largest = maps.max(axis=(1, 2), keepdims=True)
    quotients: NDArray[np.float32] = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
    return quotients
