"""Pictures without metadata: the same bytes less what only describes the pixels, where a reader stumbles over it.

Texts, colour profiles, thumbnails and notes of cameras neither make nor change a pixel, so whatever is wrong with them (too long,
a wrong checksum, a broken structure), the picture can be decoded.
"""

import struct
import zlib

# Chunks of PNG files that pixels depend on: all critical ones, and transparency.
_PNG, _PNG_KEPT = b"\x89PNG\r\n\x1a\n", frozenset((b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"))
# Markers of JPEG files: APP1 to APP13 and APP15, and comments. APP0 (JFIF) and APP14 (Adobe) determine the colour space.
_JPEG_DROPPED = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_WEBP_DROPPED = frozenset((b"EXIF", b"XMP ", b"ICCP"))
_MAX_PARTS = 500_000  # of a file, about a second; 960 MB of pixels in chunks of 8 KiB, libpng's default, are 117,000


def without(data: bytes, *, orientation: bool) -> bytes:
    """Return the contents of a PNG, JPEG or WebP file without metadata; other files, and what cannot be parsed, unchanged.

    Args:
        orientation: keep EXIF, which contains the orientation.
    """
    try:
        if data.startswith(_PNG):
            return _png(data, orientation)
        if data.startswith(b"\xff\xd8\xff"):
            return _jpeg(data, orientation)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp(data, orientation)
    except (struct.error, IndexError):
        pass
    return data


def _png(data: bytes, orientation: bool) -> bytes:
    parts, at = [_PNG], len(_PNG)
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            return b"".join(parts)
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 12 + size
        name = data[at + 4 : at + 8]
        # Pillow refuses a file with a chunk whose checksum is wrong.
        sound = data[end - 4 : end] == struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))
        if name in _PNG_KEPT or (orientation and name == b"eXIf" and sound):
            parts.append(data[at:end])
        at = end
    return data


def _jpeg(data: bytes, orientation: bool) -> bytes:
    parts, at = [data[:2]], 2
    for _ in range(_MAX_PARTS):
        if data[at] != 0xFF or data[at + 1] == 0xDA:  # the first scan
            return b"".join([*parts, data[at:]])
        if data[at + 1] == 0xFF:  # padding
            at += 1
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        exif = data[at + 1] == 0xE1 and data[at + 4 : at + 8] == b"Exif"
        if data[at + 1] not in _JPEG_DROPPED or (orientation and exif):
            parts.append(data[at : at + 2 + size])
        at += 2 + size
    return data


def _webp(data: bytes, orientation: bool) -> bytes:
    parts: list[bytes] = []
    at = 12
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            body = b"".join(parts)
            return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
        (size,) = struct.unpack_from("<I", data, at + 4)
        end = at + 8 + size + size % 2
        name = data[at : at + 4]
        if name not in _WEBP_DROPPED or (orientation and name == b"EXIF"):
            parts.append(data[at:end])
        at = end
    return data
