"""Heat maps of the real VGG16: they lie on the drawing that shows the class, and depend on the tuned weights."""

import numpy as np
import pytest
from conftest import PICTURES, drawings
from PIL import Image
from scipy.stats import spearmanr

from featurize.backbone.network import between
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.pixels import images
from finetune import network as networks
from vggft import Experiment
from vggft.explanation import explainer, grad_cam
from vggft.prediction import models
from vggft.workspace.backbone import start_engine

pytestmark = pytest.mark.slow

CLASSES = ("birds", "flowers", "fruit")
CONVOLUTION = explainer.last_convolution(VGG16)
HALF = 112


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """A logistic regression on 20 drawings of each class; later ones are new to it."""
    base = tmp_path_factory.mktemp("explain")
    experiment = Experiment(base / "work")
    experiment.featurize(drawings(base / "data", 20, *CLASSES))
    experiment.fit_heads(head=["logistic-max"])
    return models.load(experiment.workspace).named("logistic-max").head


@pytest.fixture(scope="module")
def network(published, head):
    return networks.assemble(published, "caffe", VGG16.size, head)


@pytest.fixture(scope="module")
def frozen():
    """The pretrained network up to the last convolution, as `vggft explain` computes it for heads."""
    engine = start_engine(VGG16, Fingerprint.of(VGG16), None)
    return lambda pictures: engine(np.stack(pictures), [CONVOLUTION])[0]


def activations(network, pictures):
    return np.asarray(between(network, None, [CONVOLUTION]).predict_on_batch(np.stack(pictures).astype(np.float32)))


def new(label, number):
    """Return the last drawings of a class, uint8 (112, 112, 3): one quarter of what the network reads."""
    paths = sorted((PICTURES / label).iterdir())[-number:]
    return [images.decode_resized(path.read_bytes(), HALF) for path in paths]


def in_corners(*pictures):
    """Return a picture, uint8 (224, 224, 3), with up to four in its corners, row by row; None: the corner is white."""
    white = np.full((HALF, HALF, 3), 255, np.uint8)
    corners = [white if picture is None else picture for picture in pictures]
    return np.concatenate([np.concatenate(corners[:2], axis=1), np.concatenate(corners[2:], axis=1)])


def shares(maps):
    """Return the share of each map in each corner (n, 4)."""
    n, side, _ = maps.shape
    mass = maps.reshape(n, 2, side // 2, 2, side // 2).sum((2, 4)).reshape(n, 4)
    return mass / mass.sum(1, keepdims=True)


def test_the_map_of_a_class_lies_where_its_drawing_is(head, frozen):
    """Alone on white, a drawing in each of the corners in turn."""
    pictures, targets, corners = [], [], []
    for target, label in enumerate(CLASSES):
        for corner, drawing in enumerate(new(label, 4)):
            pictures.append(in_corners(*(drawing if at == corner else None for at in range(4))))
            targets.append(target)
            corners.append(corner)
    maps = grad_cam.maps(head, frozen(pictures), np.array(targets))
    there = shares(maps)[np.arange(12), corners]
    assert there.mean() > 0.75, there  # 0.25 by chance
    assert (shares(maps).argmax(axis=1) == corners).all(), there


def test_maps_tell_classes_apart(head, frozen):
    """Two drawings of different classes in opposite corners: the map of each class lies on its own."""
    a = {label: new(label, 4) for label in CLASSES}
    pairs = [(first, second) for first in CLASSES for second in CLASSES if first != second]
    pictures = [in_corners(a[first][i], None, None, a[second][i]) for first, second in pairs for i in range(4)]
    targets = np.repeat([CLASSES.index(first) for first, _ in pairs], 4)
    maps = grad_cam.maps(head, frozen(pictures), targets)
    on_its_own, on_the_other = shares(maps)[:, 0], shares(maps)[:, 3]
    assert on_its_own.mean() > 2 * on_the_other.mean()
    assert (on_its_own > on_the_other).mean() >= 0.9


def test_a_map_depends_on_the_weights_that_are_tuned(published, head, network):
    """The sanity check of Adebayo et al. 2018 (arXiv:1810.03292): random weights in block5 give other maps."""
    pictures = [np.asarray(Image.fromarray(picture).resize((224, 224))) for picture in new("birds", 4)]
    targets = np.zeros(4, np.int64)
    trained = grad_cam.maps(head, activations(network, pictures), targets)
    other = networks.assemble(published, "caffe", VGG16.size, head)
    rng = np.random.default_rng(0)
    for name in networks.tuned_layers(VGG16, "block4_pool"):
        kernel, bias = other.get_layer(name).get_weights()
        other.get_layer(name).set_weights([rng.permutation(kernel.ravel()).reshape(kernel.shape), bias])
    random = grad_cam.maps(head, activations(other, pictures), targets)
    again = grad_cam.maps(head, activations(network, pictures), targets)
    correlations = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(trained, random, strict=True)]
    assert np.array_equal(trained, again)
    assert np.mean(correlations) < 0.5, correlations
