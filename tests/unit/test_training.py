"""Steps and epochs of fine-tuning: every image once an epoch, correct losses, and settings that take effect."""

import functools
import itertools
import operator

import numpy as np
import pytest
from small_tuning import examples, head, program, tune
from tiny import TINY

from featurize.errors import VggftError
from finetune import network as networks
from finetune.plan import Plan
from finetune.train import order, train

CLASSES = np.arange(12) % 3


@pytest.fixture
def network(weights):
    return networks.assemble(weights, "caffe", TINY.size, head("max", 3, scaler=True))


@pytest.fixture
def cached(small_features):
    return small_features["block2_pool"]


def tuned(network, names=("block3_conv1", "block3_conv2", "head_dense1", "logits")):
    return {name: network.get_layer(name).get_weights()[0].copy() for name in names}


def step(network, cached, weights, plan, steps=1):
    """Take steps with all images, all in the same order; return kernels before and after, and what was found."""
    before = tuned(network)
    one = program(network, "block2_pool", plan, CLASSES, weights)
    found = [one.step(cached, CLASSES, 1, number) for number in range(1, steps + 1)]
    return before, tuned(network), found


@pytest.mark.slow
def test_every_image_takes_part_in_every_epoch(network, cached, weights):
    seen = []
    data = examples(cached, CLASSES)
    plan = Plan(3, 5, seed=4)
    one = program(network, "block2_pool", plan, CLASSES, weights)
    take = one.step

    def spy(inputs, targets, epoch, number):
        rows = [int(np.flatnonzero((cached == row).all(axis=(1, 2, 3)))[0]) for row in inputs]
        assert np.array_equal(CLASSES[rows], targets)
        seen.append((epoch, number, rows))
        return take(inputs, targets, epoch, number)

    one.step = spy
    state = train(one, (data, data), plan)
    assert [(epoch, number, len(rows)) for epoch, number, rows in seen[:3]] == [(1, 1, 5), (1, 2, 5), (1, 3, 2)]
    epochs = [functools.reduce(operator.iadd, (rows for e, _, rows in seen if e == epoch), []) for epoch in (1, 2, 3)]
    assert [epoch == order(plan, i, 12).tolist() for i, epoch in enumerate(epochs, 1)] == [True] * 3
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert [row.epoch for row in state.history] == [0, 1, 2, 3]
    assert state.history[0].loss is state.history[0].accuracy is state.history[0].log_loss is None


def test_training_numbers_are_means_over_the_images(network, cached, weights):
    data = examples(cached, CLASSES)
    plan = Plan(1, 5, learning_rate=1e-30)  # nothing moves, so that the means can be computed afterwards
    zero, one = tune(network, "block2_pool", (data, data), plan, weights).history
    assert one.loss == pytest.approx(zero.val_log_loss, rel=1e-4)
    assert one.log_loss == pytest.approx(zero.val_log_loss, rel=1e-4)
    assert one.accuracy == pytest.approx(zero.val_accuracy)
    assert one.val_loss == pytest.approx(zero.val_log_loss)


def test_sgd_is_what_it_says(network, cached, weights):
    """Two steps: the second adds 0.9 of the first."""
    _, first, _ = step(network, cached, weights, Plan(momentum=0.0, learning_rate=1e-4))
    fresh = networks.assemble(weights, "caffe", TINY.size, head("max", 3, scaler=True))
    before, twice, _ = step(fresh, cached, weights, Plan(momentum=0.9, learning_rate=1e-4), steps=2)
    for name in first:
        moved = first[name] - before[name]
        ratio = np.vdot(twice[name] - before[name], moved) / np.vdot(moved, moved)
        assert ratio == pytest.approx(2.9, abs=0.05), name


@pytest.mark.slow
def test_layer_decay(network, cached, weights):
    before, after, _ = step(network, cached, weights, Plan(learning_rate=1e-3))
    fresh = networks.assemble(weights, "caffe", TINY.size, head("max", 3, scaler=True))
    _, decayed, _ = step(fresh, cached, weights, Plan(learning_rate=1e-3, layer_decay=0.5))
    found = {n: np.linalg.norm(decayed[n] - before[n]) / np.linalg.norm(after[n] - before[n]) for n in before}
    expected = {"block3_conv1": 0.25, "block3_conv2": 0.5, "head_dense1": 1, "logits": 1}
    assert found == pytest.approx(expected, rel=0.02)


def test_clipping(network, cached, weights):
    before, after, _ = step(network, cached, weights, Plan(learning_rate=1e-3, momentum=0, clip=0.01))
    whole = np.sqrt(sum(np.sum((after[name] - before[name]) ** 2) for name in before))
    assert whole == pytest.approx(1e-3 * 0.01, rel=0.1)  # the biases take their part


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_cosine_rises_for_an_epoch_and_goes_down_to_nothing(network, cached, weights, optimizer):
    plan = Plan(3, 6, optimizer=optimizer, learning_rate=1e-6, schedule="cosine", momentum=0)
    one = program(network, "block2_pool", plan, CLASSES, weights)  # two steps an epoch
    at = [tuned(network)]
    for number in range(7):
        one.step(cached, CLASSES, 1, number)
        at.append(tuned(network))
    lengths = np.array([np.linalg.norm(b["logits"] - a["logits"]) for a, b in itertools.pairwise(at)])
    assert lengths / lengths[1] == pytest.approx([0.5, 1, 1, 0.854, 0.5, 0.146, 0], rel=0.2, abs=0.01)


def test_the_pull_towards_the_pretrained_weights(network, cached, weights):
    layer = network.get_layer("block3_conv2")
    kernel, bias = layer.get_weights()
    layer.set_weights([kernel + 0.01, bias])
    plan = Plan(l2_sp=2.0)
    one = program(network, "block2_pool", plan, CLASSES, weights)
    p = one.predict(cached)
    plain = -np.log(p[np.arange(12), CLASSES]).mean()
    pull = 2.0 / 2 * np.sum((layer.get_weights()[0] - weights.arrays["block3_conv2"][0]) ** 2, dtype=np.float64)
    assert one.objective(p, CLASSES) == pytest.approx(plain + pull, rel=1e-4)
    found = one.step(cached, CLASSES, 1, 1)
    assert found.loss == pytest.approx(plain + pull, rel=1e-3)
    assert found.log_loss == pytest.approx(plain, rel=1e-3)
    after = layer.get_weights()[0]
    assert np.abs(after - kernel).mean() < np.abs(kernel + 0.01 - kernel).mean()  # it went back some of the way


@pytest.mark.parametrize("classes", [2, 3])
def test_label_smoothing_and_class_weights(weights, cached, classes):
    targets = np.array([0] * 8 + [1] * 3 + [classes - 1])
    network = networks.assemble(weights, "caffe", TINY.size, head("max", classes, scaler=True))
    one = program(network, "block2_pool", Plan(label_smoothing=0.3, class_weight="balanced"), targets, weights)
    p = one.predict(cached)
    counts = np.bincount(targets)
    own = (12 / (len(counts) * counts))[targets]  # as scikit-learn's "balanced" has it
    smooth = np.eye(classes)[targets] * 0.7 + 0.3 / classes
    expected = np.mean(own * -(smooth * np.log(p)).sum(axis=1))
    assert one.objective(p, targets) == pytest.approx(expected, rel=1e-5)
    found = one.step(cached, targets, 1, 1)
    assert found.loss == pytest.approx(expected, rel=1e-3)
    assert found.log_loss == pytest.approx(-np.log(p[np.arange(12), targets]).mean(), rel=1e-3)
    assert found.accuracy == pytest.approx(np.mean(p.argmax(axis=1) == targets))


def test_masks_of_dropout_depend_on_the_step_alone(weights, cached):
    def losses(steps):
        network = networks.assemble(weights, "caffe", TINY.size, head("max", 3, dropout=0.5))
        one = program(network, "block2_pool", Plan(learning_rate=1e-30), CLASSES, weights)
        return {at: one.step(cached, CLASSES, *at).loss for at in steps}

    first = losses([(1, 1), (1, 2), (2, 1)])
    assert len(set(first.values())) == 3
    assert losses([(2, 1)])[2, 1] == first[2, 1]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"epochs": 0}, "--epochs 0"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"patience": 0}, "--patience 0"),
        ({"optimizer": "lion"}, "--optimizer 'lion': expected sgd or adam"),
        ({"schedule": "step"}, "--schedule 'step': expected constant or cosine"),
        ({"precision": "int8"}, "precision 'int8'"),
        ({"class_weight": "x"}, "--class-weight 'x'"),
        ({"learning_rate": 0.0}, "--lr 0"),
        ({"learning_rate": float("nan")}, "--lr nan"),
        ({"momentum": 1.0}, "--momentum 1"),
        ({"layer_decay": 0.0}, "--layer-decay 0"),
        ({"layer_decay": 1.5}, "--layer-decay 1.5"),
        ({"l2_sp": -1.0}, "--l2-sp -1"),
        ({"l2_sp": 1e40}, "--l2-sp 1e+40"),
        ({"label_smoothing": 1.0}, "--label-smoothing 1"),
        ({"clip": 0.0}, "--clip 0"),
        ({"clip": 1e40}, "--clip 1e+40"),
    ],
)
def test_settings_out_of_range(setting, said):
    with pytest.raises(VggftError) as refused:
        Plan(**setting)
    assert said in str(refused.value)
    assert "expected" in str(refused.value)
