"""`vggft predict` and `evaluate` compute no features that are in the cache, and keep those that they compute."""

import csv
import io
import os
import shutil

import filelock
import numpy as np
import pytest
from conftest import drawings, refused, strict_json, vggft
from tiny import TINY, StandIn

from featurize.disk import durable
from vggft.prediction import feature_scorer, inference, models
from vggft.workspace.workspace import Workspace


@pytest.fixture
def no_engine(monkeypatch):
    """No engine starts, and no weights are read."""

    def start(*arguments):
        raise AssertionError("an engine was started")

    monkeypatch.setattr(inference, "start_engine", start)


@pytest.fixture
def others(tmp_path):
    """Six drawings that are not in the data set."""
    drawings(tmp_path / "others", 3, "bugs", "flowers")
    return tmp_path / "others"


def rows(done):
    """Return the name of each file → its label and score."""
    assert done.returncode == 0, done.stderr
    return {row["path"]: (row["label"], row["score"]) for row in csv.DictReader(io.StringIO(done.stdout))}


def test_images_of_the_data_set_need_no_engine(trained, no_engine):
    workspace, data, results = trained
    for name in ("logistic-max", results["finetune"]["name"]):
        found = rows(vggft("predict", data, "--csv", "--model", name, "-w", workspace.root))
        samples = workspace.dataset.accepted()
        model = models.load(workspace).named(name)
        expected = inference.from_cache([model], workspace, workspace.cache(), samples)[name]
        assert len(found) == len(samples) == 32
        for sample, p in zip(samples, expected, strict=True):
            label, score = found[str(data / sample.path)]
            assert label == model.classes[p.argmax()]
            assert abs(float(score) - p.max()) < 1e-6


def test_evaluate_reads_the_cache_too(again, trained, no_engine):
    done = vggft("evaluate", trained[1], "--json", "-w", again.root)
    assert done.returncode == 0, done.stderr
    assert strict_json(done.stdout)["metrics"]["n"] == 32


def test_what_was_predicted_once_is_not_computed_again(again, others, monkeypatch):
    words = ("predict", others, "--csv", "--model", "logistic-max", "-w", again.root)
    first = vggft(*words)
    digests = [durable.sha256(path) for path in others.rglob("*.png")]
    assert again.cache().missing([again.architecture.top], digests) == []
    shutil.copytree(others, others.parent / "moved")
    shutil.rmtree(others / "bugs")
    monkeypatch.setattr(inference, "start_engine", None)
    for folder in (others, others.parent / "moved"):
        second = vggft("predict", folder, *words[2:])
        assert rows(second) == {
            path: row
            for path, row in ((p.replace(str(others), str(folder)), r) for p, r in rows(first).items())
            if folder != others or "bugs" not in path
        }
    verified = strict_json(vggft("cache", "verify", "--json", "-w", again.root).stdout)
    assert verified["ok"]
    pruned = strict_json(vggft("cache", "prune", "--yes", "--json", "-w", again.root).stdout)
    assert pruned["rows"] >= 6  # other tests may have predicted other images in the workspace that this is a copy of
    assert len(again.cache().missing([again.architecture.top], digests)) == 6
    assert again.cache().missing([again.architecture.top], [s.digest for s in again.dataset.accepted()]) == []


def test_features_that_cannot_be_kept(again, others, monkeypatch):
    """While another command writes, or once there are many: the predictions are the same, and a warning says why."""
    words = ("predict", others, "--csv", "--model", "logistic-max", "-w", again.root)
    with filelock.FileLock(again.root / "lock"):
        locked = vggft(*words)
        waiting = Workspace(again.root, TINY, waiting=pytest.fail)  # as that of `evaluate` would
        scorer = feature_scorer.FeatureScorer(
            lambda rows: rows, waiting, [TINY.top], lambda: StandIn(TINY), waiting.cache
        )
        scorer(np.zeros((1, 32, 32, 3), np.uint8), ["ab" * 32])
        scorer.close()
    busy = "are not kept: another vggft process is writing there"
    assert f"warning: features of 6 predicted images {busy}" in locked.stderr
    assert busy in scorer.note
    (again.cache_folder / "workspaces.txt").write_text(f"{again.root}\n")
    with filelock.FileLock(again.cache_folder / "lock"):
        assert busy in vggft(*words).stderr
    monkeypatch.setattr(feature_scorer, "MOST_KEPT", 10)
    full = vggft(*words)
    assert "not kept: those of predicted images take" in full.stderr
    assert "vggft cache prune" in full.stderr
    monkeypatch.undo()
    assert rows(locked) == rows(full) == rows(vggft(*words))


def test_damaged_features_are_computed_from_the_files(again, trained):
    words = ("predict", trained[1], "--csv", "--model", "logistic-max", "-w", again.root)
    expected = rows(vggft(*words))
    again.cache().save_index()
    for shard in again.cache_folder.glob("*/shards/*.h5"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        stamp = shard.stat()
        shard.write_bytes(data)
        os.utime(shard, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as the index has it
    done = vggft(*words)
    found = rows(done)
    assert "some features were computed again: " in done.stderr
    assert found.keys() == expected.keys()
    assert np.allclose([float(found[p][1]) for p in found], [float(expected[p][1]) for p in found], atol=1e-3)


@pytest.fixture
def forbidden(monkeypatch):
    """Make folders that cannot be listed, also for the administrator."""
    places, scandir, listdir = set(), os.scandir, os.listdir

    def refuse_or(call):
        def called(folder="."):
            if os.fspath(folder) in places:
                raise PermissionError(13, "Permission denied", os.fspath(folder))
            return call(folder)

        return called

    monkeypatch.setattr(os, "scandir", refuse_or(scandir))
    monkeypatch.setattr(os, "listdir", refuse_or(listdir))
    return lambda place: places.add(os.fspath(place))


def test_a_cache_that_cannot_be_read_does_not_reject_pictures(again, trained, forbidden):
    folder = again.cache().shards
    words = ("predict", trained[1] / "birds", "--csv", "--model", "logistic-max", "-w", again.root)
    expected = rows(vggft(*words))
    forbidden(folder)
    done = vggft(*words)
    found = rows(done)
    assert {path: label for path, (label, _) in found.items()} == {path: label for path, (label, _) in expected.items()}
    assert f"the cache cannot be read ({folder}: Permission denied)" in done.stderr
    assert "rejected" not in done.stderr


@pytest.mark.parametrize("place", ["heads", "finetune"])
def test_models_that_cannot_be_listed_are_no_reason_to_take_another(again, trained, forbidden, place):
    forbidden(again.root / place)
    message = refused("predict", trained[1], "-w", again.root)
    assert f"{again.root / place}: cannot be read (Permission denied). Fix its permissions." in message


def test_a_cache_folder_that_cannot_be_listed_is_not_an_empty_one(again, forbidden):
    forbidden(again.cache_folder)
    assert "Fix its permissions." in refused("cache", "info", "-w", again.root)
