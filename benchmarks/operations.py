"""How much a network has to compute: multiply-adds, counted from the shapes of its kernels and outputs.

The counts are those of direct convolutions. Winograd's algorithm F(m×m, 3×3) gives the same outputs with (m + 2)² multiplications
instead of 9 m², at the cost of more additions.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from featurize.backbone.weights import Weights


@dataclass(frozen=True)
class Convolution:
    """A convolution of one picture as a product of matrices: (positions, depth) times (depth, filters).

    Attributes:
        positions: height times width of the output.
        depth: number of input values that one position reads, over all channels.
    """

    name: str
    positions: int
    depth: int
    filters: int

    @property
    def multiply_adds(self) -> int:
        """Number of multiplications, each with an addition, for one picture."""
        return self.positions * self.depth * self.filters


def convolutions(weights: Weights, size: int) -> list[Convolution]:
    """Return the convolutions of a network, in order, for square pictures of `size` pixels."""
    counted = []
    for layer in weights.architecture.convolutions:
        *reads, filters = weights.arrays[layer.name][0].shape
        height, width, _ = layer.shape(size)
        counted.append(Convolution(layer.name, height * width, math.prod(reads), filters))
    return counted


def forward(layers: Sequence[Convolution]) -> int:
    """Return the multiply-adds from inputs to outputs of consecutive layers, for one picture."""
    return sum(layer.multiply_adds for layer in layers)


def backward(layers: Sequence[Convolution]) -> int:
    """Return the multiply-adds for the gradients of consecutive layers of which all are trained, for one picture.

    The gradient of a layer's kernel takes as many as its output, and so does that of its input. The lowest layer's input needs no
    gradient.
    """
    return 2 * forward(layers) - layers[0].multiply_adds


@dataclass(frozen=True)
class Epoch:
    """Multiply-adds of an epoch of fine-tuning with its validation; those of the head, less than 1%, are left out.

    Attributes:
        cache: where training starts from the stored outputs of the highest frozen layer.
        pixels: where the frozen layers run over all pictures again.
    """

    cache: int
    pixels: int


def epoch(weights: Weights, size: int, train: int, validate: int) -> Epoch:
    """Count an epoch of fine-tuning the layers that the architecture unfreezes by default.

    Args:
        train, validate: number of pictures.
    """
    architecture = weights.architecture
    above = {layer.name for layer in architecture.above(architecture.split_point(architecture.unfreeze))}
    layers = convolutions(weights, size)
    tuned = [layer for layer in layers if layer.name in above]
    frozen = [layer for layer in layers if layer.name not in above]
    cache = (train + validate) * forward(tuned) + train * backward(tuned)
    return Epoch(cache, cache + (train + validate) * forward(frozen))
