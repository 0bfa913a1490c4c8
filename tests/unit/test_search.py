"""Training many heads: batches, cross-validation, seeds and ranking."""

import csv
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from small_features import features, no_progress
from test_heads import SPECS, trained

from heads import logistic, population, search, store
from heads.metrics import measure
from heads.plan import Plan
from heads.search import Failed, Result, Setting, Spread
from heads.specs import CLASSIC, POOLED_HEADS, DenseSpec, LogisticSpec

TRAIN, VALIDATION = features(60, 2), features(30, 2, seed=1, split="validate")
IN_GROUPS = features(90, 2, seed=2, groups=[f"g{i // 3}" for i in range(90)])
SETTING = Setting(["0", "1"], Plan(4, batch_size=16), no_progress)


def by_name(results):
    return {result.head.name: result for result in results}


@pytest.fixture(scope="module")
def results():
    """Each of SPECS, trained."""
    return list(search.train_all(SPECS, SETTING, TRAIN, VALIDATION))


@pytest.fixture(scope="module")
def cross_validated(results):
    """Each of SPECS, with its predictions out of 3 folds."""
    return list(search.cross_validate(list(zip(SPECS, results, strict=True)), SETTING, IN_GROUPS, VALIDATION, 3))


@pytest.mark.slow
def test_pooled_heads_train_together_and_flattened_ones_alone():
    shown = []

    @contextmanager
    def progress(what, total, unit):
        shown.append((what, total, unit))
        yield lambda done: None

    pooled = POOLED_HEADS[::3]
    small = [replace(spec, units=min(spec.units, 4)) for spec in (*pooled, CLASSIC, replace(CLASSIC, name="other"))]
    setting = replace(SETTING, progress=progress)
    found = by_name(search.train_all([SPECS[0], *small], setting, TRAIN, VALIDATION))
    assert len(found) == 7
    assert shown == [
        ("training line", 65, "fits"),
        ("training 4 pooled heads together", 4, "epochs"),
        ("training flatten-256-classic", 4, "epochs"),
        ("training other", 4, "epochs"),
    ]
    seconds = {found[spec.name].seconds for spec in pooled if len(found[spec.name].history) == 4}
    assert max(seconds) < 1.5 * min(seconds)  # the time of their training, shared evenly


def test_a_group_has_a_maximum_number_of_parameters(monkeypatch):
    monkeypatch.setattr(search, "_PARAMETERS_AT_ONCE", 150)
    specs = [DenseSpec(f"d{i}", "avg", units=8, learning_rate=0.01) for i in range(5)]
    assert [len(group) for group in search._groups(specs, TRAIN)] == [2, 2, 1]
    assert [len(group) for group in search._groups([replace(specs[0], units=999)], TRAIN)] == [1]


def test_a_head_that_fails_is_named_and_the_others_go_on():
    specs = [DenseSpec("bad", "avg", 8, 1e30), *SPECS]
    found = list(search.train_all(specs, SETTING, TRAIN, VALIDATION))
    (failed,) = (result for result in found if isinstance(result, Failed))
    assert failed.name == "bad"
    assert "lower learning rate" in failed.reason
    assert {result.head.name for result in found if isinstance(result, Result)} == {"line", "net"}


@pytest.mark.slow
def test_perturbed_validation_images_change_no_scaler_and_no_C():
    others = features(30, 2, seed=5, split="validate")
    a, b = (by_name(search.train_all(SPECS, SETTING, TRAIN, v)) for v in (VALIDATION, others))
    assert np.array_equal(a["line"].head.layers[0].kernel, b["line"].head.layers[0].kernel)
    assert a["line"].search == b["line"].search
    assert a["line"].validation != b["line"].validation
    assert [e.loss for e in a["net"].history] == [e.loss for e in b["net"].history]


def test_every_image_is_predicted_by_a_head_that_was_not_trained_on_it(results, cross_validated):
    found = by_name(cross_validated)
    assert set(found) == {"line", "net"}
    groups, targets = np.array(IN_GROUPS.groups), np.concatenate([IN_GROUPS.targets, VALIDATION.targets])
    for name, result in found.items():
        trained = by_name(results)[name].head
        assert np.array_equal(result.head.layers[0].kernel, trained.layers[0].kernel)
        out = result.out_of_fold
        assert [s.path for s in out.samples] == [s.path for s in (*IN_GROUPS.samples, *VALIDATION.samples)]
        assert set(out.fold[:90]) == set(range(3))
        assert set(out.fold[90:]) == {-1}
        assert all(len(set(out.fold[:90][groups == group])) == 1 for group in groups)
        assert np.array_equal(out.probabilities[90:], trained.scores(VALIDATION.pooled[trained.pooling]))
        assert result.folds == measure(out.probabilities, targets)
        assert result.folds.n == 120
        assert result.folds.auc > 0.8


def test_out_of_fold_predictions_do_not_know_their_image(results, cross_validated):
    """A flipped label changes the predictions of other images, but not of its own: no model was trained on it."""
    pairs = list(zip(SPECS, results, strict=True))
    targets = IN_GROUPS.targets.copy()
    # Two images of one group, one of each class, change places: the folds, stratified by class, stay as they are.
    i, j = 0, 1
    targets[[i, j]] = targets[[j, i]]
    a = by_name(cross_validated)
    b = by_name(search.cross_validate(pairs, SETTING, replace(IN_GROUPS, targets=targets), VALIDATION, 3))
    for name in a:
        p, q = a[name].out_of_fold, b[name].out_of_fold
        assert np.array_equal(p.fold, q.fold)
        held = p.fold == p.fold[i]
        assert np.array_equal(p.probabilities[held], q.probabilities[held])
        others = ~held & (p.fold >= 0)
        assert not np.array_equal(p.probabilities[others], q.probabilities[others])


def test_heads_train_in_folds_as_long_and_with_the_C_of_the_head_itself(results, monkeypatch):
    seen = []
    train_together, fit = population.train_together, logistic._fit

    def watch(specs, classes, train, plan, stopping, on_epoch):
        seen.append(([s.path for s in train.samples], stopping))
        return train_together(specs, classes, train, plan, stopping, on_epoch)

    def watch_fit(images, pooling, C, class_weight):
        seen.append((len(images), C))
        return fit(images, pooling, C, class_weight)

    monkeypatch.setattr(population, "train_together", watch)
    monkeypatch.setattr(logistic, "_fit", watch_fit)
    line, net = by_name(results)["line"], by_name(results)["net"]
    second = [replace(epoch, val_log_loss=1.0 + abs(epoch.epoch - 2)) for epoch in net.history]
    pairs = list(zip(SPECS, [line, replace(net, history=second)], strict=True))
    list(search.cross_validate(pairs, SETTING, IN_GROUPS, VALIDATION, 3))
    assert [C for _, C in seen[:3]] == [float(line.remark.split()[2].rstrip(","))] * 3
    assert sum(n for n, _ in seen[:3]) == 2 * 90
    assert [lengths for _, lengths in seen[3:]] == [[2]] * 3
    assert sum(len(paths) for paths, _ in seen[3:]) == 2 * 90


@pytest.mark.slow
def test_images_whose_class_is_in_one_fold_only_do_not_judge():
    """No head that predicts them has seen their class: a regression gives it one in a million, a dense head anything."""
    classes = ["0", "1", "2"]
    train = features(41, 3, groups=[f"g{i}" for i in range(41)])
    keep = [*np.flatnonzero(train.targets != 2).tolist(), 2]
    train = train.take(np.array(keep))
    validation = features(30, 2, seed=1, split="validate")
    setting = replace(SETTING, classes=classes)
    trained = list(search.train_all(SPECS, setting, train, validation))
    folded = list(search.cross_validate(list(zip(SPECS, trained, strict=True)), setting, train, validation, 3))
    counted = search.judged(train, validation, 3, setting.plan.seed)
    assert np.flatnonzero(~counted).tolist() == [len(train) - 1]
    targets = np.concatenate([train.targets, validation.targets])
    for result in folded:
        out = result.out_of_fold
        assert len(out.probabilities) == len(train) + 30  # all of them are kept
        assert result.folds == measure(out.probabilities[counted], targets[counted])
        assert result.folds.log_loss < 2
    assert folded[0].out_of_fold.probabilities[len(train) - 1, 2] <= 1e-6


def test_cross_validation_is_kept_and_read_back(results, cross_validated, tmp_path):
    for result in results:
        store.save(tmp_path, result)
    for result in cross_validated:
        store.save(tmp_path, replace(result, predictions=None, pipeline=None))
        again = by_name(store.load_all(tmp_path))[result.head.name]
        assert again.folds == result.folds
        with (tmp_path / result.head.name / "out_of_fold.csv").open(newline="") as file:
            assert [int(row["fold"] or 0) - 1 for row in csv.DictReader(file)] == result.out_of_fold.fold.tolist()
        kept = store.read_probabilities(tmp_path, result.head, result.out_of_fold.samples, store.OUT_OF_FOLD)
        assert np.array_equal(kept, result.out_of_fold.probabilities)
        # what training had written is still there
        assert (tmp_path / result.head.name / "predictions.csv").exists()
        assert (tmp_path / result.head.name / "pipeline.joblib").exists() == (result.head.kind == "logistic")
    store.save(tmp_path, results[0])  # trained again without folds: the old ones are gone with their numbers
    assert not (tmp_path / "line" / "out_of_fold.csv").exists()


@pytest.mark.slow
def test_seeds(results):
    found = list(search.over_seeds(SPECS, SETTING, TRAIN, VALIDATION, 3))
    assert [result.head.name for result in found] == ["line", "net"] * 2
    measured = [
        by_name(results)["net"].validation,
        *(result.validation for result in found if result.head.name == "net"),
    ]
    assert len({metrics.log_loss for metrics in measured}) == 3
    bad = list(search.over_seeds([DenseSpec("bad", "avg", 8, 1e30)], SETTING, TRAIN, VALIDATION, 2))
    assert [(result.name, "seed 1" in result.reason) for result in bad] == [("bad", True)]
    (alone,) = search.train_all([SPECS[1]], replace(SETTING, plan=replace(SETTING.plan, seed=2)), TRAIN, VALIDATION)
    assert alone.validation.log_loss == pytest.approx(measured[2].log_loss, rel=1e-4)
    spread = Spread.of(measured)
    assert spread.log_loss == pytest.approx(np.mean([m.log_loss for m in measured]))
    assert spread.log_loss_sd == pytest.approx(np.std([m.log_loss for m in measured], ddof=1))
    assert spread.accuracy_sd == pytest.approx(np.std([m.accuracy for m in measured], ddof=1))


def test_best_is_lowest_log_loss_then_fewest_parameters():
    (one, net), *_ = trained()
    twin = replace(net, head=replace(net.head, name="twin"), validation=one.validation)
    assert [r.head.name for r in search.best_first([twin, one])] == ["line", "twin"]
    worse = replace(one.validation, log_loss=one.validation.log_loss + 0.1)
    assert [r.head.name for r in search.best_first([replace(one, validation=worse), twin])] == ["twin", "line"]


def test_heads_are_ranked_by_what_all_of_them_have():
    (one, net), *_ = trained()
    low, high = sorted([one.validation, net.validation], key=lambda m: m.log_loss)
    a, b = replace(one, validation=low), replace(net, validation=high)

    def with_folds(result, metrics, number):
        return replace(result, folds=metrics, head=replace(result.head, provenance={search.TRAINING_FOLDS: number}))

    folded = with_folds(a, high, 5), with_folds(b, low, 5)
    spread = replace(a, spread=Spread(3, 0.9, 0.1, 0.5, 0.1)), replace(b, spread=Spread(3, 0.8, 0.1, 0.5, 0.1))
    earlier = replace(a, folds=high), replace(b, folds=low)  # of versions that folded all images
    for results, by, best in (
        ([a, b], "validation", "line"),
        ([folded[0], with_folds(b, low, 3)], "validation", "line"),  # not the same number of folds
        (earlier, "validation", "line"),
        ([spread[0], replace(b, spread=Spread(2, 0.8, 0.1, 0.5, 0.1))], "validation", "line"),
        ([folded[0], b], "validation", "line"),
        (folded, "folds", "net"),
        (spread, "seeds", "net"),
    ):
        assert search.criterion(results) == by
        assert search.best_first(results)[0].head.name == best


def test_the_leaderboard(tmp_path):
    (one, net), *_ = trained()
    folded = replace(net, folds=net.validation, spread=Spread(3, 0.8, 0.1, 0.5, 0.1), status="diverged in epoch 7")
    store.write_leaderboard(tmp_path / "l.csv", [one, folded], [replace(one, head=replace(one.head, name="old"))])
    with (tmp_path / "l.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert rows["old"]["rank"] == ""
    assert rows["old"]["status"] == "stale"
    assert {rows["line"]["rank"], rows["net"]["rank"]} == {"1", "2"}
    assert rows["net"]["status"] == "diverged in epoch 7"
    assert float(rows["net"]["folds_log_loss"]) == net.validation.log_loss
    assert float(rows["net"]["seeds_log_loss"]) == 0.8
    assert rows["line"]["folds_n"] == ""
    assert float(rows["line"]["macro_f1"]) == one.validation.macro.f1


def test_a_logistic_head_alone_can_be_trained():
    (one,) = search.train_all([LogisticSpec("l", "flatten")], SETTING, TRAIN, VALIDATION)
    assert one.head.pooling == "flatten"
    assert one.validation.n == 30
