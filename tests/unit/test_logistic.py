"""Logistic regression: folded exactly into a dense layer, C selected on training images only."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from small_features import features

from heads import logistic
from heads.specs import LogisticSpec

SPEC = LogisticSpec("line", "avg")


@pytest.mark.parametrize("classes", [2, 4])
def test_the_folded_regression_is_the_pipeline(classes):
    data = features(120, classes)
    x = data.pooled["avgmax"].copy()
    x[:, 3] = 7.0  # a feature without variance
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000)).fit(x, data.targets)
    head = logistic.fold(LogisticSpec("l", "avgmax"), [str(c) for c in range(classes)], pipeline)
    kernel, bias = head.layers[0].kernel, head.layers[0].bias
    assert kernel.shape == (16, 1 if classes == 2 else classes)
    assert np.abs(head.scores(x) - pipeline.predict_proba(x)).max() < 1e-5
    assert bias.dtype == kernel.dtype == np.float32


def test_the_search_is_what_scikit_learn_finds():
    data = features(60, 2)
    fitted = logistic.train(SPEC, ["a", "b"], data, seed=3)
    assert [point.C for point in fitted.search] == list(logistic.C_VALUES)
    x, y = data.pooled["avg"], data.targets
    for point in fitted.search[::4]:
        total = 0.0
        for inner, outer in StratifiedGroupKFold(5, shuffle=True, random_state=3).split(x, y, data.groups):
            mean, deviation = x[inner].mean(axis=0, dtype=float), x[inner].std(axis=0, dtype=float)
            scaled = (x - mean) / np.maximum(deviation, 2.5 * np.median(deviation))
            model = LogisticRegression(C=point.C, max_iter=2000).fit(scaled[inner], y[inner])
            total += log_loss(y[outer], model.predict_proba(scaled[outer])) * len(outer)
        assert point.log_loss == pytest.approx(total / 60, rel=1e-4)
    assert fitted.C == min(fitted.search, key=lambda point: point.log_loss).C
    assert fitted.converged
    assert "chosen from 13 values" in fitted.status


def test_no_fold_parts_a_group(monkeypatch):
    from heads import folds

    data = features(60, 2, groups=[f"g{i // 6}" for i in range(60)])
    seen = []
    split = folds.split

    def watch(*arguments):
        parts = split(*arguments)
        seen.extend(parts)
        return parts

    monkeypatch.setattr(folds, "split", watch)
    logistic.train(SPEC, ["a", "b"], data, seed=0)
    groups = np.array(data.groups)
    assert len(seen) == 5
    assert all(not set(groups[inner]) & set(groups[outer]) for inner, outer in seen)
    assert sorted(np.concatenate([outer for _, outer in seen])) == list(range(60))


def test_fewer_groups_fewer_folds():
    two = features(60, 2, groups=["x", "x", "y", "y"] * 15)
    assert logistic.train(SPEC, ["a", "b"], two, 0).search
    one = logistic.train(SPEC, ["a", "b"], features(60, 2, groups=["x"] * 60), 0)
    assert one.search == ()
    assert "not searched" in one.status


def test_one_image_in_a_class_is_no_reason_not_to_search():
    data = features(60, 3)
    few = data.take(np.flatnonzero((data.targets != 2) | (np.arange(60) == 2)))
    fitted = logistic.train(SPEC, ["0", "1", "2"], few, 0)
    assert len(fitted.search) == 13
    assert np.isfinite([point.log_loss for point in fitted.search]).all()


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_classes_that_training_never_saw(classes):
    names = [str(c) for c in range(classes)]
    data = features(60, classes)
    only = data.take(np.flatnonzero(data.targets != classes - 1))
    fitted = logistic.train(SPEC, names, only, 0)
    p = fitted.head.scores(data.pooled["avg"])
    assert p.shape == (60, classes)
    assert p[:, -1].max() <= 1.1e-6
    assert np.isfinite(np.log(p)).all()
    if classes > 2:
        assert np.abs(p[:, :-1] - fitted.pipeline.predict_proba(data.pooled["avg"])).max() < 2e-6
    else:
        assert fitted.pipeline is None
        assert "only one class" in fitted.status


def test_not_converging_is_said_and_does_not_warn(monkeypatch):
    monkeypatch.setattr(logistic, "MAX_ITERATIONS", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = logistic.train(SPEC, ["0", "1"], features(60, 2), 0)
    assert not fitted.converged
    assert fitted.status.startswith("not converged after 2 iterations")
    assert [point.unconverged for point in fitted.search if point.C > 0.1] == [5] * 4


@pytest.mark.slow
def test_balanced_class_weights():
    data = features(60, 2)
    few = data.take(np.flatnonzero((data.targets == 0) | (np.arange(60) < 10)))
    plain, balanced = (logistic.train(SPEC, ["0", "1"], few, 0, weight) for weight in (None, "balanced"))
    p, q = (fitted.head.scores(data.pooled["avg"])[data.targets == 1, 1].mean() for fitted in (plain, balanced))
    assert q > p
    assert balanced.pipeline[-1].class_weight == "balanced"


def test_the_fits_are_counted():
    counted = []
    logistic.train(SPEC, ["0", "1"], features(60, 2), 0, advance=counted.append)
    assert counted == list(range(1, 66))
