"""Bytes on disk → one uint8 RGB picture, or a reason why not. Every command decodes here and nowhere else.

Nothing in this file depends on the network: pixels in, pixels out. The choices (white behind alpha, first frame,
16-bit values divided by 256, colour profiles ignored) are part of every cached number, so a change of any of them
must raise `DECODER_VERSION`.
"""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from featurize.pixels.perturbations import PERTURBATIONS

DECODER_VERSION = 1

# 120 million pixels: above the largest medium-format camera (102 million), below what a small machine can hold twice.
MAX_PIXELS = 120_000_000

# Pillow can also open EPS, PDF and WMF, some of them by starting other programs, and decodes an icon before its size can be
# asked for; a folder of photographs needs none of them.
# Those that this Pillow lacks (HEIF without a plug-in) are left out, or Image.open would trip over their names.
Image.init()
FORMATS = [
    name for name in "JPEG MPO PNG GIF WEBP TIFF BMP DIB PPM TGA PCX JPEG2000 AVIF HEIF".split() if name in Image.OPEN
]

# Pillow warns of many pixels (the limit above decides here) and of broken EXIF (it costs no pixels): not into the progress.
warnings.filterwarnings("ignore", module=r"PIL\.")

RESIZE_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

# JPEG, PNG, GIF, TIFF: where Pillow knows no format in them, it is the header that is damaged.
_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")

_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, table 6: how the stored picture must be turned to stand upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(Exception):
    """The bytes are no picture that can be used; the message is a reason that a person understands."""


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode one picture.

    Args:
        data: the whole file.

    Returns:
        uint8 array of shape (height, width, 3), RGB, upright, alpha composited on white.

    Raises:
        Unreadable: with the reason, for anything that gives no pixels.
    """
    return np.asarray(_open_rgb(data))


def decode_resized(data: bytes, size: int, resize: str = "bilinear", perturbation: str = "") -> NDArray[np.uint8]:
    """Decode one picture and resize it to a square, aspect not kept.

    Args:
        data: the whole file.
        size: side of the result in pixels.
        resize: a key of `RESIZE_FILTERS`; Pillow's filters, which average over all covered pixels when shrinking.
        perturbation: a key of `featurize.pixels.perturbations.PERTURBATIONS`: how the square is changed; empty: not at all.

    Returns:
        uint8 array of shape (size, size, 3), RGB.

    Raises:
        Unreadable: with the reason, for anything that gives no pixels.
    """
    square = _open_rgb(data).resize((size, size), RESIZE_FILTERS[resize])
    return np.asarray(PERTURBATIONS[perturbation](square) if perturbation else square)


def _open_rgb(data: bytes) -> Image.Image:
    if not data:
        raise Unreadable("empty file (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unreadable(_too_large(f"{width} × {height} pixels"))
            image.load()
            # Read after load(): Pillow turns TIFF files itself and then drops the tag.
            return _upright(_to_rgb(image), _orientation(image))
    except Unreadable:
        raise
    except Image.DecompressionBombError:
        raise Unreadable(_too_large("far too many pixels")) from None
    except UnidentifiedImageError:
        raise Unreadable(_unidentified(data)) from None
    except MemoryError:
        raise Unreadable("not enough memory to decode it") from None
    # Decoders of damaged files raise whatever their parsers stumble over; one bad file must not stop the others.
    except Exception as error:
        message = str(error) or type(error).__name__
        if "truncated" in message.lower():
            message = f"the file is cut short ({message})"
        raise Unreadable(f"damaged picture: {message}") from None


def _too_large(found: str) -> str:
    return f"too large: {found}, the limit is {MAX_PIXELS // 1_000_000} million"


def _unidentified(data: bytes) -> str:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"):
        return "HEIC picture: Pillow has no reader for it here; convert it to JPEG or PNG"
    if brand in (b"avif", b"avis") and not features.check("avif"):
        return "AVIF picture: this Pillow was built without AVIF; convert it to JPEG or PNG"
    if brand in (b"avif", b"avis") or data.startswith(_BEGINNINGS):
        return "damaged picture: it begins like one, but the rest is cut short or makes no sense"
    if data.startswith(b"\0\0\1\0"):
        return "icon (ICO): not read; convert it to PNG"
    return "not a picture: no known image format in its bytes"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1  # broken EXIF says nothing about the pixels, which are fine


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):  # 16-bit grey, held by Pillow as 16 or 32 bits
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 65_535:
            raise Unreadable("32-bit grey values outside 0–65535: no agreed way to show them in 8 bits")
        grey = (values // 256).astype(np.uint8)
        if isinstance(image.info.get("transparency"), int):  # one grey value that stands for "nothing here"
            grey[values == image.info["transparency"]] = 255
        return Image.fromarray(grey).convert("RGB")
    if image.mode == "F":
        raise Unreadable("floating-point pixels: no agreed way to show them in 8 bits; convert it to PNG")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")
