"""Image decoder: the bytes of a file → a uint8 RGB array, or the reason why it cannot be decoded. All commands use it.

This module does not depend on the network. Its conventions (white behind alpha, first frame, 16-bit values divided by 256,
colour profiles ignored) affect all cached features: changing one of them requires a new `DECODER_VERSION`.
"""

import io
import struct
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from featurize.pixels.perturbations import PERTURBATIONS

DECODER_VERSION = 1

# 120 million pixels: more than the largest medium-format camera (102 million), and two copies fit into a small machine's memory.
MAX_PIXELS = 120_000_000
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

RESIZE_FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "nearest": Image.Resampling.NEAREST,
}

# First bytes of JPEG, PNG, GIF and TIFF files: if Pillow does not recognise such a file, its header is damaged.
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*")

_EXIF_ORIENTATION = 0x0112
# EXIF 2.32, table 6: orientation → transposition that makes the picture upright.
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
    return np.asarray(_open_rgb(data))


def decode_resized(data: bytes, size: int, resize: str = "bilinear", perturbation: str = "") -> NDArray[np.uint8]:
    """Decode a picture and resize it to a square, ignoring the aspect ratio.

    Args:
        data: contents of the file.
        size: side of the square in pixels.
        resize: a key of `RESIZE_FILTERS`: Pillow's filters, which average over all covered pixels when shrinking.
        perturbation: a key of `featurize.pixels.perturbations.PERTURBATIONS`, applied to the square; empty for none.

    Returns:
        uint8 array of shape (size, size, 3), RGB.

    Raises:
        Unreadable: the data cannot be decoded; with the reason.
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
                raise Unreadable(f"too large: {width} × {height}, {_LIMIT}")
            image.load()
            # Orientation after load(), because Pillow rotates TIFF files itself and then removes the tag.
            return _upright(_to_rgb(image), _orientation(image))
    except Unreadable:
        raise
    except Image.DecompressionBombError:
        raise Unreadable(f"too large: {_LIMIT}") from None
    except UnidentifiedImageError:
        raise Unreadable(_unidentified(data)) from None
    except MemoryError:
        raise Unreadable("not enough memory to decode it") from None
    # Pillow's decoders raise many kinds of exceptions on damaged files; one bad file must not stop the others.
    except Exception as error:
        message = str(error) or type(error).__name__
        if "truncated" in message.lower():
            message = f"the file is incomplete ({message})"
        raise Unreadable(f"damaged picture: {message}") from None


def _unidentified(data: bytes) -> str:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"):
        return "HEIC picture: Pillow cannot read HEIC without a plug-in; convert it to JPEG or PNG"
    if brand in (b"avif", b"avis") and not features.check("avif"):
        return "AVIF picture: this Pillow was built without AVIF; convert it to JPEG or PNG"
    if brand in (b"avif", b"avis") or data.startswith(_SIGNATURES):
        return "damaged picture: the header is incomplete or invalid"
    if data.startswith(b"\0\0\1\0"):
        return "icon (ICO): not supported; convert it to PNG"
    return "not a picture: unknown file format"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_EXIF_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1  # damaged EXIF: assume upright


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    transposition = _UPRIGHT.get(orientation)
    return image if transposition is None else image.transpose(transposition)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
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
    if image.mode == "F":
        raise Unreadable("floating-point pixels, with no standard conversion to 8 bits; convert it to PNG")
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")
