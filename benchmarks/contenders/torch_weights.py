"""The ImageNet weights of VGG16 as torchvision's `vgg16().features` wants them, from the arrays in `Task.weights`.

The published weights expect BGR from 0 to 255 less three means, torchvision's preprocessing gives RGB from 0 to 1, less a mean
and divided by a standard deviation. Both are linear, so the first convolution takes up the difference: its kernel is scaled, and
its bias gets what remains of the means. Only the border differs, where padding with zeros means slightly different colours.

Between the first convolution and the last, activations are those of the published network divided by `SCALE`, so that they have
the size that pixels have here; ReLU and pooling commute with that factor, and the last convolution undoes it. As published, they
reach thousands, and so do gradients: with its learning rate, PyTorch's tutorial ended in NaN.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.entry import ARRAYS

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB from 0 to 1, as everywhere in torchvision
PUBLISHED_MEANS = (123.68, 116.779, 103.939)  # RGB from 0 to 255
SCALE = 255 * float(np.mean(STD))
CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)  # in `features`; the modules between have no weights
BLOCK5 = 24  # the first module of block5 in `features`


def vgg16(weights: Path) -> Any:
    """Return torchvision's VGG16 with the published convolutions; its classifier has no values and must be replaced.

    As https://docs.pytorch.org/tutorials/recipes/recipes/module_load_state_dict_tips.html recommends, layers are made on the
    device "meta", so that no random values are drawn for them.
    """
    import torch
    from torchvision import models

    with torch.device("meta"):
        model = models.vgg16()
    model.features.load_state_dict(features_state(weights), assign=True)
    return model


def features_state(weights: Path) -> dict[str, Any]:
    """Return the state dict of torchvision's `vgg16().features`.

    Args:
        weights: see `Task.weights`.
    """
    import torch

    state = {}
    with np.load(weights / ARRAYS) as arrays:
        layers = sorted(name.removesuffix("/kernel") for name in arrays.files if name.endswith("/kernel"))
        for number, layer in zip(CONVOLUTIONS, layers, strict=True):
            kernel, bias = arrays[f"{layer}/kernel"], arrays[f"{layer}/bias"]
            if number == CONVOLUTIONS[0]:
                kernel, bias = _for_torchvision(kernel, bias)
                kernel /= np.float32(SCALE)
            if number == CONVOLUTIONS[-1]:
                kernel *= np.float32(SCALE)
            else:
                bias /= np.float32(SCALE)
            state[f"{number}.weight"] = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
            state[f"{number}.bias"] = torch.from_numpy(bias)
    return state


def _for_torchvision(kernel: Any, bias: Any) -> Any:
    """Return kernel (3, 3, in, out) and bias of the first convolution for pixels as torchvision prepares them."""
    rgb = kernel[:, :, ::-1].astype(np.float64)
    remaining = 255 * np.array(MEAN) - np.array(PUBLISHED_MEANS)
    scaled = rgb * (255 * np.array(STD))[:, None]
    return scaled.astype(np.float32), (bias + np.einsum("hwio,i->o", rgb, remaining)).astype(np.float32)
