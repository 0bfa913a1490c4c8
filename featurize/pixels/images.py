"""Image decoder: the bytes of a file → a uint8 RGB array, or the reason why it cannot be decoded. All commands use it.

This module does not depend on the network. Its conventions (white behind alpha, first frame, 16-bit values divided by 256,
colour profiles ignored) affect all cached features: changing one of them requires a new `DECODER_VERSION`.
"""

import contextlib
import io
import logging
import re
import time
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, Jpeg2KImagePlugin, TiffImagePlugin, UnidentifiedImageError, features

from featurize.pixels import formats, layouts, memory, metadata, views
from featurize.pixels.perturbations import PERTURBATIONS
from featurize.pixels.silence import silence
from featurize.process import descriptors, interrupts

DECODER_VERSION = 2  # since JPEG files of large pictures are scaled as they are decoded, see `_SPARE`

# 120 million pixels: more than the largest medium-format camera (102 million), and two copies fit into a small machine's memory.
MAX_PIXELS = 120_000_000
# The longer side, for which decoding takes memory, too, whatever the shorter: up to 64 bytes a pixel for addresses of rows and
# for factors of the resize filter, here 16 MB. Four times what JPEG can store (65,535).
MAX_SIDE = 250_000
_LIMIT = f"the limit is {MAX_PIXELS // 1_000_000} million pixels"

# Not EPS, PDF and WMF, for which Pillow may start other programs, nor ICO, which it decodes before its size can be checked.
# Formats that this Pillow lacks (HEIF without a plug-in) are left out, because Image.open fails on unknown names.
Image.init()
FORMATS = [
    name for name in "JPEG MPO PNG GIF WEBP TIFF BMP DIB PPM TGA PCX JPEG2000 AVIF HEIF".split() if name in Image.OPEN
]

# Pillow's warnings about many pixels (MAX_PIXELS is checked here) and damaged EXIF (pixels are intact) would disturb the progress
# display.
warnings.filterwarnings("ignore", module=r"PIL\.")
# A library logs to its logger. Without a handler, Python would print what Pillow logs about a file on standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())

MAX_SECONDS = (
    60.0  # of computing for a picture, all attempts together; 120 million pixels of progressive JPEG take less than ten
)

# A progressive JPEG is decoded scan by scan, and each scan visits all pixels: a few hundred bytes may take a tenth of a second.
# Bytes are passed to the decoder in pieces of this size, between which it can be stopped.
_SCAN_BYTES = 2048

# A JPEG decoder can scale a picture to a half, a quarter or an eighth for a fraction of the work (libjpeg's smaller inverse
# transforms). It may where both sides stay at least this many times as long as those of the square: the filter that resizes the
# rest then averages over four pixels or more. Values of 0 to 255 differ by 0.4 on average in ordinary photographs (measured in
# tests/unit/test_large_pictures.py).
_SPARE = 2

# JPEG 2000 stores a picture as levels of ever finer detail, of which the finest may be left out. What is left resembles averages
# less (values differ by 0.7 to 1.0 on average), so more is to spare. OpenJPEG cannot be interrupted, and takes up to 0.45 s for
# a million pixels: a picture with more pixels than these left would be deaf to Ctrl-C for more than two seconds, and is rejected.
_JPEG2000_SPARE = 3
_JPEG2000_PIXELS = 4_000_000

_STRIP_PIXELS = 1_000_000  # of a picture that is converted at once

_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}  # in Pillow; others: 4
_KEPT_PER_PIXEL = {"JPEG2000": 16, "AVIF": 8, "HEIF": 8, "WEBP": 4, "TIFF": 4}  # by decoders, besides the pixels

# In messages of Pillow about files that are whole.
_UNSUPPORTED = re.compile(
    r"unsupported|not supported|cannot handle|not available|bad configuration|samples per pixel"
    r"|unknown (pixel mode|raw mode|compression|image mode|color|colour|bmp)",
    re.IGNORECASE,
)

RESIZE_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

# First bytes of JPEG, PNG, GIF and TIFF files: if Pillow does not recognise such a file, its header is damaged.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")

_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, table 6: orientation → transposition that makes the picture upright, and which of its margins (left 0, upper 1,
# right 2, lower 3) are then left, upper, right and lower.
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, (2, 1, 0, 3)),
    3: (Image.Transpose.ROTATE_180, (2, 3, 0, 1)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, (0, 3, 2, 1)),
    5: (Image.Transpose.TRANSPOSE, (1, 0, 3, 2)),
    6: (Image.Transpose.ROTATE_270, (3, 0, 1, 2)),
    7: (Image.Transpose.TRANSVERSE, (3, 2, 1, 0)),
    8: (Image.Transpose.ROTATE_90, (1, 2, 3, 0)),
}


Box = tuple[float, float, float, float]  # left, upper, right, lower
Finish = Callable[[Image.Image, Box], NDArray[np.uint8]]
Side = Callable[
    [Image.Image], int
]  # side of the square whose pixels decoders may not go below, by the size in the header


class Unreadable(Exception):
    """The bytes cannot be decoded; the message is the reason, for display."""


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture.

    Args:
        data: contents of the file.

    Returns:
        uint8 array of shape (height, width, 3), RGB, upright, alpha composited on white.

    Raises:
        Unreadable: the data cannot be decoded; with the reason.
    """
    return _with_rgb(data, lambda picture, box: np.asarray(picture))


def decode_resized(data: bytes, size: int, resize: str = "bilinear", perturbation: str = "") -> NDArray[np.uint8]:
    """Decode a picture and resize it to a square, ignoring the aspect ratio.

    Args:
        data: contents of the file.
        size: side of the square in pixels.
        resize: a key of `RESIZE_FILTERS`: Pillow's filters, which average over all covered pixels when shrinking.
        perturbation: a key of `featurize.pixels.perturbations.PERTURBATIONS`, applied to the square; or the name of a view
            (`featurize.pixels.views`); empty for none.

    Returns:
        uint8 array of shape (size, size, 3), RGB.

    Raises:
        Unreadable: the data cannot be decoded; with the reason.
    """

    number = views.number(perturbation)
    view = views.View.of(data, number) if number else None

    def resized(picture: Image.Image, box: Box) -> NDArray[np.uint8]:
        if view:
            return np.asarray(view.changed(picture.resize((size, size), RESIZE_FILTERS[resize], view.within(box))))
        square = picture.resize((size, size), RESIZE_FILTERS[resize], box)
        return np.asarray(PERTURBATIONS[perturbation](square) if perturbation else square)

    return _with_rgb(data, resized, lambda header: size)


def decode_fitting(data: bytes, side: int) -> NDArray[np.uint8]:
    """Decode a picture for display, made smaller with its aspect ratio until no side is longer than `side` pixels.

    Raises:
        Unreadable: the data cannot be decoded; with the reason.
    """

    def spare(header: Image.Image) -> int:
        shorter = min(header.size) * side // max(header.size)
        return max(1, shorter // _SPARE)  # so that decoders scale down to the shown size at most

    def fitted(picture: Image.Image, box: Box) -> NDArray[np.uint8]:
        width, height = box[2] - box[0], box[3] - box[1]
        scale = min(1.0, side / max(width, height))
        shown = (max(1, round(width * scale)), max(1, round(height * scale)))
        return np.asarray(picture.resize(shown, Image.Resampling.BILINEAR, box))

    return _with_rgb(data, fitted, spare)


def _with_rgb(data: bytes, finish: Finish, size: Side | None = None) -> NDArray[np.uint8]:
    """Decode a picture, and return what `finish` makes of it, and of the box that holds it, while there is room in memory.

    Args:
        size: side of the square to which it will be resized: decoders may scale the picture before; None: they may not.
    """
    if not data:
        raise Unreadable("empty file (0 bytes)")
    deadline = time.thread_time() + MAX_SECONDS
    try:
        return _decoded(data, finish, size, deadline)
    except Unreadable as error:
        if not str(error).startswith(("too ", "interrupted")):
            for orientation in (True, False):
                less = metadata.without(data, orientation=orientation)
                with contextlib.suppress(Unreadable):
                    if less != data:
                        return _decoded(less, finish, size, deadline)
        raise


def _decoded(data: bytes, finish: Finish, size: Side | None, deadline: float) -> NDArray[np.uint8]:
    if descriptors.hiding():
        silence()
    try:
        with Image.open(_Watched(data, deadline), formats=FORMATS) as image:
            pixels, tile = image.width * image.height, _tile(image)
            _require_size(*image.size)
            _require_size(*tile, "tiles of ")
            if image.info.get("progressive"):
                image.decodermaxblock = _SCAN_BYTES
            box = _scale(image, data, size(image)) if size else (0, 0, *image.size)
            with memory.room().taken(_bytes_needed(image, max(pixels, tile[0] * tile[1]))):
                try:
                    image.load()
                    # Orientation after load(), because Pillow rotates TIFF files itself and then removes the tag.
                    return finish(*_upright(_to_rgb(image), box, _orientation(image)))
                finally:
                    image.close()  # frees the pixels, while the room is still taken
    except (Unreadable, memory.Declined):
        raise
    except Image.DecompressionBombError:
        raise Unreadable(f"too large: {_LIMIT}") from None
    except UnidentifiedImageError:
        raise Unreadable(_unidentified(data, deadline)) from None
    except MemoryError:
        raise Unreadable("not enough memory to decode it") from None
    # Pillow's decoders raise many kinds of exceptions on damaged files; one bad file must not stop the others.
    except Exception as error:
        raise Unreadable(_problem(error, _Watched(data, deadline), opened=True)) from None


class _Watched(io.BytesIO):
    """The bytes of a picture; reading them fails after a signal, and after the deadline, in seconds of `time.thread_time`."""

    def __init__(self, data: bytes, deadline: float) -> None:
        super().__init__(data)
        self._deadline = deadline

    def read(self, size: int | None = -1, /) -> bytes:
        if interrupts.heard():
            raise Unreadable("interrupted")  # not seen: whoever waits for the picture raises KeyboardInterrupt
        if time.thread_time() > self._deadline:
            raise Unreadable(f"too slow: it is not decoded after {MAX_SECONDS:.0f} s of computing")
        return super().read(size)


def _require_size(width: int, height: int, what: str = "") -> None:
    """Raise Unreadable if a picture, or a tile of it, is too large."""
    if width * height > MAX_PIXELS:
        raise Unreadable(f"too large: {what}{width} × {height}, {_LIMIT}")
    if max(width, height) > MAX_SIDE:
        raise Unreadable(f"too large: {what}{width} × {height}, the limit of a side is {MAX_SIDE:,} pixels")


def _scale(image: Image.Image, data: bytes, size: int) -> Box:
    """Have a large JPEG or JPEG 2000 picture scaled as it is decoded; return the box that will hold it.

    Args:
        size: side of the square to which the picture will be resized.
    """
    if isinstance(image, Jpeg2KImagePlugin.Jpeg2KImageFile):
        return _leave_levels_out(image, layouts.jpeg2000_levels(data), size)
    scaled = image.draft(None, (_SPARE * size, _SPARE * size))  # only JPEG decoders do
    # The last pixel of a scaled picture may lie partly outside of what was scaled.
    return scaled[1] if scaled else (0, 0, *image.size)


def _leave_levels_out(image: Jpeg2KImagePlugin.Jpeg2KImageFile, levels: int, size: int) -> Box:
    """Have a JPEG 2000 picture decoded without its finest levels as far as they are not needed; as `_scale`.

    Args:
        levels: number of levels of its wavelet transform, each of which halves both sides.
    """
    width, height = image.size
    left_out = 0
    while left_out < levels and min(width, height) >> (left_out + 1) >= _JPEG2000_SPARE * size:
        left_out += 1
    power = 2**left_out
    columns, rows = -(-width // power), -(-height // power)
    if columns * rows > _JPEG2000_PIXELS:
        raise Unreadable(
            f"too large: JPEG 2000 of {width} × {height} with {levels} levels takes too long; convert it to JPEG or PNG"
        )
    # Pillow rounds the sides after dividing them, where OpenJPEG rounds them up (and Pillow then calls the file broken).
    image._size = (columns * power, rows * power)
    image.reduce = left_out
    # What is left are averages around every `power`-th pixel, beginning with the first.
    start = 0.5 - 0.5 / power
    return start, start, min(columns, width / power + start), min(rows, height / power + start)


def _tile(image: Image.Image) -> tuple[int, int]:
    """Return the size of the tiles of a TIFF file, which its decoder holds as a whole, also where the picture is smaller."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        return int(tags.get(TiffImagePlugin.TILEWIDTH, 0)), int(tags.get(TiffImagePlugin.TILELENGTH, 0))
    return 0, 0


def _bytes_needed(image: Image.Image, pixels: int) -> int:
    """Estimate the memory that decoding takes at its highest: Pillow's pixels, the RGB copy, and what the decoder keeps.

    Args:
        pixels: number of pixels that the decoder goes through: those of the file, or of a larger tile; `image` may have fewer.
    """
    loaded = _BYTES_PER_PIXEL.get(image.mode, 4)
    kept = 2 * len(image.getbands()) if image.info.get("progressive") else _KEPT_PER_PIXEL.get(image.format or "", 0)
    if (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))) > 8
    ):
        kept *= 2  # four bands of 16 bits
    return image.width * image.height * (loaded + 4) + pixels * kept


def _problem(error: Exception, file: _Watched, *, opened: bool) -> str:
    """Return what an exception of Pillow says about a file: unsupported, incomplete, or damaged.

    Args:
        opened: the header was read, and the exception is about the pixels.
    """
    message = str(error) or type(error).__name__
    if layouts.incomplete(file):
        return "damaged picture: the file is incomplete (it ends before its pixels do)"
    file.seek(0)
    layout = layouts.unsupported(file, opened=opened) or (message if _UNSUPPORTED.search(message) else "")
    if layout:
        return f"unsupported kind of picture ({layout}): convert it to PNG or JPEG with 8 bits a channel"
    # A PNG chunk that is too short for its kind may be in a whole file.
    if "truncated" in message.lower() and not message.endswith("chunk"):
        message = f"the file is incomplete ({message})"
    return f"damaged picture: {message}"


def _unidentified(data: bytes, deadline: float) -> str:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"):
        return "HEIC picture: Pillow cannot read HEIC without a plug-in; convert it to JPEG or PNG"
    if brand in (b"avif", b"avis") and not features.check("avif"):
        return "AVIF picture: this Pillow was built without AVIF; convert it to JPEG or PNG"
    unknown = "unknown file format; if it is a picture, convert it to PNG or JPEG"
    return formats.foreign(data[: formats.HEAD]) or _refused(data, deadline) or unknown


def _refused(data: bytes, deadline: float) -> str | None:
    """Return why Pillow does not open a file with the first bytes of a supported format; None for other files."""
    refused = data.startswith(_SIGNATURES)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        try:
            if not accept or accept(data[:16]) is not True:
                continue
        except Exception:  # too short for this format
            continue
        try:
            factory(_Watched(data, deadline), "").close()
        except Unreadable:
            raise
        except Exception as error:  # which Image.open hides
            problem = _problem(error, _Watched(data, deadline), opened=False)
            if not problem.startswith("damaged") or "incomplete (" in problem:
                return problem
        refused = True
    return "damaged picture: the header is incomplete or invalid" if refused else None


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except Unreadable:  # not damage
        raise
    except Exception:
        return 1  # damaged EXIF: assume upright


def _upright(image: Image.Image, box: Box, orientation: int) -> tuple[Image.Image, Box]:
    """Turn a picture, and the box in it."""
    if orientation not in _UPRIGHT:
        return image, box
    transposition, (first, second, third, fourth) = _UPRIGHT[orientation]
    width, height = image.size
    margins = (box[0], box[1], width - box[2], height - box[3])
    turned = image.transpose(transposition)
    return turned, (margins[first], margins[second], turned.width - margins[third], turned.height - margins[fourth])


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F":
        raise Unreadable("floating-point pixels, with no standard conversion to 8 bits; convert it to PNG")
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        return _strip_to_rgb(image)
    # A large picture strip by strip, so that memory does not hold every intermediate picture as a whole.
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(_strip_to_rgb(strip), (0, top))
    return whole


def _strip_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey, which Pillow stores in 16 or 32 bits
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65_535:
            raise Unreadable(
                "32-bit grey values outside 0–65535, with no standard conversion to 8 bits; convert it to PNG"
            )
        grey = (values // 256).astype(np.uint8)
        if isinstance(image.info.get("transparency"), int):  # the grey value of transparent pixels
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")
