"""Exports of VGG16 with its published weights, a head and a tuned network, on photographs."""

import json
import shutil

import numpy as np
import pytest
from conftest import once, vggft

from featurize.backbone.vgg16 import VGG16
from featurize.pixels import images
from vggft import Experiment
from vggft.export.formats import FORMATS

OUT = {"keras": "m.keras", "onnx": "m.onnx", "openvino": "m.xml", "litert": "m.tflite", "saved_model": "m"}


pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.fixture(scope="module")
def photographs(hymenoptera, tmp_path_factory):
    """VGG16 on 24 photographs of ants and bees, a head and a tuned network, and what both predict for 6 other photographs."""

    def build(base):
        for label in ("ants", "bees"):
            paths = sorted((hymenoptera / "train" / label).iterdir())[:15]
            for folder, some in (("data", paths[:12]), ("new", paths[12:])):
                (base / folder / label).mkdir(parents=True)
                for path in some:
                    shutil.copy(path, base / folder / label)
        for arguments in (
            ("featurize", base / "data"),
            ("head", "--head", "max-256", "--head", "logistic-avg", "--cv", 0, "--epochs", 5),
            ("finetune", "--from", "scratch", "--epochs", 1, "--name", "tuned"),
        ):
            done = vggft(*arguments, "-w", base / "work", network=VGG16)
            assert done.returncode == 0, done.stderr
        experiment = Experiment(base / "work", VGG16)
        return {name: experiment.model(name).predict(new(base)).tolist() for name in ("max-256", "tuned")}

    return once(tmp_path_factory, "photographs", build)


def new(base):
    return sorted((base / "new").glob("*/*.jpg"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name"), [("tuned" if name in ("keras", "onnx") else "max-256", name) for name in OUT]
)
def test_photographs_are_predicted_as_vggft_predicts_them(photographs, name, model, tmp_path):
    base, predictions = photographs
    assert json.loads((base / "work" / "finetune" / "tuned" / "run.json").read_text())["moved"]
    result = Experiment(base / "work", VGG16).export(tmp_path / OUT[name], format=name, model=model)
    assert 57e6 < result["bytes"] < 62e6  # 14.7 million numbers of 4 bytes, and the head
    assert result["checked"]["largest_difference"] < 1e-3
    pixels = np.stack([images.decode_resized(path.read_bytes(), 224) for path in new(base)]).astype(np.float32)
    p, expected = FORMATS[name].predict(tmp_path / OUT[name], pixels), np.array(predictions[model])
    assert p.shape == (6, 2)
    assert np.ptp(expected[:, 0]) > 0.1
    assert np.abs(p - expected).max() < 1e-3


@pytest.mark.slow
def test_the_card_names_origin_and_license_of_the_weights(photographs, tmp_path):
    experiment = Experiment(photographs[0] / "work", VGG16)
    experiment.export(tmp_path / "m.skops", model="logistic-avg")
    text = (tmp_path / "m.skops.md").read_text()
    assert "license: cc-by-4.0\n" in text
    assert "Visual Geometry Group, University of Oxford" in text
