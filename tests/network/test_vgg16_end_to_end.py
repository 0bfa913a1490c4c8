"""VGG16 through the command line: its features, their size on disk, and accuracy on photographs."""

import csv
import shutil

import numpy as np
import pytest
from conftest import drawings, once, strict_json, vggft
from small_cache import files

from featurize.backbone.vgg16 import VGG16
from featurize.pixels import images
from vggft.workspace.workspace import Workspace


@pytest.fixture
def base(tmp_path_factory):
    """6 drawings, and their features of VGG16."""

    def build(folder):
        drawings(folder / "data", 3, "bugs", "flowers")
        assert vggft("featurize", folder / "data", "-w", folder / "work", network=VGG16).returncode == 0

    return once(tmp_path_factory, "vgg16", build)[0]


@pytest.mark.slow
def test_features_are_those_of_keras(base, published):
    """Features against Keras's own VGG16 and preprocessing, on the decoder's pixels."""
    import keras

    workspace = Workspace(base / "work", VGG16)
    with (base / "work" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    for name, (kernel, bias) in published.arrays.items():
        model.get_layer(name).set_weights([kernel, bias])
    pixels = np.stack([images.decode_resized((base / "data" / r["path"]).read_bytes(), 224) for r in rows])
    expected = model.predict(keras.applications.vgg16.preprocess_input(pixels.astype("float32")), verbose=0)
    found = workspace.cache().read("block5_pool", [r["digest"] for r in rows]).astype(np.float64)
    difference = np.linalg.norm((found - expected).reshape(6, -1), axis=1)
    assert (difference / np.linalg.norm(expected.reshape(6, -1), axis=1)).max() <= 1e-3


@pytest.mark.slow
def test_estimates_come_near_what_is_written(base, tmp_path):
    from featurize.cache import estimate
    from featurize.cache.feature_cache import FeatureCache

    cache = Workspace(base / "work", VGG16).cache()
    stored = sum(p.stat().st_size for p in files(base))
    assert abs(estimate.bytes_needed(cache, VGG16.cached, 6) / stored - 1) < 0.25
    blank = FeatureCache(tmp_path / "none", cache.fingerprint, VGG16)
    assert 0.5 < estimate.bytes_needed(blank, VGG16.cached, 6) / stored < 2.5  # drawings are smaller than photographs


@pytest.mark.slow
@pytest.mark.usefixtures("unrendered")
def test_the_promises_on_photographs(hymenoptera, tmp_path):
    """Ants and bees through all stages, with the expected accuracies: half of the training and all validation photographs."""
    paths = {split: sorted(hymenoptera.glob(f"{split}/*/*.jpg")) for split in ("train", "validate")}
    for path in (*paths["train"][::2], *paths["validate"]):
        copy = tmp_path / "data" / path.relative_to(hymenoptera)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)

    def run(*arguments):
        done = vggft(*arguments, "-w", tmp_path / "work", "--json", network=VGG16)
        assert done.returncode == 0, done.stderr
        return strict_json(done.stdout)

    featurized = run("featurize", tmp_path / "data")
    assert (featurized["images"], featurized["splits"]["train"], featurized["splits"]["validate"]) == (275, 122, 153)
    names = ("logistic-avg", "logistic-max", "logistic-avgmax", "max-256", "avgmax-64-l2")
    heads = run("head", *(word for name in names for word in ("--head", name)), "--cv", 0)
    best = heads["heads"][0]
    assert best["name"] == heads["best"]
    assert best["validation"]["accuracy"] >= 0.90
    assert max(h["validation"]["accuracy"] for h in heads["heads"] if h["kind"] == "logistic") >= 0.90
    tuned = run("finetune", "--epochs", 1)
    assert tuned["parity"] <= 2e-3
    assert tuned["validation"]["log_loss"] <= tuned["start_validation"]["log_loss"]
    (start,) = (head for head in heads["heads"] if head["name"] == tuned["start"])
    assert start["kind"] == "logistic"
    assert tuned["start_validation"]["log_loss"] == pytest.approx(start["validation"]["log_loss"], abs=1e-4)
    compared = run("compare", "--quick")
    assert compared["measured_on"] == "validation"
    assert "also selected the models" in compared["recommendation"]
    assert {m["name"] for m in compared["methods"]} == {*(h["name"] for h in heads["heads"]), tuned["name"]}
