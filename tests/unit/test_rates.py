"""The search for a learning rate: its cost, its choice, and what it leaves alone."""

from itertools import pairwise

import numpy as np
import pytest
from small_tuning import examples, head, program
from tiny import TINY

from finetune import network as networks
from finetune import rates
from finetune.plan import Plan
from finetune.rates import Search, Trial

TARGETS = np.arange(12) % 3
LEARNT, HELD_BACK = np.arange(9), np.arange(9, 12)
PLAN = Plan(10, 4, learning_rate=1e-3)


@pytest.fixture
def one(weights):
    network = networks.assemble(weights, "caffe", TINY.size, head("max", 3, dropout=0.5, scaler=True))
    return program(network, "block2_pool", PLAN, TARGETS[LEARNT], weights)


@pytest.fixture
def data(small_features):
    whole = examples(small_features["block2_pool"], TARGETS)
    return whole.take(LEARNT), whole.take(HELD_BACK)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("epochs", [1, 3, 10, 50])
@pytest.mark.parametrize("images", [60, 245, 1000, 3000])
@pytest.mark.parametrize("batch_size", [1, 16, 64])
def test_a_search_takes_less_than_a_fifth_of_the_training(optimizer, epochs, images, batch_size):
    plan = Plan(epochs, batch_size, optimizer=optimizer)
    steps = rates.rounds(plan, images, images // 5)
    if not steps:
        assert 9 * 6 * batch_size + 7 / 3 * images / 5 > 0.2 * epochs * images  # six steps would be too many
        return
    assert steps[0] >= 6
    looks = 5 + 2
    cost = rates.total(plan, steps) * batch_size + looks * (images // 5) / 3  # in images that are trained on
    assert cost <= 0.2 * epochs * images


def test_the_better_half_goes_on_and_the_best_of_it_is_chosen(one, data):
    shown = []
    found = rates.search(one, *data, (2, 6), shown.append)
    assert (found.trained, found.held_back, found.steps) == (9, 3, (2, 6))
    first = sorted(found.trials, key=lambda trial: trial.log_losses[0])
    assert [len(trial.log_losses) for trial in first] == [2, 2, 1, 1, 1]
    assert found.best == min(first[:2], key=lambda trial: trial.log_losses[1])
    assert shown == sorted(shown)
    assert shown[-1] == rates.total(PLAN, (2, 6))
    assert "of 3e-05, 0.0001, 0.0003, 0.001, 0.003: log-loss" in found.describe()


def test_the_same_choice_twice_and_nothing_is_changed(one, data):
    before = one.weights(), one.optimizer()
    found = [rates.search(one, *data, (2, 6)) for _ in range(2)]
    assert found[0].trials == found[1].trials
    for now, then in zip((one.weights(), one.optimizer()), before, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(now, then, strict=True))


def test_a_trial_is_a_training_with_that_rate(one, data, weights):
    """Steps on all images in turn, in a new order in each epoch; those held back are never trained on."""
    seen, take = [], one.step
    one.step = lambda inputs, targets, *at: seen.append(targets) or take(inputs, targets, *at)
    found = rates.search(one, *data, (2, 6))
    assert set(map(len, seen)) == {4, 1}
    assert sum(map(len, seen[:2])) == 8
    assert sorted(np.concatenate([*seen[:2], seen[10]])) == sorted(
        TARGETS[LEARNT]
    )  # the third step of one that went on
    network = networks.assemble(weights, "caffe", TINY.size, head("max", 3, dropout=0.5, scaler=True))
    alone = program(network, "block2_pool", PLAN, TARGETS[LEARNT], weights)
    alone.set_learning_rate(found.best.learning_rate)
    rates._train(alone, data[0], 0, 6)
    assert rates.evaluate(alone, data[1], PLAN, 0)[0].log_loss == pytest.approx(found.best.log_losses[-1], rel=1e-6)


def test_a_rate_at_which_training_diverges_is_not_chosen(one, data, monkeypatch):
    monkeypatch.setitem(rates.CANDIDATES, "sgd", (1e-4, 1e38))
    found = rates.search(one, *data, (2, 6))
    assert found.trials[1].log_losses == (None,)
    assert found.best.learning_rate == 1e-4
    monkeypatch.setitem(rates.CANDIDATES, "sgd", (1e37, 1e38))
    found = rates.search(one, *data, (2, 6))
    assert found.best.learning_rate == 1e37
    assert "all diverged" in found.describe()


def test_the_picture_shows_every_round(tmp_path):
    trials = (Trial(1e-4, (0.7,)), Trial(1e-3, (0.5, 0.4)), Trial(1e-2, (None,)))
    rates.plot(tmp_path / "picture.png", Search(40, 10, (4, 12), 0.8, trials, 1.0))
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    assert all(a < b for a, b in pairwise(rates.CANDIDATES["adam"]))
