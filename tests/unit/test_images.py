"""Decoding: exact pixel values, or the reason why a file is no image."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from featurize.pixels.images import Unreadable, decode, decode_resized

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, format=kind, **options)
    return data.getvalue()


def rgb(*rows) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


CORNERS = [[RED, GREEN], [BLUE, (9, 9, 9)]]
# What a viewer must show for each EXIF orientation if the stored pixels are CORNERS (EXIF 2.32, table 6).
UPRIGHT = {
    1: [[RED, GREEN], [BLUE, (9, 9, 9)]],
    2: [[GREEN, RED], [(9, 9, 9), BLUE]],
    3: [[(9, 9, 9), BLUE], [GREEN, RED]],
    4: [[BLUE, (9, 9, 9)], [RED, GREEN]],
    5: [[RED, BLUE], [GREEN, (9, 9, 9)]],
    6: [[BLUE, RED], [(9, 9, 9), GREEN]],
    7: [[(9, 9, 9), GREEN], [BLUE, RED]],
    8: [[GREEN, (9, 9, 9)], [RED, BLUE]],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(rgb(*CORNERS), kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert decode(data).tolist() == np.array(UPRIGHT[orientation]).tolist()


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_of_jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = rgb(*CORNERS).resize((64, 64), Image.Resampling.NEAREST)
    found = decode(encoded(big, "JPEG", exif=exif, quality=100, subsampling=0))
    centres = found[16::32, 16::32].astype(int)
    assert np.abs(centres - np.array(UPRIGHT[orientation])).max() <= 2


def test_broken_exif_costs_nothing():
    data = encoded(rgb(*CORNERS).resize((16, 16)), "JPEG")
    broken = b"Exif\0\0" + b"II*\0\xff\xff\xff\x7f" + b"\0" * 8
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(broken) + 2) + broken + data[2:]
    assert decode(data).shape == (16, 16, 3)


def test_alpha_goes_on_white():
    pixels = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    assert decode(encoded(Image.fromarray(pixels), "PNG")).tolist() == [[[255, 0, 0], [255, 255, 255], [127, 127, 127]]]


def test_grey_with_alpha():
    pixels = np.array([[[10, 255], [10, 0]]], np.uint8)
    assert decode(encoded(Image.fromarray(pixels), "PNG")).tolist() == [[[10] * 3, [255] * 3]]


def test_palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putdata([0, 1])
    assert decode(encoded(image, "PNG", transparency=0)).tolist() == [[[255, 255, 255], [0, 0, 255]]]
    assert decode(encoded(image, "PNG")).tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_rgb_with_a_transparent_colour():
    assert decode(encoded(rgb([RED, BLUE]), "PNG", transparency=RED)).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_one_bit():
    assert decode(encoded(Image.fromarray(np.array([[True, False]])), "PNG")).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_divided_by_256(kind):
    values = np.array([[0, 255, 256, 511, 65_535]], np.uint16)
    assert decode(encoded(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 0, 1, 1, 255]


def test_sixteen_bit_grey_with_a_transparent_value():
    values = Image.fromarray(np.array([[0, 512]], np.uint16))
    assert decode(encoded(values, "PNG", transparency=512))[0, :, 0].tolist() == [0, 255]


def test_float_pixels_are_refused():
    with pytest.raises(Unreadable, match="floating-point"):
        decode(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


def test_cmyk():
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(decode(encoded(image, "JPEG", quality=100))[8, 8].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(kind):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (GREEN, RED)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert decode(data)[0, 0].tolist() == list(GREEN)


def test_content_decides_not_the_name():
    assert decode(encoded(rgb(*CORNERS), "BMP")).tolist() == np.array(CORNERS).tolist()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_shapes_are_resized(kind, size):
    found = decode_resized(encoded(Image.new("RGB", size, (200, 100, 50)), kind), 224)
    assert found.shape == (224, 224, 3)
    assert found.dtype == np.uint8
    assert np.abs(found.astype(int) - [200, 100, 50]).max() <= 4


def test_resize_is_pillows_bilinear():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (300, 500, 3), dtype=np.uint8))
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR))
    assert np.array_equal(decode_resized(encoded(image, "PNG"), 224), expected)


def test_reasons():
    jpeg = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    for data, reason in (
        (b"", "empty file"),
        (b"this is no picture", "not a picture"),
        (jpeg[: len(jpeg) // 2], "incomplete"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "picture"),
    ):
        with pytest.raises(Unreadable, match=reason):
            decode(data)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    image = Image.new("1", (14_000, 12_000))
    with pytest.raises(Unreadable, match="14000 × 12000"):
        decode(encoded(image, "PNG"))
    header = bytearray(encoded(Image.new("1", (8, 8)), "PNG"))
    header[16:24] = struct.pack(">II", 100_000, 100_000)
    header[29:33] = struct.pack(">I", zlib.crc32(header[12:29]))
    with pytest.raises(Unreadable, match="too large: the limit is 120 million"):
        decode(bytes(header))
