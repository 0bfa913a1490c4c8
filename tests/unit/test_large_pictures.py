"""Large JPEG files are scaled as they are decoded: hardly another picture, in a fraction of the time."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from featurize.pixels import images
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


def in_full(data, size):
    """Decode without scaling."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_SPARE", 1_000)
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


class Noting:
    """Room for any picture, which notes what is taken."""

    def __init__(self, sizes):
        self._sizes = sizes

    @contextlib.contextmanager
    def taken(self, size):
        self._sizes.append(size)
        yield
