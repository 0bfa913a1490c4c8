"""A picture with heat maps over it, one row a model and one column a class, as a PNG file that proves that vggft wrote it."""

import hashlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from featurize.disk import durable
from vggft.ui.figures import texts
from vggft.ui.visible import shortened, visible

_MOST = 640  # pixels of the longer side of a picture that is drawn
_INCHES, _DPI = 3.2, 100  # of the longer side of a picture
_HEADING = 0.5  # inches above a picture
_COLOURS = "viridis"  # its brightness rises evenly, also for the colour-blind and in grey
_OPAQUE = 0.75  # where the map is 1
_NAME = 40  # characters of a picture's name that are kept in that of its explanation
_PROOF = "vggft-pixels-sha256"


@dataclass(frozen=True)
class Panel:
    """A heat map over the picture: the map (height, width), from 0 to 1, and the lines of its heading, which fit."""

    heading: Sequence[str]
    heat: NDArray[np.float32]


def draw(picture: NDArray[np.uint8], heading: str, rows: Sequence[Sequence[Panel]]) -> NDArray[np.uint8]:
    """Return the drawing, uint8 (height, width, 3), RGB: in each row the picture and its panels.

    Args:
        picture: uint8 (height, width, 3), RGB; its aspect ratio is kept.
        heading: above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    small = Image.fromarray(picture)
    small.thumbnail((_MOST, _MOST))
    grey = np.asarray(small.convert("L").convert("RGB"))
    longer = max(small.size)
    width, height = (max(_INCHES * side / longer, _INCHES / 2) for side in small.size)
    columns = 1 + max(map(len, rows))
    figure = Figure(figsize=(columns * width, len(rows) * (height + _HEADING)), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    with texts():
        for line, (axes, panels) in enumerate(
            zip(figure.subplots(len(rows), columns, squeeze=False), rows, strict=True)
        ):
            for each in axes:
                each.set_axis_off()
            if not line:
                axes[0].imshow(np.asarray(small))
                axes[0].set_title(shortened(visible(heading), _NAME), fontsize="small")
            for each, panel in zip(axes[1:], panels, strict=False):
                each.imshow(grey)
                heat = np.asarray(Image.fromarray(panel.heat).resize(small.size, Image.Resampling.BILINEAR))
                each.imshow(heat, cmap=_COLOURS, vmin=0, vmax=1, alpha=_OPAQUE * heat)
                each.set_title("\n".join(panel.heading), fontsize="small")
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def write(folder: Path, image: Path, drawing: NDArray[np.uint8]) -> Path:
    """Write the drawing for an image, and return its path, which is another one for each image.

    An earlier drawing for the same image is replaced. A file that vggft did not write, or that was changed since, is left alone:
    the drawing goes beside it.

    Raises:
        VggftError: the folder cannot be written, or the disk is full.
    """
    known = hashlib.sha256(os.fsencode(image.absolute())).hexdigest()[:8]
    stem = f"{re.sub(r'[^A-Za-z0-9._-]+', '_', image.stem)[:_NAME]}-{known}"
    path, number = folder / f"{stem}.png", 1
    while os.path.lexists(path) and not is_drawing(path):
        number += 1
        path = folder / f"{stem}-{number}.png"
    proof = PngImagePlugin.PngInfo()
    proof.add_text(_PROOF, hashlib.sha256(drawing.tobytes()).hexdigest())
    data = io.BytesIO()
    Image.fromarray(drawing).save(data, "PNG", pnginfo=proof)
    durable.sweep_beside(path)
    durable.write_bytes(path, data.getvalue(), "Choose another folder with --out, and run the command again.")
    return path


def is_drawing(path: Path) -> bool:
    """Return whether a file is a drawing with the pixels that vggft wrote."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with Image.open(path, formats=["PNG"]) as image:
            pixels = hashlib.sha256(image.tobytes()).hexdigest()
            return isinstance(image, PngImagePlugin.PngImageFile) and image.text.get(_PROOF) == pixels
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
        return False
