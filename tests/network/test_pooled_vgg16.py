"""`--layers pooled` with VGG16 and its published weights, on photographs: features and heads beside those of a full cache."""

import shutil

import numpy as np
import pytest
from conftest import once, strict_json, vggft
from small_tuning import keras_outputs

from featurize.backbone.architecture import POOLED
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import FEATURE_BOUNDS
from featurize.cache.pooled import averages_and_maxima
from featurize.pixels import images
from heads.head import pool
from vggft.prediction import models
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("untraced")

HEADS = [word for name in ("logistic-avg", "logistic-max", "avgmax-256") for word in ("--head", name)]


@pytest.fixture(scope="module")
def both(hymenoptera, tmp_path_factory):
    """18 photographs, and two workspaces, each computed from their pixels."""

    def build(base):
        for split, number in (("train", 6), ("validate", 3)):
            for folder in sorted((hymenoptera / split).iterdir()):
                (base / "data" / split / folder.name).mkdir(parents=True)
                for path in sorted(folder.glob("*.jpg"))[:number]:
                    shutil.copy(path, base / "data" / split / folder.name)
        for name, options in (("full", []), ("pooled", ["--layers", POOLED])):
            done = vggft("featurize", base / "data", *options, "-w", base / name, network=VGG16)
            assert done.returncode == 0, done.stderr
            done = vggft("head", *HEADS, "--cv", 0, "--epochs", 20, "-w", base / name, network=VGG16)
            assert done.returncode == 0, done.stderr

    base = once(tmp_path_factory, "pooled-vgg16", build)[0]
    return Workspace(base / "full", VGG16), Workspace(base / "pooled", VGG16)


@pytest.mark.slow
def test_features_and_heads_are_those_of_a_full_cache(both, published):
    full, pooled = both
    samples = full.dataset.accepted()
    digests = [sample.digest for sample in samples]
    assert len(digests) == 18
    maps, rows = full.cache().read("block5_pool", digests), pooled.cache().read(POOLED, digests)
    assert pooled.cache().layers == [POOLED]
    assert np.array_equal(rows, averages_and_maxima(maps))

    pictures = [images.decode_resized((full.dataset.root / s.path).read_bytes(), 224) for s in samples[:6]]
    outputs = keras_outputs(published, np.stack(pictures), ["block5_pool"])["block5_pool"]
    exact = np.stack([outputs.mean(axis=(1, 2)), outputs.max(axis=(1, 2))], axis=1)
    errors = np.linalg.norm((rows[:6] - exact).reshape(6, -1), axis=1) / np.linalg.norm(exact.reshape(6, -1), axis=1)
    assert errors.max() <= FEATURE_BOUNDS["float32"]

    heads_of = {model.name: model.head for model in models.load(pooled).heads}
    assert {name: head.digest for name, head in heads_of.items()} == {
        model.name: model.head.digest for model in models.load(full).heads
    }
    for head in heads_of.values():  # averages in float32, as a network computes them
        unrounded = head.scores(pool(maps, head.pooling))
        assert np.abs(head.scores(pool(maps, head.pooling).astype(np.float16)) - unrounded).max() <= 1e-3


@pytest.mark.slow
def test_predictions_are_those_of_a_full_cache(both):
    folder = both[0].dataset.root / "validate"
    found = []
    for workspace in both:
        done = vggft("predict", folder, "--model", "logistic-avg", "--json", "-w", workspace.root, network=VGG16)
        assert done.returncode == 0, done.stderr
        found.append([p["probabilities"] for p in strict_json(done.stdout)["predictions"]])
    assert len(found[0]) == 6
    assert found[0] == found[1]
