"""Damaged cache files: never read, reported by `vggft cache verify`, repaired by the next featurize."""

import hashlib
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import refused, strict_json, vggft
from small_cache import damage, featurize, files, layers, same, shard_with, verify
from tiny import TINY

from featurize.cache import shards, upkeep
from vggft.workspace.workspace import Workspace


@pytest.mark.parametrize(
    "kind", [0.3, "truncated", "deleted", *(pytest.param(k, marks=pytest.mark.slow) for k in (0.0001, 0.999, "empty"))]
)
def test_damage_is_named_and_mended(base, in_shards, kind):
    assert verify(base)["ok"]
    path = files(base)[1]
    rows = len(h5py.File(path)["digest"])
    damage(kind, path)
    found = verify(base)
    assert [Path(f["path"]).name for f in found["damaged"]] == [path.name]
    assert found["damaged"][0]["reason"]
    mended = featurize(base)
    assert (mended["computed"], mended["reused"], mended["damaged_files"]) == (rows, 12 - rows, 1)
    assert path.name in mended["said"]
    assert "computed again" in mended["said"]
    assert verify(base)["ok"]
    assert same(layers(base), in_shards[1])
    again = featurize(base)
    assert (again["computed"], again["damaged_files"]) == (0, 0)


def test_damage_is_mended_without_verify_too_and_never_read(base, in_shards):
    damage(0.5, files(base)[0])
    assert "damaged" in refused("head", "-w", base / "work", "--epochs", "1")
    assert featurize(base)["damaged_files"] == 1
    assert same(layers(base), in_shards[1])


def test_rot_that_leaves_the_time_alone_is_found_by_verify_and_by_rehash(base, in_shards):
    featurize(base)  # a copied cache is read once, and trusted from then on
    for find in (lambda: verify(base), lambda: featurize(base, "--rehash")):
        path = files(base)[0]
        before = path.stat()
        damage(0.5, path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert featurize(base)["damaged_files"] == 0
        find()
        featurize(base)
        assert same(layers(base), in_shards[1])


def test_everything_gone(base, in_shards):
    shutil.rmtree(base / "work" / "cache")
    assert verify(base)["images_without_features"] == 12
    assert featurize(base)["computed"] == 12
    assert same(layers(base), in_shards[1])


def test_a_broken_index_is_no_loss(base, in_shards):
    index = next((base / "work" / "cache").glob("*/index.h5"))
    index.write_bytes(index.read_bytes()[:-7])
    assert [Path(f["path"]).name for f in verify(base)["damaged"]] == ["index.h5"]
    assert featurize(base)["computed"] == 0
    assert verify(base)["ok"]
    assert same(layers(base), in_shards[1])


@pytest.mark.parametrize("kind", [0.5, "deleted"])
def test_lost_layers_are_mended_though_nobody_asked_for_them_this_time(base, kind):
    featurize(base, "--layers", "block1_pool")
    before = layers(base, ["block1_pool"])
    damage(kind, shard_with(base, "block1_pool"))
    assert not verify(base)["ok"]
    assert not verify(base)["ok"]  # looking at it does not make it good
    assert featurize(base)["computed"] == 12
    assert same(layers(base, ["block1_pool"]), before)
    assert verify(base)["ok"]


def test_what_was_lost_comes_back_the_way_it_came_though_a_lower_layer_is_cached(base, in_shards):
    featurize(base, "--layers", "block1_pool")
    path = shard_with(base, "block3_pool")
    rows = len(h5py.File(path)["digest"])
    damage("truncated", path)
    assert featurize(base)["computed"] == rows
    assert same(layers(base), in_shards[1])


def test_verify_asks_for_every_layer_of_the_last_featurize_without_an_index_too(base):
    featurize(base, "--layers", "block1_pool")
    shard_with(base, "block1_pool").unlink()
    next((base / "work" / "cache").glob("*/index.h5")).unlink()
    assert verify(base)["images_without_features"] == 12


def test_verify_beside_a_writer_finds_nothing(base):
    cache = Workspace(base / "work", TINY).cache()
    digest, other = (hashlib.sha256(name).hexdigest() for name in (b"new", b"newer"))
    row = {"block3_pool": np.ones((1, 4, 4, 16), np.float16)}

    def meanwhile(done, total):
        if done == 1:
            cache.write([digest], row, {})
            cache.save_index()
            (old,) = set(cache.positions.shards) - known
            cache.write([other], row, {})
            cache.forget([old])  # as prune does: the index first
            shards.path(cache.shards, old).unlink()

    known = set(cache.positions.shards)
    assert upkeep.verify(cache.folder, cache.fingerprint, TINY, meanwhile) == []
    assert (cache.folder / "index.h5").exists()


def test_what_says_how_features_were_made_is_mended(base):
    next((base / "work" / "cache").glob("*/fingerprint.json")).write_text("garbage")
    assert not verify(base)["ok"]
    assert featurize(base)["computed"] == 0
    assert verify(base)["ok"]


def test_damage_of_features_made_in_another_way_is_prunes_affair(base):
    featurize(base, "--preprocess", "raw", "--layers", "block3_pool")
    damage("truncated", shard_with(base, "block2_pool"))
    done = vggft("cache", "verify", "-w", base / "work")
    assert done.returncode == 1
    assert "vggft cache prune" in done.stdout
    assert "Run vggft featurize" not in done.stdout


def test_what_an_unfinished_first_run_kept_can_be_looked_at(base):
    for name in ("workspace.json", "checksums.json"):
        (base / "work" / name).unlink()
    assert verify(base)["ok"]
    found = strict_json(vggft("cache", "info", "-w", base / "work", "--json").stdout)
    assert [(one["images"], one["in_use"]) for one in found["fingerprints"]] == [(12, False)]
    assert "no data set yet" in refused("head", "-w", base / "work", "--epochs", "1")
    damage(0.5, files(base)[0])
    assert not verify(base)["ok"]


def _linked(file, elsewhere):
    del file["block3_pool"]
    file["block3_pool"] = h5py.ExternalLink(str(elsewhere), "/block3_pool")


def _soft(file, elsewhere):
    del file["block3_pool"]
    file["block3_pool"] = h5py.SoftLink("/block2_pool")


def _outside(file, elsewhere):
    shape = file["block3_pool"].shape
    del file["block3_pool"]
    size = int(np.prod(shape)) * 2
    file.create_dataset("block3_pool", shape, np.float16, external=[(str(elsewhere), 0, size)])


def _virtual(file, elsewhere):
    shape = file["block3_pool"].shape
    del file["block3_pool"]
    layout = h5py.VirtualLayout(shape, np.float16)
    layout[:] = h5py.VirtualSource(str(elsewhere), "block3_pool", shape)
    file.create_virtual_dataset("block3_pool", layout)


def _replaced(change):
    def replace(file, elsewhere):
        rows = file["block3_pool"][...]
        del file["block3_pool"]
        changed = change(rows)
        file.create_dataset("block3_pool", data=changed, chunks=(1, *changed.shape[1:]))

    return replace


def _unwritten(file, elsewhere):
    shape = file["block3_pool"].shape
    del file["block3_pool"]
    file.create_dataset("block3_pool", shape, np.float16, chunks=(1, *shape[1:]))


def _huge(file, elsewhere):
    del file["digest"], file["block3_pool"]
    file.create_dataset("digest", (2**40, 32), np.uint8)
    file.create_dataset("block3_pool", (2**40, 4, 4, 16), np.float16, chunks=(1, 4, 4, 16))


def _other_layer(file, elsewhere):
    file.move("block3_pool", "block9_pool")


def _source(file, elsewhere):
    file.attrs["computed_from"] = "block9_pool"


FORGERIES = {
    "external link": _linked,
    "soft link": _soft,
    "external storage": _outside,
    "virtual": _virtual,
    "fewer rows": _replaced(lambda rows: rows[:-1]),
    "smaller": _replaced(lambda rows: rows[:, :2]),
    "float32": _replaced(lambda rows: rows.astype(np.float32)),
    "unwritten rows": _unwritten,
    "larger than memory": _huge,
    "unknown layer": _other_layer,
    "unknown source": _source,
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_shard_with_the_right_hash_and_the_wrong_contents_is_damaged(base, in_shards, kind):
    path = files(base)[0]
    shutil.copy(path, base / "elsewhere.h5")
    with h5py.File(path, "r+") as file:
        FORGERIES[kind](file, base / "elsewhere.h5")
    forged = path.with_name(f"{hashlib.sha256(path.read_bytes()).hexdigest()}.h5")
    path.rename(forged)
    assert forged.name in {Path(finding["path"]).name for finding in verify(base)["damaged"]}
    repaired = featurize(base)
    assert forged.name in repaired["said"]
    assert repaired["computed"] > 0
    assert verify(base)["ok"]
    assert same(layers(base), in_shards[1])


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", '{"size": NaN}', '{"weights": 1, "size": 32}'])
def test_settings_of_features_that_are_no_settings_are_named(base, content):
    next((base / "work" / "cache").glob("*/fingerprint.json")).write_text(content)
    assert not verify(base)["ok"]
    assert vggft("cache", "info", "-w", base / "work").returncode == 0
    assert featurize(base)["computed"] == 0
    assert verify(base)["ok"]
