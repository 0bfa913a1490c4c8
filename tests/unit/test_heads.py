"""Heads: pooling, saving and loading, damaged files."""

import functools
import json

import numpy as np
import pytest
from small_features import features, maps, no_progress

from featurize.disk import checked, durable
from featurize.errors import VggftError
from heads import search, store
from heads.head import Head, Layer, load_head, pool, scales
from heads.plan import Plan
from heads.search import Setting
from heads.specs import DenseSpec, LogisticSpec

SPECS = (LogisticSpec("line", "max"), DenseSpec("net", "avg", units=8, learning_rate=0.01, dropout=0.5))


@functools.cache
def trained():
    """Return the result of each of SPECS, and the training and validation images; read-only."""
    setting = Setting(["0", "1", "2"], Plan(3, batch_size=16), no_progress)
    ours, theirs = features(60, 3), features(30, 3, seed=1, split="validate")
    return list(search.train_all(SPECS, setting, ours, theirs)), ours, theirs


def test_pooling():
    one = np.arange(24, dtype=np.float16).reshape(1, 2, 3, 4)
    assert pool(one, "flatten").tolist() == [list(range(24))]
    assert pool(one, "avg").tolist() == [[10, 11, 12, 13]]
    assert pool(one, "max").tolist() == [[20, 21, 22, 23]]
    assert pool(one, "avgmax").tolist() == [[10, 11, 12, 13, 20, 21, 22, 23]]
    assert {pool(one, p).dtype for p in ("flatten", "avg", "max", "avgmax")} == {np.dtype(np.float32)}
    large = np.full((1, 7, 7, 1), 28_992, np.float16)
    assert pool(large, "avg").tolist() == [[28_992.0]]  # summed in float32: 49 × 29,000 is more than float16 holds
    with pytest.raises(ValueError, match="expected flatten"):
        pool(one, "mean")


def test_features_that_vary_little_stay_small():
    assert scales(np.array([0.0, 1.0, 4.0, 9.0, 400.0]), "avg").tolist() == [
        5,
        5,
        5,
        5,
        20,
    ]  # 2.5 times the median of 2
    assert scales(np.array([4.0, 4.0, 400.0, 400.0]), "avgmax").tolist() == [
        5,
        5,
        50,
        50,
    ]  # each half has a median of its own
    assert scales(np.zeros(3), "max").tolist() == [1, 1, 1]


@pytest.mark.parametrize("spec", [LogisticSpec("line", "avg"), DenseSpec("net", "avg", units=8, learning_rate=0.01)])
def test_an_image_in_which_a_filter_sees_something_for_the_first_time(spec):
    """In the training images this feature is nearly constant: it must not outweigh all others."""
    setting = Setting(["0", "1"], Plan(20, batch_size=16), no_progress)
    ours, theirs = features(60, 2), features(30, 2, seed=1, split="validate")
    for images in (ours, theirs):
        images.pooled["avg"][:, 7] = np.random.default_rng(0).normal(0, 1e-4, len(images))
    (found,) = search.train_all([spec], setting, ours, theirs)
    expected = found.head.scores(theirs.pooled["avg"])
    theirs.pooled["avg"][:, 7] = 1
    assert np.abs(found.head.scores(theirs.pooled["avg"]) - expected).max() < 0.1


def test_saved_and_read_back(tmp_path):
    results, _, theirs = trained()
    values, _ = maps(30, 3, seed=1)
    for result in results:
        store.save(tmp_path, result)
        store.save(tmp_path, result)  # a second time replaces the first
    found = {result.head.name: result for result in store.load_all(tmp_path)}
    assert set(found) == {"line", "net"}
    for result in results:
        again = found[result.head.name]
        assert np.array_equal(again.head.predict(values), result.head.scores(theirs.pooled[result.head.pooling]))
        for name in ("validation", "status", "remark", "seconds", "folds", "spread"):
            assert getattr(again, name) == getattr(result, name), name
        assert list(again.history) == list(result.history)
        assert list(again.search) == list(result.search)
        assert again.head.classes == ("0", "1", "2")
    store.write_leaderboard(tmp_path / "leaderboard.csv", results)
    first = (tmp_path / "leaderboard.csv").read_text().splitlines()[1]
    assert first.startswith(f"1,{search.best_first(results)[0].head.name},")
    assert not list(tmp_path.glob(".*"))

    import joblib

    pipeline = joblib.load(tmp_path / "line" / "pipeline.joblib")
    x = theirs.pooled["max"]
    assert np.abs(pipeline.predict_proba(x) - found["line"].head.scores(x)).max() < 1e-5


def test_loading_never_unpickles(tmp_path, monkeypatch):
    import pickle

    import joblib

    for result in trained()[0]:
        store.save(tmp_path, result)

    def refuse(*arguments, **options):
        raise AssertionError("unpickled")

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (joblib, "load")):
        monkeypatch.setattr(module, name, refuse)
    assert len(store.load_all(tmp_path)) == 2


def test_predictions_are_kept_and_can_be_recomputed(tmp_path):
    import csv

    results, _, theirs = trained()
    for result in results:
        store.save(tmp_path, result)
        with (tmp_path / result.head.name / "predictions.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["path"] for row in rows] == [sample.path for sample in theirs.samples]
        assert {row["split"] for row in rows} == {"validate"}
        p = np.array([[float(row[f"p_{c}"]) for c in range(3)] for row in rows])
        truth = np.array([int(row["label"]) for row in rows])
        assert np.array_equal(truth, theirs.targets)
        assert -np.log(p[np.arange(30), truth]).mean() == pytest.approx(result.validation.log_loss)
        assert np.mean([row["label"] == row["predicted"] for row in rows]) == result.validation.accuracy


def test_what_others_left_in_a_folder_stays(tmp_path):
    (result, _), *_ = trained()
    (tmp_path / "line" / "mine").mkdir(parents=True)
    (tmp_path / "line" / "mine" / "notes.txt").write_text("do not touch")
    (tmp_path / "line" / "notes.txt").write_text("nor this")
    (tmp_path / "other").mkdir()
    for _ in range(2):
        store.save(tmp_path, result)
        assert (tmp_path / "line" / "mine" / "notes.txt").read_text() == "do not touch"
        assert (tmp_path / "line" / "notes.txt").read_text() == "nor this"
    assert (tmp_path / "other").is_dir()
    assert [r.head.name for r in store.load_all(tmp_path)] == ["line"]


def test_a_kill_between_two_renames_loses_no_head(tmp_path, monkeypatch):
    """Killed between the two renames: the next command restores the old head."""
    from pathlib import Path

    (result, _), *_ = trained()
    store.save(tmp_path, result)
    rename = Path.rename

    def killed(path, target):
        if path.name.endswith(".new.vggft.tmp"):
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        store.save(tmp_path, result)
    monkeypatch.undo()
    assert store.load_all(tmp_path) == []
    durable.sweep(tmp_path)
    assert [r.head.digest for r in store.load_all(tmp_path)] == [result.head.digest]
    assert not list(tmp_path.glob(".*"))
    store.save(tmp_path, result)
    assert not list(tmp_path.glob(".*"))


def test_damaged_heads_are_named(tmp_path):
    layer = Layer(np.ones((8, 1), np.float32), np.zeros(1, np.float32), "sigmoid")
    checked.write_checked(tmp_path, Head("h", "dense", "avg", ("a", "b"), (layer,)).files())
    assert load_head(tmp_path).parameters == 9
    data = bytearray((tmp_path / "weights.npz").read_bytes())
    data[100] ^= 1
    (tmp_path / "weights.npz").write_bytes(data)
    with pytest.raises(VggftError, match="sha256"):
        load_head(tmp_path)
    (tmp_path / "checksums.json").unlink()  # as earlier versions left the folder
    with pytest.raises(VggftError, match="sha256"):
        load_head(tmp_path)
    for content, message in (
        ({"version": 99}, "version 99"),
        ([], "not a readable head"),
        ({"version": 4}, "not a readable head"),
    ):
        (tmp_path / "head.json").write_text(json.dumps(content))
        with pytest.raises(VggftError, match=message):
            load_head(tmp_path)
