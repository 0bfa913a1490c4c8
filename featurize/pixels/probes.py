"""Harmless changes of a picture, as the network would see it: what a classifier says should survive them.

Applied after decoding and resizing, to the square picture that goes into the network, so that they are equally strong for
pictures of all sizes. Each is part of the fingerprint of the features that are computed from it: a change of one needs
another name.
"""

import io
from collections.abc import Callable

from PIL import Image, ImageFilter, ImageOps

Change = Callable[[Image.Image], Image.Image]

_MEAN_COLOUR = (124, 117, 104)  # of ImageNet, rounded: what the network was taught to see as nothing


def _grey(picture: Image.Image) -> Image.Image:
    """Luma only (ITU-R 601-2): is it colour or shape that it goes by?"""
    return picture.convert("L").convert("RGB")


def _flip(picture: Image.Image) -> Image.Image:
    return ImageOps.mirror(picture)


def _jpeg(picture: Image.Image) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=30)
    return Image.open(data).convert("RGB")


def _blur(picture: Image.Image) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(2))  # standard deviation in pixels


def _half(picture: Image.Image) -> Image.Image:
    """Half the size, and back."""
    width, height = picture.size
    small = picture.resize((width // 2, height // 2), Image.Resampling.BILINEAR)
    return small.resize(picture.size, Image.Resampling.BILINEAR)


def _rotate(picture: Image.Image) -> Image.Image:
    """Turn by 10° counter-clockwise; the corners that become free get the mean colour."""
    return picture.rotate(10, Image.Resampling.BILINEAR, fillcolor=_MEAN_COLOUR)


PROBES: dict[str, Change] = {
    "grey": _grey,
    "flip": _flip,
    "jpeg30": _jpeg,
    "blur2": _blur,
    "half-size": _half,
    "rotate10": _rotate,
}
