"""Files that are no pictures or of a kind that is not supported: what the reason says."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from featurize.pixels import formats, images

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8))


def saved(format_name, **options):
    data = io.BytesIO()
    PICTURE.save(data, format_name, **options)
    return data.getvalue()


def tiff(bands, bits=8, kind=1, compression=1):
    """A TIFF file of 8 × 8 black pixels; `kind`: 1 unsigned, 2 signed, 3 floating-point."""
    pixels = bytes(64 * bands * bits // 8)
    tags = {256: (3, 8), 257: (3, 8), 258: (3, *[bits] * bands), 259: (3, compression), 262: (3, 1), 273: (4, 0)}
    tags |= {277: (3, bands), 278: (3, 8), 279: (4, len(pixels)), 339: (3, *[kind] * bands)}
    at = 8 + 2 + 12 * len(tags) + 4
    entries = longer = b""
    end = at + sum(2 * (len(tag) - 1) for tag in tags.values() if len(tag) > 3)
    tags[273] = (4, end)
    for number, (code, *values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if code == 3 else 'I'}", *values)
        if len(packed) > 4:
            packed, longer = struct.pack("<I", at + len(longer)), longer + packed
        entries += struct.pack("<HHI", number, code, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + longer + pixels


def changed(data, at, value):
    return data[:at] + bytes([value]) + data[at + 1 :]


def reason(data):
    with pytest.raises(images.Unreadable) as caught:
        images.decode(data)
    return str(caught.value)


JPEG = saved("JPEG")
FRAME = JPEG.index(b"\xff\xc0")


@pytest.mark.parametrize(
    ("data", "layout"),
    [
        (tiff(13), "TIFF, 8 × 8, 13 bands of 8-bit unsigned values, compression raw"),
        (tiff(13, 16), "TIFF, 8 × 8, 13 bands of 16-bit unsigned values, compression raw"),
        (tiff(3, 32, 3), "TIFF, 8 × 8, 3 bands of 32-bit floating-point values, compression raw"),
        (tiff(1, 64, 3), "TIFF, 8 × 8, 1 band of 64-bit floating-point values, compression raw"),
        (tiff(3, compression=34892), "TIFF, 8 × 8, 3 bands of 8-bit unsigned values, compression 34892"),
        (changed(JPEG, FRAME + 4, 12), "cannot handle 12-bit layers"),
        (changed(JPEG, FRAME + 1, 0xC3), "lossless JPEG"),
        (changed(saved("BMP"), 30, 99), r"Unsupported BMP compression (99)"),
    ],
)
def test_unsupported_is_not_damaged(data, layout):
    assert reason(data) == (f"unsupported kind of picture ({layout}): convert it to PNG or JPEG with 8 bits a channel")


LZW = saved("TIFF", compression="tiff_lzw")


@pytest.mark.parametrize(
    "data",
    [
        LZW[:60] + bytes(40) + LZW[100:],
        tiff(13)[:100],
        tiff(13)[:-20],
        saved("TIFF")[:-20],
        JPEG[:FRAME],
        JPEG[:-40],
        saved("PNG")[:40],
    ],
)
def test_damaged_is_not_unsupported(data):
    assert reason(data).startswith("damaged picture: ")


def with_chunk(data, name, content):
    """A PNG file with a chunk after its header."""
    chunk = struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize("data", [tiff(13)[:-20], saved("TIFF")[:-20], saved("PNG")[:-30], JPEG[:-40]])
def test_a_picture_that_is_cut_is_incomplete(data):
    assert reason(data).startswith("damaged picture: the file is incomplete (")


def test_a_chunk_of_the_wrong_size_does_not_make_a_file_incomplete():
    assert reason(with_chunk(saved("PNG"), b"tRNS", b"ab")) == "damaged picture: Truncated tRNS chunk"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s12--4d7a.jpg\n", "git annex get"),
        (b"<!DOCTYPE html>\n<html lang='en'>", "HTML page"),
        (b"\xef\xbb\xbf\r\n <HTML><HEAD>", "HTML page"),
        ("<!doctype html><html>".encode("utf-16"), "HTML page"),
        ("<html lang='en'>".encode("utf-16-be"), "HTML page"),
        (b"<h1>404 Not Found</h1>", "HTML page"),
        (b'<meta charset="utf-8">', "HTML page"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0"><html>', "HTML page"),
        ("<svg width='9'></svg>".encode("utf-16"), "SVG drawing"),
        (gzip.compress(b"<?xml version='1.0'?><svg width='9'></svg>", mtime=0), "SVG drawing"),
        (gzip.compress(b"0 1 2", mtime=0), "archive"),
        (b"qoif\0\0\0\x09", "QOI picture"),
        (b"BPG\xfb\0", "BPG picture"),
        (b"FLIF1", "FLIF picture"),
        (b"P7\nWIDTH 9\n", "PAM picture"),
        (saved("SGI"), "SGI picture"),
        (b"\0\0\2\0\1\0\x20\x20\0\0\5\0", "cursor"),
        (b"/* XPM */\nstatic", "X11 picture"),
        (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG drawing"),
        (b"<svg width='9'></svg>", "SVG drawing"),
        (b"\xff\x0a\x12\x34", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "MP4 or QuickTime video"),
        (b"\x1aE\xdf\xa3\x93\x42", "Matroska or WebM video"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "raw picture of a camera"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"%PDF-1.7", "PDF document"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"PK\x03\x04\x14\0", "archive"),
        (b'{"shapes": []}', "JSON file"),
        (b"<?xml version='1.0'?><annotation>", "XML file"),
        ("0 0.5 0.5 0.1 0.1 café".encode(), "text file"),
        ("<?xml version='1.0'?><annotation>".encode("utf-16"), "XML file"),
        ("notes".encode("utf-16"), "text file"),
        (b"<annotation><object>", "text file"),
        (bytes(5000), "zeros where a picture starts"),
        (b"\x91\x07\xfe\x01 unknown", "unknown file format; if it is a picture, convert it to PNG"),
    ],
)
def test_what_a_file_is(data, expected):
    assert expected in reason(data)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000", "AVIF"])
def test_a_picture_that_is_cut_anywhere_has_a_reason(name):
    data = saved(name)
    for size in range(min(40, len(data))):
        assert reason(data[:size])


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA", "PCX", "JPEG2000"])
def test_no_picture_is_taken_for_something_else(name):
    assert formats.foreign(saved(name)[: formats.HEAD]) is None
