"""The verdict: its rules, and how many images would show a difference."""

import math

import pytest
from small_compare import pair

from vggft.comparison.verdict import CAP, Favours, Outcome, decide

NETWORK, HEAD, NEITHER = Favours


@pytest.mark.parametrize(
    ("contrast", "outcome", "accuracy"),
    [
        (pair((-0.2, -0.1)), Outcome.NETWORK_WINS, NEITHER),
        (pair((-0.2, -0.1), (-0.08, -0.02)), Outcome.NETWORK_WINS, HEAD),
        (pair((-0.0098, -0.001)), Outcome.BELOW_RELEVANT, NEITHER),
        (pair((-0.0101, -0.001)), Outcome.NETWORK_WINS, NEITHER),
        (pair((-0.01, -0.001)), Outcome.NETWORK_WINS, NEITHER),
        (pair((-0.0099, -0.001), (0.02, 0.08)), Outcome.BELOW_RELEVANT, NETWORK),
        (pair((-0.2, 0.0)), Outcome.NO_DIFFERENCE, NEITHER),
        (pair((0.0, 0.2)), Outcome.NO_DIFFERENCE, NEITHER),
        (pair((0.1, 0.2)), Outcome.HEAD_WINS, NEITHER),
        (pair((0.1, 0.2), (0.02, 0.08)), Outcome.HEAD_WINS, NETWORK),
        (pair((-0.1, 0.2)), Outcome.NO_DIFFERENCE, NEITHER),
        (pair((-0.1, 0.2), (0.02, 0.08)), Outcome.NO_DIFFERENCE, NETWORK),
        (pair((-0.1, 0.2), (-0.08, -0.02)), Outcome.NO_DIFFERENCE, HEAD),
        (pair((-0.2, -0.1), independent=60, effective=9.9), Outcome.TOO_FEW, NEITHER),
        (pair((-0.2, -0.1), independent=10), Outcome.NETWORK_WINS, NEITHER),
    ],
)
def test_the_rules(contrast, outcome, accuracy):
    verdict = decide(contrast, unchanged=False)
    assert (verdict.outcome, verdict.accuracy) == (outcome, accuracy)
    assert verdict.use_network == (outcome is Outcome.NETWORK_WINS)
    if outcome is not Outcome.NO_DIFFERENCE or accuracy is not NEITHER:
        assert verdict.needed is None


@pytest.mark.parametrize(
    ("contrast", "needed"),
    [
        (pair((-0.1, 0.2)), 10_987),
        (pair((-0.1, 0.2), only=(5, 5)), math.inf),
        (pair((-0.1, 0.2), only=(18, 2)), None),  # 60 by the formula, fewer than there are
        (pair((-0.1, 0.2), independent=40, counted=(2, 1)), 940),
        (pair((-0.1, 0.2), only=(4, 4), independent=40, counted=(2, 1)), 940),  # one image of each group is counted
        (pair((-0.1, 0.2), independent=40, counted=(2, 2)), math.inf),
    ],
)
def test_images_that_would_show_a_difference_in_accuracy(contrast, needed):
    verdict = decide(contrast, unchanged=False)
    assert verdict.needed == needed
    assert verdict.images_needed == (None if needed is None or needed > CAP else needed)


def test_images_needed_by_hand():
    verdict = decide(pair((-0.1, 0.2), only=(9, 3)), unchanged=False)
    discordant, difference = 12 / 200, 6 / 200
    by_hand = (1.959964 * math.sqrt(discordant) + 0.841621 * math.sqrt(discordant - difference**2)) ** 2 / difference**2
    assert verdict.images_needed == math.ceil(by_hand)
    grouped = pair((-0.1, 0.2), only=(18, 6), independent=200, counted=(9, 3))
    assert decide(grouped, unchanged=False).images_needed == verdict.images_needed


def test_an_unchanged_network_never_wins_by_rounding():
    verdict = decide(pair((-2e-6, -1e-6)), unchanged=True)
    assert verdict.outcome is Outcome.UNCHANGED
    assert not verdict.use_network
    assert decide(pair((-0.2, -0.1)), unchanged=True).outcome is Outcome.UNCHANGED
