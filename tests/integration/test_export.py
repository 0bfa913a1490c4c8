"""`vggft export`: every format predicts what vggft predicts, describes itself, and never replaces anything."""

import json
import re

import numpy as np
import pytest
import yaml
from conftest import refused, snapshot, strict_json, vggft
from tiny import TINY

from featurize.disk import durable
from featurize.errors import VggftError
from featurize.pixels import images
from vggft import Experiment
from vggft.export import formats
from vggft.export.choices import FormatName
from vggft.export.formats import FORMATS

OUT = {
    "keras": "m.keras",
    "onnx": "m.onnx",
    "openvino": "m.xml",
    "litert": "m.tflite",
    "saved_model": "m",
    "skops": "m.skops",
}
NETWORKS = [name for name in OUT if name != "skops"]


@pytest.fixture
def work(trained):
    workspace, data, _ = trained
    return Experiment(workspace.root, TINY), data


def pictures(data, number=3):
    """Return paths of drawings and their pixels, as the example in the documentation reads them."""
    paths = sorted(data.glob("*/*.png"))[::9][:number]
    return paths, np.stack([images.decode_resized(path.read_bytes(), TINY.size) for path in paths]).astype(np.float32)


def tuned(trained):
    return trained[2]["finetune"]["name"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("model", ["logistic-avg", "flatten-256-classic", "avg-256", "tuned"])
def test_every_format_predicts_what_vggft_predicts(name, model, trained, work, tmp_path):
    experiment, data = work
    model = tuned(trained) if model == "tuned" else model
    result = experiment.export(tmp_path / OUT[name], format=name, model=model)
    paths, pixels = pictures(data)
    p = FORMATS[name].run(tmp_path / OUT[name], pixels)
    expected = experiment.model(model).predict(paths)
    assert p.shape == (3, 2)
    assert np.abs(p - expected).max() < 1e-3
    assert np.ptp(expected[:, 0]) > 0.05
    assert result["checked"]["largest_difference"] < 1e-3
