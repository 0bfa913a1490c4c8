"""Which method to use: the rules, and how many images would show a difference."""

import math

import pytest

from vggft.comparison.verdict import CAVEAT, FAIR, Pair, decide


def pair(log_loss, accuracy=(-0.01, 0.01), only=(4, 3), independent=200, counted=None, effective=None):
    middle = sum(log_loss) / 2
    difference = (only[0] - only[1]) / 200
    effective = effective or independent
    return Pair(
        "net", "head", 200, difference, accuracy, middle, log_loss, *only, effective, independent, counted or only
    )


@pytest.mark.parametrize(
    ("contrast", "use", "said"),
    [
        (pair((-0.2, -0.1)), "net", "fine-tuning beats head (log-loss 0.1500 lower, 95% interval"),
        (pair((-0.2, -0.1), (-0.08, -0.02), (1, 11)), "net", "although net gets 5.0 of 100 images fewer right"),
        (
            pair((-0.0098, -0.001)),
            "head",
            "net lowers log-loss by less than the 0.01 that would be worth its cost (log",
        ),
        (pair((-0.0101, -0.001)), "net", "fine-tuning beats head"),
        (pair((-0.0099, -0.001), (0.02, 0.08), (11, 1)), "head", "although net gets 5.0 of 100 images more right"),
        (pair((0.1, 0.2)), "head", "net is worse (log-loss 0.1500 higher"),
        (pair((0.1, 0.2), (0.02, 0.08), (11, 1)), "head", "although net gets 5.0 of 100 images more right"),
        (pair((-0.1, 0.2)), "head", "no difference to net that these 200 images can show (it would take about 10,9"),
        (
            pair((-0.1, 0.2), only=(5, 5)),
            "head",
            "(they get equally many right: it would take more than 100,000 like these",
        ),
        (pair((-0.1, 0.2), (0.02, 0.08), (11, 1)), "head", "no difference in log-loss that these 200 images can show"),
        (pair((-0.1, 0.2), (0.02, 0.08), (11, 1)), "head", "but net gets 5.0 of 100 images more right: take that if"),
        (
            pair((-0.1, 0.2), (-0.08, -0.02), (1, 11)),
            "head",
            "and it is cheaper; but net gets 5.0 of 100 images fewer right;",
        ),
        (pair((-0.2, -0.1), only=(0, 0)), "net", "although they get the same images right"),
        (
            pair((-0.2, -0.1), independent=60, effective=9.9),
            "head",
            "200 images, in groups that count as 9.9, are too few to tell it from net (10 at least)",
        ),
        (pair((-0.2, -0.1), independent=10), "net", "fine-tuning beats head"),
        (
            pair((-0.1, 0.2), only=(18, 2)),
            "head",
            "that these 200 images can show, and it is cheaper",
        ),  # not: about 60
        (
            pair((-0.1, 0.2), independent=40, counted=(2, 1)),
            "head",
            "(it would take about 940 that do not belong together to show one in accuracy), and it is cheaper;",
        ),
        (
            pair((-0.1, 0.2), only=(4, 4), independent=40, counted=(2, 1)),
            "head",
            "can show (it would take about 940 that",
        ),
        (
            pair((-0.1, 0.2), independent=40, counted=(2, 2)),
            "head",
            "can show (of one image of each group they get equally many right: it would take more than 100,000 that",
        ),
    ],
)
def test_the_rules(contrast, use, said):
    found = decide(contrast, "head", "net", False, FAIR)
    assert found.use == use
    assert found.sentence.startswith(f"Use {use}: ")
    assert said in found.sentence
    assert found.sentence.endswith(f"; {FAIR}.")
    assert found.sentence.count("\n") == 0


def test_images_needed_is_the_number_that_is_said():
    found = decide(pair((-0.1, 0.2), only=(9, 3)), "head", "net", False, FAIR)
    discordant, difference = 12 / 200, 6 / 200
    by_hand = (1.959964 * math.sqrt(discordant) + 0.841621 * math.sqrt(discordant - difference**2)) ** 2 / difference**2
    assert found.images_needed == math.ceil(by_hand)
    assert f"about {found.images_needed:,} like these" in found.sentence
    assert decide(pair((-0.1, 0.2), only=(5, 5)), "head", "net", False, FAIR).images_needed is None
    shown = pair((-0.1, 0.2), (0.02, 0.08), (11, 1))  # a difference in accuracy that these images do show
    assert decide(shown, "head", "net", False, FAIR).images_needed is None
    grouped = pair((-0.1, 0.2), only=(18, 6), independent=200, counted=(9, 3))  # one of each group is counted
    assert decide(grouped, "head", "net", False, FAIR).images_needed == found.images_needed


def test_an_unchanged_network_never_wins_by_rounding():
    said = decide(pair((-2e-6, -1e-6)), "head", "net", True, CAVEAT)
    assert said.sentence == f"Use head: no epoch of fine-tuning was better than the head it started from; {CAVEAT}."
