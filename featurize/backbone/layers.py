"""VGG16 as a table: its layers by name, in order, with their output shapes. No framework is needed to read it.

Names and shapes are those of `keras.applications.VGG16(include_top=False)`; Simonyan & Zisserman 2015, table 1,
column D.
"""

from dataclasses import dataclass

from featurize.errors import VggftError

_BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))  # (convolutions, filters) of each block


@dataclass(frozen=True)
class Layer:
    """One layer. `shrink` is by how much its output is smaller than the picture, on each side."""

    name: str
    block: str
    channels: int
    filters: int
    shrink: int

    @property
    def convolution(self) -> bool:
        """True for a convolution (3×3, stride 1, same padding, ReLU), False for a 2×2 max-pooling."""
        return "conv" in self.name

    def shape(self, size: int) -> tuple[int, int, int]:
        """Return (height, width, filters) of the output for square pictures of `size` pixels."""
        return (size // self.shrink, size // self.shrink, self.filters)


def _table() -> tuple[Layer, ...]:
    layers = []
    channels = 3
    for i, (convolutions, filters) in enumerate(_BLOCKS):
        block = f"block{i + 1}"
        for j in range(convolutions):
            layers.append(Layer(f"{block}_conv{j + 1}", block, channels, filters, 2**i))
            channels = filters
        layers.append(Layer(f"{block}_pool", block, filters, filters, 2 ** (i + 1)))
    return tuple(layers)


LAYERS = _table()
NAMES = tuple(layer.name for layer in LAYERS)
# The convolutions, in order: name → (input channels, filters).
CONVOLUTIONS = {layer.name: (layer.channels, layer.filters) for layer in LAYERS if layer.convolution}
TOP = NAMES[-1]  # what heads read


def layer(name: str) -> Layer:
    """Return the layer called `name`.

    Raises:
        VggftError: unknown name; the message lists the known ones.
    """
    if name not in NAMES:
        raise VggftError(f"unknown layer {name!r}. Known layers: {', '.join(NAMES)}.")
    return LAYERS[NAMES.index(name)]


def split_point(unfreeze: str) -> str | None:
    """Return the deepest layer below the part to tune; None where nothing lies below it but the pixels.

    Args:
        unfreeze: a block ("block5") or a layer ("block5_conv2"): it and all above it are tuned; or "all".

    Raises:
        VggftError: unknown name, or a pooling layer (it has nothing to tune).
    """
    blocks = list(dict.fromkeys(layer.block for layer in LAYERS))
    if unfreeze == "all":
        return None
    if unfreeze not in blocks and unfreeze not in NAMES:
        raise VggftError(
            f"--unfreeze {unfreeze!r}: unknown layer. Expected all, a block ({', '.join(blocks)}) or a convolution "
            f"({', '.join(CONVOLUTIONS)})."
        )
    first = next(i for i, layer in enumerate(LAYERS) if unfreeze in (layer.name, layer.block))
    if not LAYERS[first].convolution:
        raise VggftError(
            f"--unfreeze {unfreeze}: a pooling layer has no weights to tune. Name a block or a convolution."
        )
    return NAMES[first - 1] if first else None
