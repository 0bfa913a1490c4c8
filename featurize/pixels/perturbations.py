"""Perturbations: changes of a picture that should not change a classifier's prediction.

A perturbation is applied to the resized square that the network reads, so it is equally strong for pictures of all sizes. Its
name is part of the fingerprint of the features: a perturbation whose definition changes needs a new name.
"""

import io
from collections.abc import Callable

from PIL import Image, ImageFilter, ImageOps

Change = Callable[[Image.Image], Image.Image]

_MEAN_COLOUR = (124, 117, 104)  # mean of the ImageNet training images, rounded; about 0 after preprocessing


def _grey(picture: Image.Image) -> Image.Image:
    """Keep only the luma (ITU-R 601-2): does the model depend on colour?"""
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
    """Resize to half the side length and back, which removes fine detail."""
    width, height = picture.size
    small = picture.resize((width // 2, height // 2), Image.Resampling.BILINEAR)
    return small.resize(picture.size, Image.Resampling.BILINEAR)


def _rotate(picture: Image.Image) -> Image.Image:
    """Rotate by 10° counter-clockwise; empty corners get the mean colour."""
    return picture.rotate(10, Image.Resampling.BILINEAR, fillcolor=_MEAN_COLOUR)


PERTURBATIONS: dict[str, Change] = {
    "grey": _grey,
    "flip": _flip,
    "jpeg30": _jpeg,
    "blur2": _blur,
    "half-size": _half,
    "rotate10": _rotate,
}
