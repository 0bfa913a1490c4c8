"""Grad-CAM in closed form against TensorFlow's own gradients, and a network's head taken out of it."""

from dataclasses import replace

import numpy as np
import pytest
from small_features import POOLINGS
from small_tuning import head
from tiny import TINY

from featurize.backbone.network import between
from finetune import network as networks
from heads.head import pool
from vggft.explanation import grad_cam

CONVOLUTION = TINY.convolutions[-1].name


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_maps_are_those_of_gradients_by_tensorflow(pooling, classes, weights, small_pictures, small_features):
    keras = pytest.importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("compares with TensorFlow's GradientTape")
    import tensorflow as tf

    original = half_active(head(pooling, classes, scaler=True), small_features[TINY.top])
    network = networks.assemble(weights, "caffe", TINY.size, original)
    activations = between(network, None, [CONVOLUTION])(small_pictures.astype(np.float32))
    above = keras.Model(network.get_layer(CONVOLUTION).output, network.get_layer(networks.LOGITS_LAYER).output)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(activations)
        logits = above(activations)
        of_class = [logits[:, c] for c in range(classes)] if classes > 2 else [-logits[:, 0], logits[:, 0]]
    taken_out = networks.head_of(network, "h", original.classes)
    a = activations.numpy()
    assert (taken_out.pooling, taken_out.classes) == (pooling, original.classes)
    assert (
        np.abs(taken_out.predict(grad_cam.max_pooled(a)) - np.asarray(network_scores(network, small_pictures))).max()
        < 1e-6
    )
    for c in range(classes):
        means = tape.gradient(of_class[c], activations).numpy().mean((1, 2))
        targets = np.full(len(a), c)
        np.testing.assert_allclose(grad_cam.mean_gradients(taken_out, a, targets), means, rtol=1e-3, atol=1e-8)
        expected = np.maximum((means[:, None, None] * a).sum(-1), 0)
        expected /= expected.max((1, 2), keepdims=True)
        np.testing.assert_allclose(grad_cam.maps(taken_out, a, targets), expected, atol=1e-4)


def half_active(of, features):
    """Return a head with other biases: of the images, ReLU lets each hidden unit through in half."""
    hidden, last = of.layers
    bias = -np.median(pool(features, of.pooling) @ hidden.kernel, axis=0)
    return replace(of, layers=(replace(hidden, bias=bias.astype(np.float32)), last))


def network_scores(network, pictures):
    return networks.with_both_classes(network.predict_on_batch(pictures.astype(np.float32)))


def test_each_image_has_its_own_class_and_a_map_without_evidence_is_zero():
    h = head("avg", 2, shape=(2, 2, 3))
    activations = np.random.default_rng(0).random((2, 5, 4, 3), np.float32)  # an odd row that no window reaches
    activations[1] = 0
    both = grad_cam.maps(h, activations, np.array([0, 1]))
    assert both.shape == (2, 5, 4)
    assert not both[1].any()
    second = grad_cam.maps(h, activations[:1], np.array([1]))
    assert {float(both[0].max()), float(second.max())} <= {0.0, 1.0}
    weights = grad_cam.mean_gradients(h, activations[[0, 0]], np.array([0, 1]))
    assert np.array_equal(
        weights[0], -weights[1]
    )  # one sigmoid unit: what speaks for one class speaks against the other
    assert not ((both[0] > 0) & (second[0] > 0)).any()
