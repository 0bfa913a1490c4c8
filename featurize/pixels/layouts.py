"""What Pillow does not say of a file: bands, bits and compression that it cannot decode, and the levels of a JPEG 2000 file."""

import os
import struct
from typing import BinaryIO

from PIL import TiffImagePlugin

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags of TIFF 6.0.
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _BANDS, _FORMAT = 256, 257, 258, 259, 277, 339
_OFFSETS = ((273, 279), (324, 325))  # where strips or tiles are, and how many bytes they have
_FORMATS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}

_FRAMES = {0xC3: "lossless", 0xC7: "lossless", 0xCB: "lossless", 0xCF: "lossless"}  # of JPEG: ITU T.81, table B.1
_FRAMES |= dict.fromkeys((0xC5, 0xC6, 0xCD, 0xCE), "hierarchical")


def unsupported(file: BinaryIO, *, opened: bool) -> str | None:
    """Describe the layout of a file that Pillow does not decode; None if the layout is not the reason, or not known.

    Args:
        file: a file that Pillow does not decode, at its beginning; reading it may raise any exception.
        opened: Pillow has accepted the header, so that only the compression may be the reason.
    """
    try:
        head = file.read(16)
        if head[:4] in _TIFF:
            return _tiff(file, head, opened)
        if head.startswith(b"\xff\xd8\xff"):
            return _jpeg(file)
    except Exception:  # of many kinds, as in `featurize.pixels.images`
        return None
    return None


def incomplete(file: BinaryIO) -> bool:
    """Return whether a TIFF file, at its beginning, ends before its pixels do."""
    try:
        head = file.read(16)
        return head[:4] in _TIFF and _ends_early(file, _tags(file, head))
    except Exception:  # of many kinds, as above
        return False


def jpeg2000_levels(data: bytes) -> int:
    """Return how often the wavelet transform of a JPEG 2000 picture halves its sides: the COD segment, ITU T.800, table A.15."""
    at = data.find(b"\xff\x4f\xff\x51") + 2
    while len(data) >= at + 10 and data[at] == 0xFF and data[at + 1] not in (0x90, 0x93, 0xD9):
        if data[at + 1] == 0x52:
            return data[at + 9]
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    return 0


def _tags(file: BinaryIO, head: bytes) -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2(head if 43 in head[2:4] else head[:8])
    file.seek(tags.next)
    tags.load(file)
    return tags


def _ends_early(file: BinaryIO, tags: TiffImagePlugin.ImageFileDirectory_v2) -> bool:
    offsets, sizes = next((tags[at], tags[size]) for at, size in _OFFSETS if at in tags)
    return bool(max(at + size for at, size in zip(offsets, sizes, strict=True)) > file.seek(0, os.SEEK_END))


def _tiff(file: BinaryIO, head: bytes, opened: bool) -> str | None:
    tags = _tags(file, head)
    if _ends_early(file, tags):
        return None
    bands, bits = tags.get(_BANDS, 1), tags.get(_BITS, (1,))[0]
    values = f"{bits}-bit {_FORMATS.get(tags.get(_FORMAT, (1,))[0], 'unknown')} values"
    code = tags.get(_COMPRESSION, 1)
    compression = TiffImagePlugin.COMPRESSION_INFO.get(code, code)
    if opened and code in TiffImagePlugin.COMPRESSION_INFO:
        return None  # damaged
    return (
        f"TIFF, {tags[_WIDTH]} × {tags[_HEIGHT]}, {bands} band{'s' if bands != 1 else ''} of {values}, "
        f"compression {compression}"
    )


def _jpeg(file: BinaryIO) -> str | None:
    file.seek(2)
    while (marker := file.read(2))[0] == 0xFF and marker[1] != 0xDA:
        if marker[1] in _FRAMES:
            return f"{_FRAMES[marker[1]]} JPEG"
        file.seek(-1 if marker[1] == 0xFF else struct.unpack(">H", file.read(2))[0] - 2, os.SEEK_CUR)
    return None
