"""Winograd convolutions against direct convolution, at sizes that tiles do not divide and at borders."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from tiny import TINY, random_weights

from featurize import engines
from featurize.backbone.architecture import chain
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.engines import winograd_engine
from featurize.errors import VggftError

winograd = pytest.importorskip("featurize.engines.winograd", reason="the extra 'cpu' is not installed")

NONE = np.empty((0, 0, 0, 0), np.float32)


def definition(picture, kernel, bias):
    """Convolution with zeros around the picture, bias, ReLU, in float64."""
    around = np.pad(picture.astype(np.float64), ((1, 1), (1, 1), (0, 0)))
    squares = sliding_window_view(around, (3, 3), axis=(0, 1))
    return np.maximum(np.einsum("hwcij,ijck->hwk", squares, kernel.astype(np.float64), optimize=True) + bias, 0)


def pooled(picture):
    half = picture.shape[0] // 2
    return picture[: 2 * half, : 2 * half].reshape(half, 2, half, 2, -1).max((1, 3))


def canvases(size, channels, *pictures, number=1):
    """Return the canvases of pictures, or empty ones."""
    side = winograd.canvas_side(size)
    made = np.zeros((len(pictures) or number, side, side, channels), np.float32)
    for own, picture in zip(made, pictures, strict=False):
        own[1 : 1 + size, 1 : 1 + size] = picture
    return made


def inside(found, size):
    """Return the images on canvases, after checking that nothing was written outside them."""
    pictures = found[:, 1 : 1 + size, 1 : 1 + size].copy()
    found[:, 1 : 1 + size, 1 : 1 + size] = 0
    assert not found.any()
    return pictures


def case(size, channels, filters):
    rng = np.random.default_rng(size)
    picture = rng.normal(0, 1, (size, size, channels)).astype(np.float32)
    kernel = rng.normal(0, (9 * channels) ** -0.5, (3, 3, channels, filters)).astype(np.float32)
    return picture, kernel, rng.normal(0, 1, filters).astype(np.float32)


# From 48 on in tiles of 8×8, below in those of 4×4; 100 and 410 have more tiles than a block holds, and so do the three pictures.
@pytest.mark.parametrize(
    ("size", "channels", "filters"),
    [
        (3, 64, 64),
        (2, 64, 128),
        (7, 512, 128),
        (14, 64, 192),
        (47, 256, 64),
        (48, 128, 128),
        (57, 64, 64),
        (100, 64, 64),
        pytest.param(410, 64, 64, marks=pytest.mark.slow),
    ],
)
def test_convolution_bias_relu_and_pooling(size, channels, filters):
    picture, kernel, bias = case(size, channels, filters)
    pictures = picture, picture[::-1] * 2, picture[:, ::-1]
    u = winograd.transform_kernel(kernel, size)

    def convolve(*own, full_too=True):
        scratch = winograd.scratch([(size, channels, filters)])
        for array in scratch:
            array.fill(np.nan)  # nothing may be read that was not written
        full, half = canvases(size, filters, number=len(own)), canvases(size // 2, filters, number=len(own))
        winograd.convolve(canvases(size, channels, *own), size, u, bias, full if full_too else NONE, half, scratch)
        return inside(full, size), inside(half, size // 2)

    full, half = convolve(*pictures)
    for own, own_half, given in zip(full, half, pictures, strict=True):
        expected = definition(given, kernel, bias)
        assert np.linalg.norm(own - expected) < 1e-4 * np.linalg.norm(expected)
        assert np.array_equal(own_half, pooled(own))
    assert 0.2 < (full > 0).mean() < 0.8
    assert np.array_equal(convolve(pictures[1])[0], full[1:2])  # to the bit, whoever is computed with it
    assert np.array_equal(convolve(*pictures, full_too=False)[1], half)


def test_both_sizes_of_tiles():
    assert [winograd.tile_side(size) for size in (224, 112, 56, 28, 14, 7)] == [8, 8, 8, 4, 4, 4]


def test_pixels():
    picture, kernel, bias = case(45, 3, 128)
    pictures = picture, picture[::-1]
    full = canvases(45, 128, number=2)
    winograd.convolve_pixels(canvases(45, 3, *pictures), 45, kernel.reshape(27, 128), bias, full)
    expected = np.stack([definition(own, kernel, bias) for own in pictures])
    assert np.abs(inside(full, 45) - expected).max() < 1e-4


@pytest.mark.parametrize("place", [(5, 5, 5), (4, 4, 5)])  # in the corner of four tiles; of which but one corner is
def test_a_number_that_is_none_is_not_hidden(place):
    picture, kernel, bias = case(14, 64, 64)
    picture[place] = np.nan
    full, half = canvases(14, 64), canvases(7, 64)
    u = winograd.transform_kernel(kernel, 14)
    winograd.convolve(canvases(14, 64, picture), 14, u, bias, full, half, winograd.scratch([(14, 64, 64)]))
    full, half = inside(full, 14)[0], inside(half, 7)[0]
    assert np.isnan(full[place[:2]]).all()
    assert np.array_equal(half, pooled(full), equal_nan=True)


def test_a_row_is_the_same_to_the_bit_in_any_batch(published, monkeypatch):
    """Whichever pictures are computed together, on whichever thread, and whichever layers are wanted."""
    layers = ["block1_conv1", "block1_conv2", "block4_pool", "block5_pool"]
    monkeypatch.setattr(winograd_engine.cores, "usable", lambda: 2)  # so several pictures a core
    pictures = np.random.default_rng(0).integers(0, 256, (11, 96, 96, 3), np.uint8)
    engine = engines.WinogradEngine(published, Fingerprint.of(VGG16, size=96))
    assert engine._large >= {"block1_conv1"}  # computed one after the other, and the last two layers together
    assert not set(layers[2:]) & engine._large
    together = engine(pictures, layers)
    for i in (0, 4, 10):
        for own, all_of_them in zip(engine(pictures[i : i + 1], layers), together, strict=True):
            assert np.array_equal(own[0], all_of_them[i])
    assert np.array_equal(engine(pictures[3:5], ["block5_pool"])[0], together[3][3:5])
    above = engine(together[2][:7], ["block5_pool"], "block4_pool")[0]
    assert np.array_equal(above, together[3][:7])


def test_layers_in_any_order_and_a_pooling_right_above_the_first_convolution():
    network = replace(
        TINY, name="WIDE", layers=chain(((1, 64), (2, 128))), cached=("block1_pool", "block2_pool"), unfreeze="block2"
    )
    weights, fingerprint = random_weights(network, 0), Fingerprint.of(network, size=20)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), np.uint8)
    wanted = ["block2_pool", "block1_pool", "block2_conv1", "block1_pool"]
    found = engines.WinogradEngine(weights, fingerprint)(pictures, wanted)
    names = sorted(set(wanted))
    expected = dict(zip(names, engines.KerasEngine(weights, fingerprint, 2)(pictures, names), strict=True))
    for name, own in zip(wanted, found, strict=True):
        other = expected[name]
        assert np.linalg.norm(own - other) < 1e-5 * np.linalg.norm(other)


@pytest.mark.slow
def test_with_shorter_vectors(tmp_path):
    """As compiled for a processor without AVX-512, which this one can be told to be."""
    settings = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma", "NUMBA_CACHE_DIR": str(tmp_path)}
    program = "from featurize.engines import vectors, winograd_engine as w; print(vectors.LANES, w.suits())"
    for command, printed in (
        (["-c", program], "8 False"),
        (["-m", "pytest", "-n0", "-q", "-k", "pooling or pixels or any_batch", "-m", "not slow", __file__], "passed"),
    ):
        done = subprocess.run(
            [sys.executable, *command],
            check=False,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert printed in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("size", [45, *(pytest.param(size, marks=pytest.mark.slow) for size in (32, 63, 300))])
def test_other_sizes(published, size):
    pictures = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    fingerprint, layers = (
        Fingerprint.of(VGG16, size=size),
        ["block3_conv3", "block3_pool", "block4_pool", "block5_pool"],
    )
    found = engines.WinogradEngine(published, fingerprint)(pictures, layers)
    for own, expected in zip(found, engines.KerasEngine(published, fingerprint, 2)(pictures, layers), strict=True):
        assert own.shape == expected.shape
        assert np.linalg.norm(own - expected) / np.linalg.norm(expected) < 1e-4


def test_pooling_right_above_a_cached_layer(published):
    cached = np.random.default_rng(0).random((3, 5, 5, 512)).astype(np.float16)
    found = engines.WinogradEngine(published, Fingerprint.of(VGG16, size=80))(cached, ["block5_pool"], "block5_conv3")[
        0
    ]
    assert np.array_equal(found, np.stack([pooled(row.astype(np.float32)) for row in cached]))


@pytest.mark.slow
def test_the_time_of_each_layer(monkeypatch, capsys):
    from benchmarks import layers  # imports numba

    monkeypatch.setattr(sys, "argv", ["layers", "--rounds", "1"])
    layers.main()
    *_, heading, first, _, _, _, _, _, _, _, _, _, _, last, total = capsys.readouterr().out.splitlines()
    assert heading.split()[-4:] == ["back", "GFLOP/s", "of", "products"]
    assert (first.split()[0], last.split()[0], total.split()[0]) == ("block1_conv2", "block5_conv3", "all")
    assert all(float(number) > 0 for line in (first, last, total) for number in line.split()[1:])


def test_where_nothing_can_be_kept_it_is_compiled_every_time(monkeypatch):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(winograd, "njit", njit)
    function, options = winograd._compiled(len)
    assert function is len
    assert options["nogil"]


START = """
from featurize import engines
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
engines.create("winograd", weights.load(VGG16, weights.locate(VGG16)), Fingerprint.of(VGG16, size=32))
"""


@pytest.mark.slow
def test_compiled_code_that_a_power_cut_damaged_is_compiled_again(tmp_path):
    """In another folder, which gets what this process has compiled, damaged."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def run(program):
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env=environment, check=True, timeout=300, capture_output=True, text=True).stdout

    winograd.warm_up()
    compiled = sorted(Path(winograd.convolve.stats.cache_path).glob("winograd.*.nb[ic]"))
    assert compiled
    place = Path(run("from featurize.engines import winograd; print(winograd.convolve.stats.cache_path)").strip())
    place.mkdir(parents=True, exist_ok=True)
    for path in compiled:
        (place / path.name).write_bytes(path.read_bytes()[:1000] if path.suffix == ".nbc" else b"")
    run(START)
    indices = list(place.glob("winograd.*.nbi"))
    assert indices
    assert all(path.stat().st_size for path in indices)


def test_where_numba_cannot_compile_it_is_said_what_to_do(published, monkeypatch):
    def refuse():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(winograd, "warm_up", refuse)
    monkeypatch.setattr(engines.WinogradEngine, "_place", lambda self: Path("/nowhere"))
    with pytest.raises(VggftError, match=r"(?s)/nowhere.*No space left on device.*NUMBA_CACHE_DIR"):
        engines.create("winograd", published, Fingerprint.of(VGG16, size=32))


def test_a_broken_installation_is_said_with_what_to_do(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "featurize.engines.winograd", None)
    monkeypatch.delattr(engines, "winograd", raising=False)
    assert "featurize.engines.winograd" in engines.starts("winograd")
    with pytest.raises(VggftError, match=r"does not start .*pip install.*--engine"):
        engines.create("winograd", published, Fingerprint.of(VGG16, size=32))
