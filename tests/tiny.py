"""A network of VGG16's form with a few filters and random weights, for tests in which the size of the network does not matter.

`Workspace(root, TINY)`, `Experiment(root, TINY)`, `conftest.vggft(…, network=TINY)` and, in a process of its own,
`conftest.vggft_apart(…, network=TINY)` run with it. Its weights file is written when it is first asked for.
"""

import os
import tempfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from featurize.backbone import weights as weight_files
from featurize.backbone.architecture import Architecture, KerasFile, Layer, chain
from featurize.backbone.weights import Source, Weights


class _WrittenOnTheSpot(KerasFile):
    """The weights of seed 0, in the layout of the file that Keras distributes."""

    @property
    def path(self):
        path = Path(tempfile.gettempdir()) / self.name
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=path.parent) as folder:
                write_keras_file(Path(folder) / path.name, tiny_weights()).replace(path)
        return path


def write_keras_file(path, weights):
    """Write weights in the layout of the file that Keras distributes: a group a layer, kernel and bias in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, (kernel, bias) in weights.arrays.items():
            file[f"{name}/{name}_W_1:0"] = kernel
            file[f"{name}/{name}_b_1:0"] = bias
    return path


# Of the tiny network's last convolution: each filter answers at 5% of the places of the bundled drawings. Without it, the
# features of all drawings point the same way, and all are near-duplicates of each other.
SPARSE = np.array([-2.7, -0.8, -2.9, -3.9, 0.4, -4.3, -2.9, -2.5, -2.9, -1.0, -0.7, -0.8, -0.2, -5.7, -0.6, 0.1], "f4")


def random_arrays(architecture, seed=0):
    """He initialisation; the first layer brings pixels, whose standard deviation is about 60, to the order of 1."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for i, layer in enumerate(architecture.convolutions):
        scale = np.sqrt(2 / (9 * layer.channels)) / (1 if i else 60)
        kernel = rng.normal(0, scale, (3, 3, layer.channels, layer.filters))
        arrays[layer.name] = (kernel.astype(np.float32), rng.normal(0, 0.1, layer.filters).astype(np.float32))
    if architecture.name == "TINY":
        arrays[layer.name] = (kernel.astype(np.float32), SPARSE)
    return arrays


_UNPUBLISHED = Architecture(
    name="TINY",
    layers=chain(((1, 4), (1, 8), (2, 16))),
    size=32,
    means=(110.0, 120.0, 130.0),
    cached=("block2_pool", "block3_pool"),
    unfreeze="block3",
    digest="",
    keras_file=_WrittenOnTheSpot("", ""),
)
_DIGEST = weight_files.digest(_UNPUBLISHED, random_arrays(_UNPUBLISHED))
TINY = replace(_UNPUBLISHED, digest=_DIGEST, keras_file=_WrittenOnTheSpot(f"tests:/vggft-tiny-{_DIGEST[:16]}.h5", ""))


def tiny_weights(seed=0):
    """Return random weights; those of seed 0 are what TINY calls its published ones."""
    return random_weights(TINY, seed)


def random_weights(architecture, seed=0):
    """Return random weights of any architecture."""
    arrays = random_arrays(architecture, seed)
    return Weights(architecture, arrays, weight_files.digest(architecture, arrays), Source("file", Path(os.devnull)))


@dataclass(frozen=True)
class _Shaped(Layer):
    output: tuple[int, int, int] = (1, 1, 1)

    def shape(self, size):
        return self.output


def with_layers(architecture, **shapes):
    """Return an architecture with other layers, for caches of made-up rows: name → shape of the output."""
    layers = tuple(_Shaped(name, name, False, 3, shape[-1], 1, output=shape) for name, shape in shapes.items())
    return replace(architecture, layers=layers)


class StandIn:
    """An engine without a network: at each place of a picture colours are mixed at random; at a pooling, places are averaged.

    Outputs depend on nothing but picture and layer, also from one call to the next; from a cached layer they are those from
    pixels, but for its rounding.
    """

    name = "stand-in"
    batch_size = trial = 8
    in_flight = 1

    def __init__(self, architecture):
        self._architecture = architecture

    def __call__(self, inputs, layers, below=None):
        x, outputs = np.asarray(inputs, np.float32) / (1 if below else 255), {}
        for layer in self._architecture.above(below):
            if layer.convolution:
                mixing = np.random.default_rng(zlib.crc32(layer.name.encode()))
                kernel = mixing.normal(0, np.sqrt(2 / layer.channels), (layer.channels, layer.filters))
                x = np.maximum(x @ kernel.astype(np.float32), 0)
            else:
                n, height, width, channels = x.shape
                squares = x[:, : height // 2 * 2, : width // 2 * 2]
                x = squares.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))
            outputs[layer.name] = x
            if outputs.keys() >= set(layers):
                break
        return [outputs[name] for name in layers]
