"""`vggft explain`: heat maps from the cache or from pixels, drawn over the pictures."""

from dataclasses import replace

import numpy as np
import pytest
from tiny import TINY, tiny_weights

from featurize import engines
from featurize.cache.feature_cache import FeatureCache
from vggft.explanation import explainer
from vggft.prediction import models
from vggft.prediction.model import CachedImages

CONVOLUTION = TINY.convolutions[-1].name
SAME = 0.02  # sums of positive and negative numbers from float16 features


@pytest.fixture(scope="module")
def keras_engine(trained):
    return engines.KerasEngine(tiny_weights(), trained[0].settings.fingerprint, 8)


def refuse(*arguments):
    raise AssertionError("an engine was started")


@pytest.fixture
def images(trained):
    workspace = trained[0]
    return CachedImages(workspace, workspace.cache(), workspace.dataset.accepted(), ())


def test_maps_of_a_network_come_from_its_split_point_and_no_frozen_layer_is_run(
    trained, images, keras_engine, tmp_path
):
    network = models.load(trained[0]).named(trained[2]["finetune"]["name"])
    targets = trained[0].dataset.targets(images.samples)
    maps = explainer.maps(network, images, targets, refuse)
    assert (maps.shape, maps.dtype) == ((32, 8, 8), np.float32)
    assert maps.min() >= 0
    assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    assert (maps.max(axis=(1, 2)) == 1).sum() > 24
    uncached = replace(images, cache=FeatureCache(tmp_path, images.cache.fingerprint, TINY))
    from_files = explainer.maps(network, uncached, targets, lambda: keras_engine)
    np.testing.assert_allclose(from_files, maps, atol=SAME)


def test_a_head_runs_only_the_layers_above_the_cached_one(trained, images, keras_engine, monkeypatch, tmp_path):
    head = models.load(trained[0]).named("logistic-max")
    calls = []

    def engine(inputs, layers, below=None):
        calls.append((len(inputs), tuple(layers), below))
        return keras_engine(inputs, layers, below)

    monkeypatch.setattr(explainer, "AT_ONCE", 20)
    done = []
    targets = [0] * 32
    maps = explainer.maps(head, images, targets, lambda: engine, done.append)
    assert calls == [(20, (CONVOLUTION,), "block2_pool"), (12, (CONVOLUTION,), "block2_pool")]
    assert done == [20, 32]
    uncached = replace(images, cache=FeatureCache(tmp_path, images.cache.fingerprint, TINY))
    np.testing.assert_allclose(explainer.maps(head, uncached, targets, lambda: engine), maps, atol=SAME)
    assert calls[2:] == [(20, (CONVOLUTION,), None), (12, (CONVOLUTION,), None)]
