"""Temperature scaling: what is fitted, and that the kept network has it."""

import numpy as np
import pytest
from small_tuning import examples, head, program
from tiny import TINY

from finetune import network as networks
from finetune import temperature
from finetune.plan import Plan
from finetune.train import Callbacks, train


def probabilities(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(classes, n=4000):
    """Logits, and classes drawn with their probabilities."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (n, classes))
    p = probabilities(logits)
    return logits, np.array([rng.choice(classes, p=row) for row in p])


@pytest.mark.parametrize("classes", [2, 5])
def test_a_network_that_is_three_times_too_sure_is_divided_by_three(classes):
    logits, targets = drawn(classes)
    assert temperature.fit(probabilities(3 * logits), targets) == pytest.approx(3, rel=0.05)


def test_a_network_is_never_made_surer():
    logits, targets = drawn(3)
    assert temperature.fit(probabilities(logits / 3), targets) == 1
    assert temperature.fit(np.array([[0.6, 0.4], [0.3, 0.7]]), np.array([0, 1])) == 1


def test_what_is_hopeless_has_a_bound():
    p = probabilities(np.array([[50.0, 0], [0, 50]]))
    assert temperature.fit(p, np.array([1, 0])) == pytest.approx(temperature.MOST, rel=1e-3)


def test_probabilities_are_those_of_divided_logits():
    logits, _ = drawn(4, 50)
    assert temperature.scaled(probabilities(logits), 2.5) == pytest.approx(probabilities(logits / 2.5))
    assert temperature.scaled(np.array([[1.0, 0.0]]), 2.0).tolist() == [[1, 0]]


@pytest.mark.parametrize("classes", [2, 3])
def test_the_kept_network_has_the_temperature_of_its_epoch(weights, small_features, classes):
    """Labels of validation are those of other images, so that what training learns is too sure of itself."""
    cached = small_features["block2_pool"]
    targets = np.arange(12) % classes
    network = networks.assemble(weights, "caffe", TINY.size, head("max", classes, scaler=True))
    one = program(network, "block2_pool", Plan(3, 4, learning_rate=1e-3), targets, weights)
    start = one.predict(cached)
    wrong = targets.copy()
    wrong[:2] = (wrong[:2] + 1) % classes
    raw = {}

    def keep(state):
        raw[state.epoch] = one.predict(cached)

    state = train(one, (examples(cached, targets), examples(cached, wrong)), one.plan, callbacks=Callbacks(epoch=keep))
    kept = state.history[state.kept_epoch(one.plan)]
    assert state.kept_epoch(one.plan) > 0
    assert kept.temperature > 1.01
    assert one.predict(cached) == pytest.approx(
        temperature.scaled(raw[state.kept_epoch(one.plan)], kept.temperature), abs=1e-5
    )
    assert state.validation.log_loss == pytest.approx(kept.val_log_loss)
    assert state.history[0].temperature is None
    assert raw[0] == pytest.approx(start)
