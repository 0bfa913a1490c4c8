"""Intervals that cover, tests that hold their level, numbers of images that have the power they promise: by simulation."""

import numpy as np
import pytest
from scipy.stats import binom

from vggft import statistics
from vggft.statistics import holm, images_needed, mcnemar, resample

SIMULATIONS = 300


def two_methods(rng, n):
    """Return log-losses (n, 2) and right answers (n, 2) of two methods that find the same images hard."""
    hard = rng.normal(1.6, 1.3, n)
    logits = 1.5 * np.stack([hard + rng.normal(0, 0.6, n), 1.25 * (hard + rng.normal(0.15, 0.7, n))], axis=1)
    return np.logaddexp(0, -logits), logits > 0


def covered(monkeypatch, draw, truth_of):
    """Return how often the 95% intervals of log-loss and accuracy hold the truth."""
    monkeypatch.setattr(statistics, "DRAWS", 1000)
    rng = np.random.default_rng(0)
    loss, right, _ = truth_of(rng)
    truth = loss[:, 0].mean() - loss[:, 1].mean(), right[:, 0].mean() - right[:, 1].mean()
    held = np.zeros(2)
    for _ in range(SIMULATIONS):
        drawn = resample(*draw(rng))
        intervals = drawn.log_loss_interval(0, 1), drawn.accuracy_interval(0, 1)
        held += [low <= true <= high for true, (low, high) in zip(truth, intervals, strict=True)]
    return held / SIMULATIONS


@pytest.mark.parametrize("n", [40, 150])
def test_intervals_cover(monkeypatch, n):
    def draw(rng):
        return (*two_methods(rng, n), [str(i) for i in range(n)])

    log_loss, accuracy = covered(monkeypatch, draw, lambda rng: (*two_methods(rng, 2_000_000), None))
    slack = 3 * np.sqrt(0.95 * 0.05 / SIMULATIONS)
    assert log_loss >= 0.95 - slack - (0.03 if n < 100 else 0)  # a mean of few skewed numbers: README says so
    assert 0.95 - slack <= accuracy <= 0.95 + slack


def test_intervals_of_groups_cover(monkeypatch):
    """25 videos of 8 frames, which are hard or easy together: images drawn one by one would cover far less."""

    def frames(rng, groups):
        hard, better = rng.normal(1.2, 1.3, groups), rng.normal(0, 0.8, groups)
        of = np.repeat(np.arange(groups), 8)
        logits = np.stack([hard[of], (hard + better)[of]], axis=1) + rng.normal(0, 0.3, (len(of), 2))
        return np.logaddexp(0, -logits), logits > 0, [f"video {i}" for i in of]

    log_loss, accuracy = covered(monkeypatch, lambda rng: frames(rng, 25), lambda rng: frames(rng, 100_000))
    assert min(log_loss, accuracy) >= 0.88

    def parted(rng):
        loss, right, _ = frames(rng, 25)
        return loss, right, [str(i) for i in range(len(loss))]

    assert max(covered(monkeypatch, parted, lambda rng: frames(rng, 100_000))) < 0.75


def test_intervals_are_seeded_and_do_not_depend_on_the_other_methods():
    loss, right = two_methods(np.random.default_rng(1), 60)
    groups = [str(i) for i in range(60)]
    alone, again = resample(loss, right, groups), resample(loss, right, groups)
    assert alone.log_loss_interval(0, 1) == again.log_loss_interval(0, 1)
    more = resample(np.tile(loss, 2), np.tile(right, 2), groups)
    assert more.log_loss_interval(0, 1) == pytest.approx(alone.log_loss_interval(0, 1), abs=1e-12)
    assert more.accuracy_interval(2, 3) == pytest.approx(alone.accuracy_interval(0, 1), abs=1e-12)
    low, high = alone.accuracy_interval(0, 1)
    assert alone.accuracy_interval(1, 0) != (low, high)
    assert alone.log_loss.shape == (10_000, 2)


def test_methods_that_always_agree_still_have_an_interval():
    right = np.ones((50, 2), bool)
    low, high = resample(np.zeros((50, 2)), right, [str(i) for i in range(50)]).accuracy_interval(0, 1)
    assert -0.03 < low < 0 < high < 0.03
    assert low == pytest.approx(-high, abs=0.005)


def test_mcnemar():
    """Both tails of the binomial distribution, added up by hand."""
    assert mcnemar(15, 5) == pytest.approx(2 * binom.cdf(5, 20, 0.5))
    assert mcnemar(0, 6) == pytest.approx(2 * 0.5**6)
    assert mcnemar(3, 3) == mcnemar(0, 0) == 1.0


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])  # the example of textbooks
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(("p10", "p01"), [(0.10, 0.04), (0.06, 0.03)])
def test_so_many_images_show_the_difference_in_80_of_100_cases(p10, p01):
    n = int(images_needed(round(10_000 * p10), round(10_000 * p01), 10_000))
    rng = np.random.default_rng(0)
    counts = rng.multinomial(n, [p10, p01, 1 - p10 - p01], 2000)
    shown = np.mean([mcnemar(int(a), int(b)) < 0.05 for a, b, _ in counts])
    assert 0.74 <= shown <= 0.84  # the exact test needs a little more than the formula of the approximate one
    assert images_needed(4, 4, 100) == float("inf")
    assert images_needed(9, 3, 100) == images_needed(3, 9, 100)
