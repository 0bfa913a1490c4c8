"""All stages with a network that is no VGG16: what one is handed is what runs, is tuned, compared, and predicts."""

import pytest
from conftest import drawings, refused, strict_json, vggft, vggft_apart
from tiny import TINY

from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from vggft import Experiment
from vggft.workspace.workspace import Workspace


def run(*arguments):
    done = vggft(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return strict_json(done.stdout)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """12 drawings each of two classes, and a workspace that went through all stages."""
    base = tmp_path_factory.mktemp("tiny")
    drawings(base / "data", 12, "birds", "fruit")
    return base


def test_every_stage(base):
    work = ["-w", base / "work"]
    featurized = run("featurize", base / "data", *work)
    assert (featurized["images"], featurized["layers"]) == (24, ["block2_pool", "block3_pool"])
    workspace = Workspace(base / "work", TINY)
    assert workspace.settings.fingerprint == Fingerprint.of(TINY)
    digests = [sample.digest for sample in workspace.dataset.accepted()]
    assert workspace.cache().read("block3_pool", digests).shape == (24, 4, 4, 16)

    heads = run("head", "--epochs", 3, *work)
    assert len(heads["heads"]) > 5
    tuned = run("finetune", "--epochs", 2, *work)
    assert (tuned["unfreeze"], tuned["split_point"], tuned["moved"]) == (
        "block3",
        "block2_pool",
        ["block3_conv1", "block3_conv2"],
    )
    compared = run("compare", *work)
    assert {compared["use"]} <= {head["name"] for head in heads["heads"]} | {tuned["name"]}
    predicted = run("predict", base / "data", "--model", tuned["name"], *work)
    assert len(predicted["predictions"]) == 24
    model = Experiment(base / "work", TINY).model(tuned["name"])
    assert model.classes == ("birds", "fruit")


def test_in_a_process_of_its_own(base, tmp_path):
    done = vggft_apart("featurize", base / "data", "-w", tmp_path / "work", "--json")
    assert done.returncode == 0, done.stderr
    assert strict_json(done.stdout)["layers"] == ["block2_pool", "block3_pool"]


def test_layers_are_those_of_the_network_at_hand(base):
    def tiny(*arguments):
        return vggft(*arguments)

    for options in (("featurize", base / "data", "--layers", "block5_pool"), ("finetune", "--unfreeze", "block5")):
        message = refused(*options, "-w", base / "work", run=tiny)
        assert "unknown layer" in message
        assert "block3_pool" in message or "block3_conv2" in message


def test_features_of_another_network_are_refused(base):
    message = refused("featurize", base / "data", "-w", base / "work", network=VGG16)
    assert "wrong weights: the features were made with others" in message
