"""MNN's engine: agrees with Keras, rows are independent of each other, and nothing is printed."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import PICTURES

from featurize import engines
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.engines import mnn_engine
from featurize.pixels import images

pytest.importorskip("MNN", reason="the extra 'cpu' is not installed")
pytest.importorskip("onnx", reason="the extra 'cpu' is not installed")

TWO = ["block4_pool", "block5_pool"]

# One run of a tiny network, in a process of its own.
QUIET = """
import sys
import numpy as np
from featurize.process import descriptors
from featurize.backbone import weights
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.engines.mnn_engine import MnnEngine
with descriptors.hiding_libraries():
    engine = MnnEngine(weights.load(VGG16, weights.locate(VGG16)), Fingerprint.of(VGG16, size=32))
    engine(np.zeros((3, 32, 32, 3), np.uint8), ["block5_pool"])
assert not [name for name in sys.modules if name.startswith("MNN.tools")]
"""


def read(paths, size=224):
    return np.stack([images.decode_resized(path.read_bytes(), size) for path in paths])


def relative_errors(found, expected):
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (found, expected))
    return np.linalg.norm(a - b, axis=1) / np.linalg.norm(b, axis=1)


@pytest.fixture(scope="module")
def drawings():
    """5 images: no usual number of cores divides 5."""
    return read(sorted(PICTURES.glob("*/*.png"))[::25][:5])


@pytest.fixture(scope="module")
def photographs(hymenoptera):
    return read(sorted(hymenoptera.rglob("*.jpg"))[::40])


@pytest.fixture(scope="module")
def engine(published):
    return mnn_engine.MnnEngine(published, Fingerprint.of(VGG16))


@pytest.fixture(scope="module")
def keras_engine(published):
    return engines.KerasEngine(published, Fingerprint.of(VGG16), 5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["drawings", "photographs"])
def test_agrees_with_keras(kind, engine, keras_engine, request):
    pictures = request.getfixturevalue(kind)
    for name, found, expected in zip(TWO, engine(pictures, TWO), keras_engine(pictures, TWO), strict=True):
        assert found.dtype == np.float32
        assert found.shape == expected.shape == (len(pictures), *VGG16.layer(name).shape(224))
        assert relative_errors(found, expected).max() < 1e-3


@pytest.mark.slow
def test_a_row_does_not_depend_on_its_neighbours(engine, drawings):
    together = engine(drawings, TWO)
    backwards = engine(drawings[::-1], TWO)
    alone = [engine(drawings[i : i + 1], TWO) for i in range(0, len(drawings), 3)]
    for i in range(2):
        assert np.array_equal(together[i], backwards[i][::-1])
        assert np.array_equal(together[i][::3], np.concatenate([one[i] for one in alone]))
    assert relative_errors(together[1][1:], together[1][:-1]).min() > 0.1  # and rows are not all alike


@pytest.mark.slow
def test_any_layers_in_any_order_from_raw_pixels(published):
    wanted = ["block5_pool", "block1_pool", "block5_conv1"]
    pictures = read(sorted(PICTURES.glob("fruit/*.png"))[:5], 64)  # no usual number of cores divides 5
    fingerprint = Fingerprint.of(VGG16, preprocess="raw", size=64)
    found = mnn_engine.MnnEngine(published, fingerprint)(pictures, wanted)
    assert [f.shape for f in found] == [(5, 2, 2, 512), (5, 32, 32, 64), (5, 4, 4, 512)]
    for own, expected in zip(found, engines.KerasEngine(published, fingerprint, 5)(pictures, wanted), strict=True):
        assert relative_errors(own, expected).max() < 1e-3


@pytest.mark.slow
def test_from_a_cached_layer(engine, drawings):
    drawings = drawings[:5]
    wanted = ["block5_conv1", "block5_pool"]
    cached, *expected = engine(drawings, ["block4_pool", *wanted])
    found = engine(cached.astype(np.float16), wanted, "block4_pool")
    for own, from_pixels in zip(found, expected, strict=True):
        assert own.shape == from_pixels.shape
        assert relative_errors(own, from_pixels).max() < 2e-3


def test_one_picture_opens_one_session_of_a_network_that_was_converted_before(published, monkeypatch):
    fingerprint, opened = Fingerprint.of(VGG16, size=32), []
    picture = np.zeros((1, 32, 32, 3), np.uint8)
    expected = mnn_engine.MnnEngine(published, fingerprint)(picture, ["block1_pool"])[0]
    session = mnn_engine._Session
    monkeypatch.setattr(mnn_engine, "_Session", lambda *arguments: opened.append(arguments) or session(*arguments))
    monkeypatch.setattr(mnn_engine, "_convert", None)
    found = mnn_engine.MnnEngine(published, fingerprint)(picture, ["block1_pool"])[0]
    assert np.array_equal(found, expected)
    assert len(opened) == 1


@pytest.mark.slow
def test_nothing_is_printed_and_mnns_tools_stay_out():
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_mnn_says_is_shown_when_it_fails(published, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(mnn_engine, "_onnx", lambda *part: b"no model")
    engine = mnn_engine.MnnEngine(published, Fingerprint.of(VGG16))
    with pytest.raises(RuntimeError, match=r"(?s)converter failed.*not onnx model"):
        engine(np.zeros((1, 224, 224, 3), np.uint8), TWO)
