"""The unsure band, on cases counted by hand."""

import numpy as np
import pytest

from vggft.prediction import band
from vggft.prediction.band import NEVER, Band


def chosen(*images):
    """Choose on images of two classes, given as (top score, right or not)."""
    p = np.array([[score, 1 - score] for score, _ in images])
    return band.choose(p, np.array([0 if right else 1 for _, right in images]))


def test_right_often_enough_on_all_images():
    found = chosen(*[(0.6 + i / 100, i != 3) for i in range(20)])
    assert found == Band(0.0, 20, 20, 0.95)  # 19 of 20 are enough
    assert not found.unsure(0.5)
    assert "no prediction is marked as unsure: accuracy is 95.0% on all 20 validation images" in str(found)


def test_the_lowest_score_that_does():
    found = chosen((0.9, True), (0.8, True), (0.7, False), (0.6, True))
    assert found == Band(0.75, 4, 2, 1.0)  # halfway: rounding moves none of these images to the other side
    assert (found.unsure(0.75), found.unsure(0.7499)) == (False, True)
    assert "below 0.7500 are marked as unsure (?): accuracy is 100.0% on the 2 of 4 validation images above it" in str(
        found
    )
    assert found.as_json() == {"right_at_least": 0.95, "threshold": 0.75, "images": 4, "sure": 2, "accuracy": 1.0}


def test_scores_that_differ_by_rounding_are_one_score():
    found = chosen((0.9, True), (0.8 + 1e-9, True), (0.8, False))
    assert found == Band(pytest.approx(0.85), 3, 1, 1.0)


def test_an_error_at_the_top_can_be_made_up_for():
    right = [(0.98 - i / 100, True) for i in range(19)]
    found = chosen((0.99, False), *right, (0.7, False), (0.6, False))
    assert found == Band(pytest.approx(0.75), 22, 20, 0.95)


def test_images_of_one_score_stand_or_fall_together():
    assert chosen((0.9, True), (0.8, True), (0.8, False)) == Band(pytest.approx(0.85), 3, 1, 1.0)
    assert chosen((0.8, False), (0.8, True), (0.9, True)) == Band(pytest.approx(0.85), 3, 1, 1.0)


def test_no_score_does():
    found = chosen((0.9, False), (0.8, True))
    assert found == Band(NEVER, 2, 0, None)
    assert found.unsure(1.0)
    assert "all predictions are marked as unsure (?): no threshold reaches an accuracy of 95% on" in str(found)


def test_three_classes():
    p = np.array([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.5, 0.3, 0.2]])
    assert band.choose(p, np.array([1, 2, 1])) == Band(pytest.approx(0.6), 3, 2, 1.0)
