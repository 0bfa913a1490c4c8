"""All stages with a network other than VGG16."""

from xml.etree import ElementTree

import pytest
from conftest import drawings, refused, strict_json, vggft
from processes import vggft_apart
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
    """12 drawings each of two classes, featurized."""
    base = tmp_path_factory.mktemp("tiny")
    drawings(base / "data", 12, "birds", "fruit")
    run("featurize", base / "data", "-w", base / "work")
    return base


def test_every_stage(base):
    work = ["-w", base / "work"]
    workspace = Workspace(base / "work", TINY)
    assert workspace.settings.fingerprint == Fingerprint.of(TINY)
    assert workspace.settings.layers == ("block2_pool", "block3_pool")
    digests = [sample.digest for sample in workspace.dataset.accepted()]
    assert workspace.cache().read("block3_pool", digests).shape == (24, 4, 4, 16)

    heads = run("head", "--epochs", 3, "--head", "logistic-avg", "--head", "max-256", *work)
    assert {head["name"] for head in heads["heads"]} == {"logistic-avg", "max-256"}
    tuned = run("finetune", "--epochs", 2, *work)
    assert (tuned["unfreeze"], tuned["split_point"]) == ("block3", "block2_pool")
    assert tuned["moved"] == ["block3_conv1", "block3_conv2"]
    compared = run("compare", *work)
    assert compared["use"] in ("logistic-avg", "max-256", tuned["name"])
    for name in ("difference", "curves", "curves-all", "confusion", "roc", "reliability", "tradeoff", "perturbations"):
        assert (workspace.report / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ElementTree.parse(workspace.report / f"{name}.svg").getroot().tag.endswith("}svg")
    predicted = run("predict", base / "data", "--model", tuned["name"], *work)
    assert len(predicted["predictions"]) == 24
    model = Experiment(base / "work", TINY).model(tuned["name"])
    assert model.classes == ("birds", "fruit")


def test_in_a_process_of_its_own(base, tmp_path):
    done = vggft_apart("featurize", base / "data", "-w", tmp_path / "work", "--json")
    assert done.returncode == 0, done.stderr
    assert strict_json(done.stdout)["layers"] == ["block2_pool", "block3_pool"]


@pytest.mark.parametrize(
    ("arguments", "known"), [(["finetune", "--unfreeze", "block5"], "block3_conv2"), (["featurize"], "block3_pool")]
)
def test_layers_are_those_of_the_network_at_hand(base, arguments, known):
    if arguments == ["featurize"]:
        arguments = ["featurize", base / "data", "--layers", "block5_pool"]
    message = refused(*arguments, "-w", base / "work")
    assert "unknown layer" in message
    assert known in message
    assert "block4" not in message


def test_winograd_is_refused_for_few_filters(base, tmp_path):
    message = refused("featurize", base / "data", "--engine", "winograd", "-w", tmp_path / "work")
    assert "multiple of 64" in message
    assert "TINY" in message


def test_features_of_another_network_are_refused(base):
    message = refused("featurize", base / "data", "-w", base / "work", network=VGG16)
    assert "wrong weights: the features were made with others" in message
