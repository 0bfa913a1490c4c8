"""Heads: pooling, folding, what is saved and read back, and how all are judged."""

import json
import warnings

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featurize.errors import VggftError
from heads import dense, logistic, search, store
from heads.dense import DenseSpec
from heads.head import Head, Layer, load, pool
from heads.logistic import LogisticSpec
from heads.metrics import judge, wilson_interval
from heads.search import Features
from heads.training import Examples, Plan, compile_for, fit

RNG = np.random.default_rng(0)


def features(n, classes, seed=0):
    """Feature maps whose mean tells the class, with noise."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    maps = rng.random((n, 3, 3, 8)).astype(np.float16) * 40
    maps[np.arange(n), :, :, targets] += 15
    return Features(maps, targets.astype(np.int64), [str(i) for i in range(n)])


def test_pooling():
    maps = np.arange(24, dtype=np.float16).reshape(1, 2, 3, 4)
    assert pool(maps, "flatten").tolist() == [list(range(24))]
    assert pool(maps, "avg").tolist() == [[10, 11, 12, 13]]
    assert pool(maps, "max").tolist() == [[20, 21, 22, 23]]
    assert pool(maps, "avgmax").tolist() == [[10, 11, 12, 13, 20, 21, 22, 23]]
    assert {pool(maps, p).dtype for p in ("flatten", "avg", "max", "avgmax")} == {np.dtype(np.float32)}
    large = np.full((1, 7, 7, 1), 28_992, np.float16)
    assert pool(large, "avg").tolist() == [[28_992.0]]  # summed in float32: 49 × 29,000 is more than float16 holds
    with pytest.raises(ValueError, match="expected flatten"):
        pool(maps, "mean")


@pytest.mark.parametrize("classes", [2, 4])
def test_the_folded_regression_is_the_pipeline(classes):
    data = features(120, classes)
    x = pool(data.outputs, "avgmax")
    x[:, 3] = 7.0  # a feature without variance
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.05, max_iter=1000)).fit(x, data.targets)
    head = logistic.fold(LogisticSpec("l", "avgmax"), [str(c) for c in range(classes)], pipeline)
    kernel, bias = head.layers[0].kernel, head.layers[0].bias
    assert kernel.shape == (16, 1 if classes == 2 else classes)
    folded = Head("f", "logistic", "flatten", head.classes, head.layers).predict(x.reshape(len(x), 1, 1, -1))
    assert np.abs(folded - pipeline.predict_proba(x)).max() < 1e-5
    assert bias.dtype == kernel.dtype == np.float32


def test_the_strength_is_chosen_without_validation_and_by_groups():
    data = features(60, 2)
    fitted = logistic.train(LogisticSpec("l", "avg"), ["a", "b"], examples(data, "avg"), data.groups, 0)
    assert fitted.strength in logistic.STRENGTHS
    assert fitted.status.startswith("strength chosen over 5 folds")
    two = ["x", "x", "y", "y"] * 15
    assert "2 folds" in logistic.train(LogisticSpec("l", "avg"), ["a", "b"], examples(data, "avg"), two, 0).status
    one = ["x"] * 60
    assert "not searched" in logistic.train(LogisticSpec("l", "avg"), ["a", "b"], examples(data, "avg"), one, 0).status


def examples(data, pooling):
    return Examples(pool(data.outputs, pooling), data.targets)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("standardise", [True, False])
def test_a_dense_head_predicts_what_keras_would(classes, standardise):
    import keras

    ours, theirs = features(60, classes), features(30, classes, seed=1)
    spec = DenseSpec("d", "avg", units=16, dropout=0.5, learning_rate=0.02, standardise=standardise)
    names = [str(c) for c in range(classes)]
    head, trained = dense.train(spec, names, examples(ours, "avg"), examples(theirs, "avg"), Plan(12, 16, 0))
    assert [len(layer.bias) for layer in head.layers] == [16, 1 if classes == 2 else classes]
    assert head.layers[-1].activation == ("sigmoid" if classes == 2 else "softmax")
    measured = judge(head.predict(theirs.outputs), theirs.targets)
    assert measured.log_loss == pytest.approx(trained.best.val_log_loss, abs=1e-5)
    assert trained.best.val_log_loss == min(epoch.val_log_loss for epoch in trained.history)
    assert trained.best.epoch >= 1

    layers = [keras.layers.Dense(len(layer.bias), activation=layer.activation) for layer in head.layers]
    model = keras.Sequential([keras.Input((8,)), *layers])
    for keras_layer, layer in zip(model.layers, head.layers, strict=True):
        keras_layer.set_weights([layer.kernel, layer.bias])
    expected = np.asarray(model.predict_on_batch(pool(theirs.outputs, "avg")))
    assert np.abs(head.predict(theirs.outputs)[:, -expected.shape[1] :] - expected).max() < 1e-6


def test_same_seed_same_head():
    ours, theirs = features(40, 2), features(20, 2, seed=1)
    spec = DenseSpec("d", "max", units=8, dropout=0.5, learning_rate=0.01)

    def train(seed):
        return dense.train(spec, ["a", "b"], examples(ours, "max"), examples(theirs, "max"), Plan(3, 16, seed))[0]

    assert np.array_equal(train(1).layers[0].kernel, train(1).layers[0].kernel)
    assert not np.array_equal(train(1).layers[0].kernel, train(2).layers[0].kernel)


def test_every_image_takes_part_in_every_epoch_and_the_best_weights_stay():
    import keras

    seen = []

    class Spy(keras.Sequential):
        def train_on_batch(self, x, y, **options):
            seen.append(x[:, 0])
            return super().train_on_batch(x, y, **options)

    keras.utils.set_random_seed(0)
    model = Spy([keras.Input((8,)), keras.layers.Dense(1, activation="sigmoid")])
    compile_for(model, keras.optimizers.SGD(5.0))  # far too fast: the validation loss jumps about
    ours, theirs = examples(features(37, 2), "avg"), examples(features(21, 2, seed=2), "avg")
    reported = []
    fit(model, ours, theirs, Plan(6, 8, 0, from_epoch_zero=True), reported.append)
    assert [len(batch) for batch in seen[:5]] == [8, 8, 8, 8, 5]
    for epoch in range(6):
        assert sorted(np.concatenate(seen[5 * epoch : 5 * epoch + 5])) == sorted(ours.inputs[:, 0])
    assert not np.array_equal(np.concatenate(seen[:5]), np.concatenate(seen[5:10]))
    assert [e.epoch for e in reported] == list(range(7))
    assert reported[0].loss is None
    kept = judge(np.hstack([1 - (p := np.asarray(model.predict_on_batch(theirs.inputs))), p]), theirs.targets)
    assert kept.log_loss == pytest.approx(min(e.val_log_loss for e in reported), rel=1e-6)


def test_the_reported_training_loss_is_the_mean_over_the_epoch():
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation="sigmoid")])
    compile_for(model, keras.optimizers.SGD(0.0))  # nothing moves, so the mean can be computed afterwards
    data = features(37, 2)
    ours = Examples(pool(data.outputs, "avg") / 50, data.targets)
    trained = fit(model, ours, ours, Plan(1, 8, 0))
    assert trained.history[0].loss == pytest.approx(trained.history[0].val_log_loss, rel=1e-4)
    assert trained.history[0].accuracy == pytest.approx(trained.history[0].val_accuracy)


def test_metrics():
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    found = judge(p, np.array([0, 1, 1, 0]))
    assert found.n == 4
    assert found.accuracy == 0.5
    assert found.log_loss == pytest.approx(-(np.log(0.9) + np.log(0.8) + np.log(0.4) + np.log(0.3)) / 4)
    assert found.auc == 0.75  # of the four pairs (class 1, class 0) three are in order
    assert "auc_reason" not in found.as_json()


def test_metrics_of_more_classes_and_of_absent_ones():
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    assert judge(p, np.array([0, 1, 2])).auc == 1.0
    lacking = judge(p, np.array([0, 1, 1]))
    assert lacking.auc is None
    assert "1 of 3 classes" in lacking.auc_reason
    assert json.dumps(lacking.as_json(), allow_nan=False)
    certain = judge(np.array([[1.0, 0.0]]), np.array([1]))
    assert np.isfinite(certain.log_loss)


def test_wilson_interval():
    assert wilson_interval(15, 20) == pytest.approx((0.531, 0.888), abs=5e-4)  # textbook value
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 20)[0] == 0.0


def test_saved_and_read_back(tmp_path):
    ours, theirs = features(60, 3), features(30, 3, seed=1)
    specs = [LogisticSpec("line", "max"), DenseSpec("net", "avg", units=8, dropout=0.5, learning_rate=0.01)]
    results = list(search.train_all(specs, ["a", "b", "c"], ours, theirs, Plan(3, 16, 0)))
    for result in results:
        store.save(tmp_path, result)
        store.save(tmp_path, result)  # a second time replaces the first
    found = {result.head.name: result for result in store.load_all(tmp_path)}
    assert set(found) == {"line", "net"}
    for result in results:
        again = found[result.head.name]
        assert np.array_equal(again.head.predict(theirs.outputs), result.head.predict(theirs.outputs))
        assert again.validation == result.validation
        assert list(again.history) == list(result.history)
        assert again.head.classes == ("a", "b", "c")
    store.write_leaderboard(tmp_path / "leaderboard.csv", results)
    first = (tmp_path / "leaderboard.csv").read_text().splitlines()[1]
    assert first.startswith(f"1,{search.best_first(results)[0].head.name},")
    assert not list(tmp_path.glob(".*"))

    import joblib

    pipeline = joblib.load(tmp_path / "line" / "pipeline.joblib")
    x = pool(theirs.outputs, "max")
    assert np.abs(pipeline.predict_proba(x) - found["line"].head.predict(theirs.outputs)).max() < 1e-5


def test_damaged_heads_are_named(tmp_path):
    head = Head(
        "h", "dense", "avg", ("a", "b"), (Layer(np.ones((8, 1), np.float32), np.zeros(1, np.float32), "sigmoid"),)
    )
    head.save(tmp_path)
    assert load(tmp_path).parameters == 9
    data = bytearray((tmp_path / "weights.npz").read_bytes())
    data[100] ^= 1
    (tmp_path / "weights.npz").write_bytes(data)
    with pytest.raises(VggftError, match="damaged"):
        load(tmp_path)
    for content, message in (
        ({"version": 99}, "version 99"),
        ([], "no readable head"),
        ({"version": 1}, "no readable head"),
    ):
        (tmp_path / "head.json").write_text(json.dumps(content))
        with pytest.raises(VggftError, match=message):
            load(tmp_path)


def test_best_is_lowest_log_loss_then_fewest_parameters():
    ours, theirs = features(30, 2), features(30, 2, seed=1)
    (one,) = search.train_all([LogisticSpec("one", "avg")], ["a", "b"], ours, theirs, Plan(1, 8, 0))
    small, large = (
        one,
        search.Result(
            Head(
                "large",
                "dense",
                "avgmax",
                ("a", "b"),
                (Layer(np.zeros((16, 1), np.float32), np.zeros(1, np.float32), "sigmoid"),),
            ),
            1.0,
            one.validation,
        ),
    )
    assert [r.head.name for r in search.best_first([large, small])] == ["one", "large"]


def test_perturbed_validation_images_change_no_scaler_and_no_strength():
    ours, theirs, others = features(40, 2), features(20, 2, seed=1), features(20, 2, seed=5)
    specs = [LogisticSpec("line", "avg")]
    (a,) = search.train_all(specs, ["a", "b"], ours, theirs, Plan(1, 8, 0))
    (b,) = search.train_all(specs, ["a", "b"], ours, others, Plan(1, 8, 0))
    assert np.array_equal(a.head.layers[0].kernel, b.head.layers[0].kernel)
    assert a.validation != b.validation


def test_nothing_is_warned_about_in_three_classes():
    ours, theirs = features(60, 3), features(30, 3, seed=1)
    spec = DenseSpec("net", "avg", units=8, dropout=0.5, learning_rate=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        list(search.train_all([spec], ["a", "b", "c"], ours, theirs, Plan(2, 16, 0)))
