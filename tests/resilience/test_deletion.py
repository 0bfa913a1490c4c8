"""Nothing is deleted, moved or overwritten that vggft cannot prove to be its own."""

import contextlib
import json
import os
import shutil
import time

import numpy as np
import pytest
from conftest import drawings, make_classes, refused, rewrite, snapshot, strict_json, vggft
from small_cache import TWO, featurize, files, layers, same, verify
from tiny import TINY

from featurize.cache import shards, upkeep
from featurize.cache.fingerprint import Fingerprint
from featurize.disk import durable
from featurize.disk.digests import pack
from vggft.comparison import fold_files
from vggft.workspace.workspace import Workspace


def prune(base):
    done = vggft("cache", "prune", "--yes", "-w", base / "work", "--json")
    assert done.returncode == 0, done.stderr
    return {**strict_json(done.stdout), "said": done.stderr}


def test_prune_leaves_what_a_person_keeps_in_the_cache(base, in_shards):
    work = base / "work"
    kept = make_classes(work / "cache" / "cars", damaged=2, whole=2)
    unproven = make_classes(work / "cache" / "0123456789abcdef", damaged=1, shards=1)
    featurize(base, "--preprocess", "raw")
    stale = Workspace(work, TINY).cache_folder / Fingerprint.of(TINY).key
    notes = [stale / "notes.txt", stale / "shards" / "notes.txt", stale / "shards" / ("0" * 64 + ".h5")]
    for path in notes:
        path.write_text("mine")
    (stale / "linked").symlink_to(base / "data")
    before = {folder: snapshot(folder) for folder in (kept, unproven, base / "data")}
    assert stale.name in str(prune(base)["folders"])
    assert {folder: snapshot(folder) for folder in before} == before
    assert [path.read_text() for path in notes] == ["mine"] * 3
    assert (stale / "linked").is_symlink()
    assert sorted(p.name for p in (stale / "shards").iterdir()) == sorted(p.name for p in notes[1:])
    for path in (*notes, stale / "linked"):
        path.unlink()
    prune(base)
    assert not stale.exists()
    assert verify(base)["ok"] is False  # the folder without a fingerprint is named, and left alone
    assert snapshot(unproven) == before[unproven]


def test_prune_of_damaged_files_leaves_other_files(base, in_shards):
    files(base)[0].write_bytes(b"damaged")
    featurize(base)
    aside = next((base / "work" / "cache").glob("*/damaged"))
    (aside / "photo.jpg").write_text("mine")
    assert str(aside / "photo.jpg") in prune(base)["said"]
    assert [path.name for path in aside.iterdir()] == ["photo.jpg"]
    assert prune(base)["folders"] == []


def test_prune_refuses_where_the_settled_features_are_not_there(base, in_shards):
    settings = base / "work" / "workspace.json"
    about = json.loads(settings.read_text())
    digest = about["fingerprint"]["weights"]
    about["fingerprint"]["weights"] = ("0" if digest[0] != "0" else "1") + digest[1:]
    rewrite(settings, about)
    before = snapshot(base / "work" / "cache")
    assert "Nothing was deleted" in refused("cache", "prune", "--yes", "-w", base / "work")
    assert snapshot(base / "work" / "cache") == before


def test_the_bytes_of_a_shard_do_not_depend_on_the_time(tmp_path):
    digests = pack(["ab" * 32, "cd" * 32])
    features = {"block3_pool": np.arange(2 * 3 * 3 * 4, dtype=np.float16).reshape(2, 3, 3, 4)}
    first = shards.write(tmp_path, digests, features, {"fingerprint": "x"})
    time.sleep(1.1)  # HDF5's timestamps are whole seconds
    assert shards.write(tmp_path, digests, features, {"fingerprint": "x"}) == first
    assert shards.is_shard(shards.path(tmp_path, first))


@pytest.mark.parametrize("wait", [0, 1.1])
def test_an_interrupted_prune_loses_no_row_in_the_next_one(base, in_shards, wait, monkeypatch):
    gone = sorted((base / "data").rglob("*.png"))[::4]
    for path in gone:
        path.unlink()
    featurize(base)
    rows = layers(base)
    workspace = Workspace(base / "work", TINY)
    wanted = [sample.digest for sample in workspace.dataset.accepted()]

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    # Stopped between the new files and the new index.
    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr("featurize.cache.feature_cache.FeatureCache.forget", killed)
        cache = workspace.cache()
        upkeep.drop(cache, upkeep.surplus(cache, wanted), lambda done, total: None)
    time.sleep(wait)
    for _ in range(2):
        prune(base)
        assert workspace.cache().missing(TWO, wanted) == []
    assert same(layers(base), rows)
    assert featurize(base)["computed"] == 0


def test_workspace_and_data_may_not_overlap(tmp_path, monkeypatch):
    data = make_classes(tmp_path / "home" / "data", cats=3, dogs=3)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "link").symlink_to(data)
    elsewhere = make_classes(tmp_path / "elsewhere" / "work" / "cache" / "cars", damaged=3, whole=3)
    (data / "linked").symlink_to(elsewhere / "whole")
    before = snapshot(tmp_path)
    for pictures, work in (
        (data, data / "work"),
        (tmp_path / "link", data / "work"),
        ("~/data", data / "work"),
        (data, "~/data/cats"),
        (data, tmp_path / "home"),
        (data, data),
        (elsewhere, tmp_path / "elsewhere" / "work"),
        (data, elsewhere / "whole"),  # reached through a class folder that is a link
    ):
        assert "overlap" in refused("featurize", pictures, "-w", work)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", ["lock", "cache", "heads", "finetune", "report"])
def test_links_in_the_workspace_are_not_followed(tmp_path, name):
    data = drawings(tmp_path / "data", 2, "bugs", "fruit")
    target = tmp_path / "theirs"
    if name == "lock":
        target.write_text("mine")
    else:
        make_classes(target, damaged=1)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / name).symlink_to(target)
    before = snapshot(tmp_path)
    assert "is a link" in refused("featurize", data, "-w", tmp_path / "work")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("linked", [True, False])
def test_lock_txt_of_somebody_else_is_left_alone(tmp_path, linked):
    theirs = tmp_path / "theirs.txt"
    theirs.write_text("mine")
    workspace = Workspace(tmp_path / "work", TINY)
    with workspace.writing(new=True):
        assert str(os.getpid()) in (workspace.root / "lock.txt").read_text()
    text = workspace.root / "lock.txt"
    assert not os.path.lexists(text)
    if linked:
        text.symlink_to(theirs)
    else:
        text.write_text("mine")
    with workspace.writing(new=True):
        pass
    assert text.is_symlink() == linked
    assert text.read_text() == theirs.read_text() == "mine"
    text.unlink()
    text.write_text("process 1 on here\n")  # of a killed process
    with workspace.writing(new=True):
        pass
    assert not text.exists()


@pytest.mark.parametrize(
    "name",
    [
        "manifest.csv",
        "splits.csv",
        "checksums.json",
        "lock",
        "heads/leaderboard.csv",
        "finetune/a.py",
        "report/pairs.csv",
    ],
)
def test_a_new_workspace_replaces_no_file_of_somebody_else(copied, name):
    path = copied / "project" / name
    path.parent.mkdir(parents=True)
    path.write_text('{"a": ["b"]}' if name.endswith("json") else "id,path\n1,x\n")
    before = snapshot(copied)
    assert "or choose another --workspace" in refused("featurize", copied / "data", "-w", path.parents[name.count("/")])
    assert snapshot(copied) == before


def test_files_of_an_interrupted_featurize_are_taken_over(copied):
    work = copied / "work"
    (work / "notes.txt").write_text("mine")
    assert vggft("featurize", copied / "data", "-w", work).returncode == 0
    for missing in (("workspace.json",), ("checksums.json", "workspace.json"), ("workspace.json", "manifest.csv")):
        for name in missing:
            (work / name).unlink()
        done = vggft("featurize", copied / "data", "-w", work, "--json")
        assert (done.returncode, strict_json(done.stdout)["computed"]) == (0, 0), done.stderr
    assert (work / "notes.txt").read_text() == "mine"


def test_training_replaces_no_file_of_somebody_else(copied):
    folder = copied / "work" / "heads" / "logistic-max"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    (folder / "predictions.csv").write_text("mine")
    before = snapshot(folder)
    assert "predictions.csv: vggft cannot prove" in refused("head", "--head", "logistic-max", "-w", copied / "work")
    assert snapshot(folder) == before


def test_only_provable_folds_are_removed(tmp_path):
    cv = tmp_path / "cv"
    theirs = [cv / "notes", cv / ("0" * 16), tmp_path / "elsewhere"]
    for folder in theirs:
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    (cv / "linked").symlink_to(tmp_path / "elsewhere")
    ours = cv / fold_files.key("what decides the folds")
    (ours / "fold-1" / "heads" / "max-256").mkdir(parents=True)
    (ours / fold_files.ABOUT).write_text("what decides the folds")
    for name in ("fold-1.npz", "fold-1/lock", "fold-1/heads/leaderboard.csv", "fold-1/heads/max-256/head.json"):
        (ours / name).write_text("")
    mixed = cv / fold_files.key("other folds")
    mixed.mkdir()
    (mixed / fold_files.ABOUT).write_text("other folds")
    (mixed / "notes.txt").write_text("mine")
    fold_files.remove_others(cv, but=cv / "x")
    assert not ours.exists()
    assert [p.name for p in mixed.iterdir()] == ["notes.txt"]
    assert all((folder / "notes.txt").read_text() == "mine" for folder in theirs)
    assert (cv / "linked").is_symlink()


def test_removing_known_files_follows_no_link_and_keeps_the_rest(tmp_path):
    shutil.copytree(make_classes(tmp_path / "theirs", a=1), tmp_path / "copy")
    folder = tmp_path / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "ours.txt").write_text("")
    (folder / "link").symlink_to(tmp_path / "theirs")
    (folder / "link.txt").symlink_to(tmp_path / "theirs" / "a" / "0.png")
    left = durable.remove_known(folder, lambda path: True)
    assert left == [folder / "link", folder / "link.txt"]
    assert not (folder / "inner").exists()
    assert snapshot(tmp_path / "theirs") == snapshot(tmp_path / "copy")
    for path in left:
        path.unlink()
    assert durable.remove_known(folder, lambda path: True) == []
    assert not folder.exists()
