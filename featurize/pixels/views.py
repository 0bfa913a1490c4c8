"""Views: changed copies of a training picture, for training to see more than there is (data augmentation).

What changes is drawn from the picture's digest and the number of the view, so a picture always has the same views. A view's name
is part of the fingerprint of its features: if the definition changes, the names have to.
"""

import hashlib
import math
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from featurize.options.choices import MOST_VIEWS

_NAME = re.compile(r"view-([1-9]\d?)")

# Ranges from which a change is drawn evenly: mild ones, because features of a frozen network change with all of them.
_AREA, _ASPECT = (0.7, 1.0), (0.9, 1 / 0.9)  # of the part that is kept, relative to the picture
_DEGREES = (-10.0, 10.0)
_FACTOR = (0.8, 1.2)  # of brightness, contrast and colour
_GREY = 0.1  # probability
_MARGIN = 0.1  # of the side, which a turn by 10° needs 0.08 of

Box = tuple[float, float, float, float]  # left, upper, right, lower


def name(number: int) -> str:
    """Return the name of a view, from 1."""
    return f"view-{number}"


def number(name: str) -> int | None:
    """Return the number of a view's name; None for other names."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found and int(found[1]) <= MOST_VIEWS else None


@dataclass(frozen=True)
class View:
    """One way to change a picture.

    Attributes:
        part: left, upper, right and lower margin of the part that is kept, from 0 to 1.
        degrees: turn, counter-clockwise.
        brightness, contrast, colour: factors, as in Pillow's ImageEnhance.
    """

    part: Box
    flip: bool
    degrees: float
    brightness: float
    contrast: float
    colour: float
    grey: bool

    @classmethod
    def of(cls, data: bytes, number: int) -> "View":
        """Draw a view of a picture, from the contents of its file."""
        digest = hashlib.sha256(data).digest()
        rng = np.random.default_rng([number, *digest])
        area, aspect = rng.uniform(*_AREA), rng.uniform(*_ASPECT)
        width, height = min(1.0, np.sqrt(area * aspect)), min(1.0, np.sqrt(area / aspect))
        left, upper = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
        return cls(
            part=(float(left), float(upper), float(left + width), float(upper + height)),
            flip=bool(rng.random() < 0.5),
            degrees=rng.uniform(*_DEGREES),
            brightness=rng.uniform(*_FACTOR),
            contrast=rng.uniform(*_FACTOR),
            colour=rng.uniform(*_FACTOR),
            grey=bool(rng.random() < _GREY),
        )

    def within(self, box: Box) -> Box:
        """Return the part of a box that is kept."""
        width, height = box[2] - box[0], box[3] - box[1]
        left, upper, right, lower = self.part
        return box[0] + left * width, box[1] + upper * height, box[0] + right * width, box[1] + lower * height

    def changed(self, square: Image.Image) -> Image.Image:
        """Return a cropped and resized picture with all other changes."""
        if self.flip:
            square = ImageOps.mirror(square)
        square = _turned(square, self.degrees)
        square = ImageEnhance.Brightness(square).enhance(self.brightness)
        square = ImageEnhance.Contrast(square).enhance(self.contrast)
        square = ImageEnhance.Color(square).enhance(self.colour)
        return square.convert("L").convert("RGB") if self.grey else square


def _turned(square: Image.Image, degrees: float) -> Image.Image:
    """Turn a picture; what comes in at the corners is a reflection of what is beside them."""
    size = square.width
    margin = math.ceil(_MARGIN * size)
    padded = np.pad(np.asarray(square), ((margin, margin), (margin, margin), (0, 0)), "symmetric")
    turned = Image.fromarray(padded).rotate(degrees, Image.Resampling.BILINEAR)
    return turned.crop((margin, margin, margin + size, margin + size))
