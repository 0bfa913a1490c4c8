"""Metrics against textbook values and scikit-learn."""

import json

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

from heads.metrics import Metrics, losses, measure, wilson_interval


def test_metrics():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    found = measure(p, np.array([0, 1, 1, 0]))
    assert found.n == 4
    assert found.accuracy == 0.5
    assert found.log_loss == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4) + np.log(0.3)) / 4)
    assert found.auc == 0.75  # of the four pairs (class 1, class 0) three are in order
    assert "auc_reason" not in found.as_json()


def test_an_imbalanced_set_of_three_classes():
    rng = np.random.default_rng(0)
    targets = rng.choice(3, 200, p=[0.8, 0.15, 0.05])
    p = rng.dirichlet(np.ones(3), 200) + 0.4 * np.eye(3)[targets]
    p /= p.sum(axis=1, keepdims=True)
    said, found = p.argmax(axis=1), measure(p, targets)
    for average, means in (("macro", found.macro), ("weighted", found.weighted)):
        assert means.precision == pytest.approx(precision_score(targets, said, average=average))
        assert means.recall == pytest.approx(recall_score(targets, said, average=average))
        assert means.f1 == pytest.approx(f1_score(targets, said, average=average))
    assert found.macro.recall == pytest.approx(balanced_accuracy_score(targets, said))
    assert found.weighted.recall == pytest.approx(found.accuracy)
    assert found.auc == pytest.approx(roc_auc_score(targets, p, multi_class="ovr"))
    for c, one in enumerate(found.per_class):
        assert one.n == (targets == c).sum()
        assert one.precision == pytest.approx(precision_score(targets == c, said == c))
        assert one.recall == pytest.approx(recall_score(targets == c, said == c))
        assert one.f1 == pytest.approx(f1_score(targets == c, said == c))
        assert one.auc == pytest.approx(roc_auc_score(targets == c, p[:, c]))
    assert Metrics.of_json(json.loads(json.dumps(found.as_json(), allow_nan=False))) == found


def test_classes_that_are_absent_or_never_predicted():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    assert measure(p, np.array([0, 1, 2])).auc == 1.0
    lacking = measure(p, np.array([0, 1, 1]))
    assert lacking.auc is None
    assert "1 of 3 classes" in lacking.auc_reason
    absent = lacking.per_class[2]
    assert (absent.n, absent.precision, absent.recall, absent.f1, absent.auc) == (0, 0.0, None, None, None)
    assert lacking.macro.recall == pytest.approx((1 + 0.5) / 2)  # over the classes that are there
    never = measure(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1]))
    assert never.per_class[1].precision is None
    assert never.per_class[1].recall == 0
    alone = measure(np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 0]))
    assert (alone.accuracy, alone.auc, alone.per_class[0].auc) == (1.0, None, None)
    for found in (lacking, never, alone):
        assert json.dumps(found.as_json(), allow_nan=False)
    certain = measure(np.array([[1.0, 0.0]]), np.array([1]))
    assert np.isfinite(certain.log_loss)


def test_losses_of_single_images():
    p = np.array([[0.25, 0.75], [1.0, 0.0]])
    assert losses(p, np.array([1, 0])) == pytest.approx([-np.log(0.75), 0])
    assert losses(p, np.array([0, 1]))[1] == pytest.approx(-np.log(np.finfo(float).eps))


def test_wilson_interval():
    assert wilson_interval(15, 20) == pytest.approx((0.531, 0.888), abs=5e-4)  # textbook value
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 20)[0] == 0.0


def test_a_perfect_class_stays_within_what_is_read_again():
    """With 192 of 199 images, scikit-learn's average precision is 1.0000000000000002: the head was then taken for damaged."""
    targets = np.array([1] * 192 + [0] * 7)
    p = np.linspace(0.999, 0.001, 199)
    found = measure(np.stack([1 - p, p], axis=1), targets)
    assert found.average_precision == 1
    assert Metrics.of_json(found.as_json()) == found
