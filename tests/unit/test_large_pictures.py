"""Large pictures: JPEG and JPEG 2000 are scaled as they are decoded, to hardly another picture in little time; limits."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter, TiffImagePlugin, TiffTags

from featurize.pixels import images, layouts
from featurize.pixels.images import decode_resized

ORIENTATION = 0x0112


def landscape(width=1003, height=751, mode="RGB"):
    """A picture of soft shapes and some grain, not the same turned or mirrored; its sides are no multiples of 8."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).filter(ImageFilter.GaussianBlur(2))
    return Image.blend(small, grain, 0.2).convert(mode)


def jpeg(picture, **options):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=92, **options)
    return file.getvalue()


def jpeg2000(picture, **options):
    file = io.BytesIO()
    picture.save(file, "JPEG2000", **options)
    return file.getvalue()


def in_full(data, size):
    """Decode without scaling."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_SPARE", 1_000)
        patch.setattr(images, "_JPEG2000_SPARE", 1_000)
        return decode_resized(data, size)


def apart(data, size):
    """Return the mean difference that scaling makes, of 255."""
    full, scaled = in_full(data, size), decode_resized(data, size)
    assert not np.array_equal(full, scaled)
    return np.abs(full.astype(float) - scaled).mean()


def test_photographs(hymenoptera):
    """As many times smaller as photographs of 4 to 12 megapixels become for VGG16: scaled to an eighth, a quarter or a half."""
    files = [path.read_bytes() for path in sorted(hymenoptera.glob("*/*/*.jpg"))[::20]]
    differences = [apart(data, size) for data in files for size in (20, 24, 32, 40, 48, 56)]
    assert np.mean(differences) < 0.5  # measured: 0.42
    assert max(differences) < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"quality_mode": "rates", "quality_layers": [12], "irreversible": True}])
def test_photographs_in_jpeg_2000(hymenoptera, options):
    differences = []
    for path in sorted(hymenoptera.glob("*/*/*.jpg"))[::40]:
        with Image.open(path) as picture:
            data, side = jpeg2000(picture, **options), min(picture.size)
        differences += [apart(data, size) for size in (20, 24, 32, 40) if size * 6 < side]
    assert np.mean(differences) < 1.2  # measured, of twice as many: 0.98 and 0.69
    assert max(differences) < 2.5


@pytest.mark.parametrize("side", range(760, 768))
def test_jpeg_2000_of_any_size(side):
    """Pillow calls files broken whose sides OpenJPEG rounds in another way."""
    assert apart(jpeg2000(landscape(1003, side)), 30) < 2


@pytest.mark.slow
def test_jpeg_2000_takes_little_time_or_is_refused(monkeypatch):
    """OpenJPEG holds Python's global lock, so that nobody would hear Ctrl-C."""
    monkeypatch.setattr(images, "_JPEG2000_PIXELS", 200_000)
    assert decode_resized(jpeg2000(landscape(2000, 1600)), 100).shape == (100, 100, 3)
    with pytest.raises(
        images.Unreadable, match="too large: JPEG 2000 of 2000 × 1600 with 1 levels takes too long; conv"
    ):
        decode_resized(jpeg2000(landscape(2000, 1600), num_resolutions=2), 100)


@pytest.mark.parametrize("levels", [0, 1, 5])
def test_levels_of_jpeg_2000(levels):
    for options in ({}, {"no_jp2": True}, {"comment": "x" * 300}):
        data = jpeg2000(landscape(200, 150), num_resolutions=levels + 1, **options)
        assert layouts.jpeg2000_levels(data) == levels
    for end in range(len(data)):
        assert layouts.jpeg2000_levels(data[:end]) in (0, levels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert apart(jpeg(landscape(), exif=exif), 100) < 0.5


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"mode": "L"}, {"mode": "CMYK"}])
def test_kinds_of_jpeg(options):
    mode = options.pop("mode", "RGB")
    assert apart(jpeg(landscape(mode=mode), **options), 100) < 0.5


@pytest.mark.parametrize(("sides", "scaled"), [((896, 896), True), ((895, 2000), False), ((2000, 895), False)])
def test_both_sides_stay_twice_as_long_as_needed(sides, scaled):
    data = jpeg(landscape(*sides))
    assert np.array_equal(in_full(data, 224), decode_resized(data, 224)) != scaled


def test_other_formats_are_decoded_in_full():
    file = io.BytesIO()
    landscape().save(file, "PNG")
    assert np.array_equal(in_full(file.getvalue(), 32), decode_resized(file.getvalue(), 32))


def test_several_pictures_in_a_file():
    """MPO, as some cameras write: the first picture counts, and is scaled."""
    file = io.BytesIO()
    landscape().save(file, "MPO", save_all=True, append_images=[landscape().rotate(180)], quality=92)
    assert apart(file.getvalue(), 100) < 0.5
    assert (
        np.abs(decode_resized(file.getvalue(), 100).astype(float) - decode_resized(jpeg(landscape()), 100)).mean() < 0.1
    )


def test_the_limit_is_that_of_the_file(monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 750_000)
    with pytest.raises(images.Unreadable, match="too large: 1003 × 751"):
        decode_resized(jpeg(landscape()), 32)


def test_memory_is_that_of_what_is_decoded(monkeypatch):
    taken = []
    monkeypatch.setattr(images.memory, "room", lambda: Noting(taken))
    for options in ({}, {"progressive": True}):  # of which the decoder keeps all coefficients
        decode_resized(jpeg(landscape(1600, 1600), **options), 100)
    assert taken == [200 * 200 * 8, 200 * 200 * 8 + 1600 * 1600 * 6]


def tiled(tile, bits=(8, 8, 8)):
    """Return a TIFF file of 10 × 10 pixels in one tile, compressed."""
    pixels = zlib.compress(bytes(tile[0] * tile[1] * sum(bits) // 8), 9)
    tags = {256: 10, 257: 10, 259: 8, 262: 2, 277: len(bits), 322: tile[0], 323: tile[1], 325: len(pixels)}
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory.update({**tags, 258: bits, 324: 0})
    for tag in (256, 257, 322, 323, 324, 325):
        directory.tagtype[tag] = TiffTags.LONG
    directory[324] = 8 + len(directory.tobytes(8))
    return b"II*\0" + struct.pack("<I", 8) + directory.tobytes(8) + pixels


def test_a_tile_counts_where_it_is_larger_than_the_picture(monkeypatch):
    """The decoder holds whole tiles: a file of some kilobytes may take gigabytes."""
    taken = []
    monkeypatch.setattr(images.memory, "room", lambda: Noting(taken))
    for bits in ((8, 8, 8), (16, 16, 16)):
        assert decode_resized(tiled((320, 208), bits), 32).shape == (32, 32, 3)
    assert taken == [10 * 10 * 8 + 320 * 208 * 4, 10 * 10 * 8 + 320 * 208 * 8]
    monkeypatch.setattr(images, "MAX_PIXELS", 320 * 208 - 1)
    with pytest.raises(images.Unreadable, match="too large: tiles of 320 × 208, the limit is"):
        decode_resized(tiled((320, 208)), 32)


@pytest.mark.parametrize("size", [(1, images.MAX_SIDE + 1), (images.MAX_SIDE + 1, 1)])
def test_a_side_has_a_limit(size):
    """Because rows and the resize filter take memory for each pixel of a side: gigabytes for 120 million × 1."""
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    with pytest.raises(
        images.Unreadable, match=f"too large: {size[0]} × {size[1]}, the limit of a side is 250,000 pixels"
    ):
        decode_resized(file.getvalue(), 32)


class Noting:
    """Room for any picture, which notes what is taken."""

    def __init__(self, sizes):
        self._sizes = sizes

    @contextlib.contextmanager
    def taken(self, size):
        self._sizes.append(size)
        yield
