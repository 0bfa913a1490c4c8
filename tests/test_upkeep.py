"""`vggft cache` and the cache as a person meets it: damage found and mended, layers from cached ones, two writers at once."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import PICTURES, refused, snapshot, strict_json, vggft

from featurize import shards, upkeep
from vggft.workspace import Workspace

TWO = ["block4_pool", "block5_pool"]


@pytest.fixture(scope="module")
def in_shards(tmp_path_factory):
    """12 drawings in shards of 5 rows at most, and the layers as they were computed."""
    from conftest import drawings

    base = tmp_path_factory.mktemp("upkeep")
    drawings(base / "data", 6, "bugs", "flowers")
    done = featurize(base, "--shard", "5")
    assert done["computed"] == 12
    return base, layers(base)


@pytest.fixture
def base(in_shards, tmp_path):
    shutil.copytree(in_shards[0], tmp_path / "base")
    return tmp_path / "base"


def featurize(base, *arguments):
    done = vggft("featurize", base / "data", "-w", base / "work", "--json", *arguments)
    assert done.returncode in (0, 3), done.stderr
    return {**strict_json(done.stdout), "said": done.stderr}


def verify(base):
    done = vggft("cache", "verify", "-w", base / "work", "--json")
    found = strict_json(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    return found


def layers(base, names=tuple(TWO)):
    workspace = Workspace(base / "work")
    digests = sorted({s.digest for s in workspace.dataset.accepted()})
    return {name: workspace.cache().read(name, digests) for name in names}


def files(base):
    return sorted((base / "work" / "cache").glob("*/shards/*.h5"))


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def damage(kind, path: Path) -> None:
    if kind == "deleted":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        data = bytearray(path.read_bytes())
        data[int(kind * len(data))] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("kind", [0.0001, 0.3, 0.999, "truncated", "empty", "deleted"])
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


def test_a_layer_asked_for_later_comes_from_the_deepest_cached_one(base, in_shards):
    before = {p.name: p.read_bytes() for p in files(base)}
    for path in (base / "data").rglob("*.png"):  # cached layers are enough: the pictures are not opened
        path.chmod(0o644)
    done = featurize(base, "--layers", "block5_conv1", "--layers", "block5_conv3")
    assert (done["computed"], done["reused"]) == (12, 0)
    assert "block5_conv1 and block5_conv3 of 12 images from cached block4_pool" in done["said"]
    done = featurize(base, "--layers", "block3_pool")
    assert "block3_pool of 12 images on" in done["said"]
    made = {}
    for path in files(base):
        with h5py.File(path) as file:
            made |= dict.fromkeys(shards.layers_of(file), file.attrs["computed_from"])
    assert made == {
        "block3_pool": "pixels",
        "block4_pool": "pixels",
        "block5_conv1": "block4_pool",
        "block5_conv3": "block4_pool",
        "block5_pool": "pixels",
    }
    assert before.items() <= {p.name: p.read_bytes() for p in files(base)}.items()
    later = layers(base, ("block5_conv1", "block5_conv3"))
    shutil.rmtree(base / "work" / "cache")
    featurize(base, "--layers", "block5_conv1", "--layers", "block5_conv3")
    for name, from_pixels in layers(base, ("block5_conv1", "block5_conv3")).items():
        found, expected = (x.reshape(12, -1).astype(np.float64) for x in (later[name], from_pixels))
        assert (np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)).max() <= 2e-3


def test_info(base):
    featurize(base, "--preprocess", "raw")
    damage("truncated", files(base)[0])
    done = vggft("cache", "info", "-w", base / "work", "--json")
    found = {one["fingerprint"]["preprocess"]: one for one in strict_json(done.stdout)["fingerprints"]}
    assert {p: one["in_use"] for p, one in found.items()} == {"caffe": False, "raw": True}
    assert sum(one["damaged"] for one in found.values()) == 1
    sound = next(one for one in found.values() if not one["damaged"])
    assert sound["images"] == 12
    assert sound["layers"].keys() == set(TWO)
    top = sound["layers"]["block5_pool"]
    assert (top["rows"], top["raw_bytes"]) == (12, 12 * 7 * 7 * 512 * 2)
    assert 2 < top["ratio"] == top["raw_bytes"] / top["bytes"]
    own = [p for p in files(base) if p.parent.parent == Path(sound["folder"])]
    assert (sound["files"], sound["bytes"]) == (len(own), sum(p.stat().st_size for p in own))
    shown = vggft("cache", "info", "-w", base / "work").stdout
    assert all(word in shown for word in ("stale", "in use", "block4_pool", "schema version 1", "ratio"))


def test_prune(base, in_shards):
    featurize(base, "--preprocess", "raw")
    featurize(base, "--preprocess", "caffe")
    damage("truncated", files(base)[0])
    featurize(base)
    gone = sorted((base / "data").rglob("*.png"))[::4]
    for path in gone:
        path.unlink()
    featurize(base)
    before = snapshot(base / "work")
    assert "--yes" in refused("cache", "prune", "-w", base / "work")
    assert snapshot(base / "work") == before
    rows = layers(base)
    done = strict_json(vggft("cache", "prune", "--yes", "-w", base / "work", "--json").stdout)
    assert done["removed"]
    assert done["rows"] == len(gone) == 3
    assert done["bytes_freed"] > 0
    assert len(list((base / "work" / "cache").iterdir())) == 1
    assert not list((base / "work" / "cache").glob("*/damaged"))
    held = [d for p in files(base) for d in shards.unpack(shards.digests_of(h5py.File(p)))]
    assert sorted(held) == sorted({s.digest for s in Workspace(base / "work").dataset.accepted()})
    assert same(layers(base), rows)
    assert verify(base)["ok"]
    assert featurize(base)["computed"] == 0
    again = strict_json(vggft("cache", "prune", "-w", base / "work", "--json").stdout)
    assert (again["rows"], again["folders"]) == (0, [])


def test_a_reader_goes_on_after_prune(base, in_shards):
    workspace = Workspace(base / "work")
    reader, digests = workspace.cache(), sorted({s.digest for s in workspace.dataset.accepted()})
    gone = sorted((base / "data").rglob("*.png"))[::4]
    for path in gone:
        path.unlink()
    featurize(base)
    assert vggft("cache", "prune", "--yes", "-w", base / "work").returncode == 0
    kept = {s.digest for s in Workspace(base / "work").dataset.accepted()}
    at = [i for i, digest in enumerate(digests) if digest in kept]
    assert np.array_equal(reader.read("block5_pool", [digests[i] for i in at]), in_shards[1]["block5_pool"][at])


def test_export(base, in_shards):
    file = base / "out.h5"
    (base / "data" / "bugs" / "text.png").write_text("no picture")
    featurize(base)
    featurize(base, "--layers", "block3_pool")
    sample = next(s for s in Workspace(base / "work").dataset.accepted() if s.label == "bugs")
    shutil.copy(sorted((PICTURES / "fruit").iterdir())[0], base / "data" / "flowers")
    featurize(base)
    done = vggft("cache", "export", file, "-w", base / "work", "--json")
    assert strict_json(done.stdout)["layers"] == TWO
    assert "block3_pool" in done.stderr  # left out: the new image has none
    read = (
        "import sys, h5py, json; sys.modules['hdf5plugin'] = None; f = h5py.File(sys.argv[1]); "
        "print(json.dumps([f['path'].asstr()[...].tolist(), f['label'][...].tolist(), f['split'].asstr()[...].tolist(), "
        "f['classes'].asstr()[...].tolist(), f['digest'].asstr()[...].tolist(), list(f['features']['block5_pool'].shape), "
        "str(f['features']['block5_pool'].dtype), float(f['features']['block5_pool'][...].sum(dtype='f8'))]))"
    )
    plain = subprocess.run([sys.executable, "-c", read, str(file)], capture_output=True, text=True, check=True)
    paths, labels, splits, classes, digests, shape, dtype, total = json.loads(plain.stdout)
    accepted = Workspace(base / "work").dataset.accepted()
    assert classes == ["bugs", "flowers"]
    assert [(p, classes[n], s, d) for p, n, s, d in zip(paths, labels, splits, digests, strict=True)] == [
        (s.path, s.label, s.split, s.digest) for s in accepted
    ]
    assert sample.path in paths
    assert (shape, dtype) == ([13, 7, 7, 512], "float16")
    expected = Workspace(base / "work").cache().read("block5_pool", digests)
    assert total == expected.sum(dtype="f8")
    with h5py.File(file) as out:
        assert np.array_equal(out["features/block5_pool"][...], expected)
    before = file.read_bytes()
    assert "exists already" in refused("cache", "export", file, "-w", base / "work")
    assert file.read_bytes() == before
    assert "no folder" in refused("cache", "export", base / "none" / "x.h5", "-w", base / "work")


@pytest.mark.parametrize("command", ["info", "verify", "prune", "export"])
def test_without_a_workspace(tmp_path, command):
    arguments = [tmp_path / "x.h5"] if command == "export" else []
    assert "vggft featurize" in refused("cache", command, *arguments, "-w", tmp_path / "none")
    assert not list(tmp_path.iterdir())


HOLD = """
import sys
from pathlib import Path
from vggft.workspace import Workspace
with Workspace(Path(sys.argv[1])).writing():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(base):
    """Another process that holds the lock until its standard input is closed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(base / "work")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "held\n"
    yield holder
    holder.kill()
    holder.wait()


@pytest.mark.parametrize(
    "command", [["featurize", "data"], ["head"], ["finetune"], ["compare"], ["cache", "prune", "--yes"]]
)
def test_a_second_writer_is_refused(base, held, command):
    message = refused(*command, "-w", base / "work", cwd=base)
    assert f"process {held.pid} on {os.uname().nodename}" in message
    assert "--wait" in message


def test_a_second_writer_waits_if_asked_to(base, held):
    waiting = subprocess.Popen(
        [sys.executable, "-m", "vggft", "featurize", base / "data", "-w", base / "work", "--wait", "--json", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert f"waiting: process {held.pid}" in waiting.stderr.readline()
    time.sleep(0.5)
    assert waiting.poll() is None
    held.stdin.close()
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert strict_json(out)["reused"] == 12


def test_a_killed_holder_holds_nothing(base, held):
    held.kill()
    held.wait()
    assert (base / "work" / "lock.txt").exists()
    assert featurize(base)["reused"] == 12


def test_readers_need_no_lock(base, held, in_shards):
    assert same(layers(base), in_shards[1])
    assert verify(base)["ok"]
    assert vggft("cache", "info", "-w", base / "work").returncode == 0


def test_two_at_once_in_a_new_workspace(base):
    shutil.rmtree(base / "work")
    command = [
        sys.executable,
        "-m",
        "vggft",
        "featurize",
        str(base / "data"),
        "-w",
        str(base / "work"),
        "--json",
        "--wait",
    ]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    found = [strict_json(one.communicate(timeout=120)[0]) for one in both]
    assert sorted(one["computed"] for one in found) == [0, 12]
    assert found[0]["splits"] == found[1]["splits"]


def test_a_file_system_without_locks_is_named(base, monkeypatch):
    import filelock

    def refuse(self, *arguments, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    from featurize.errors import VggftError

    with pytest.raises(VggftError, match=r"cannot be written or locked.*flock"), Workspace(base / "work").writing():
        pass


def test_a_disk_without_room_is_refused_before_anything_is_written(base, monkeypatch, ui):
    from collections import namedtuple

    from featurize import estimate
    from featurize.errors import VggftError
    from vggft.commands import featurize as stage

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 300_000, 300_000))
    with pytest.raises(VggftError, match=r"12 images will take about \d+ kB, and 300 kB are free"):
        stage.run(Workspace(base / "new"), base / "data", stage.Options(), ui)
    assert not (base / "new").exists()
    before = snapshot(base / "work")
    stage.run(Workspace(base / "work"), base / "data", stage.Options(), ui)  # nothing to compute needs no room
    assert snapshot(base / "work").keys() - {"lock"} == before.keys() - {"lock"}


def test_estimates_come_near_what_is_written(base, in_shards):
    from featurize import estimate
    from featurize.cache import FeatureCache

    cache = Workspace(base / "work").cache()
    stored = sum(p.stat().st_size for p in files(base))
    assert abs(estimate.bytes_needed(cache, TWO, 12) / stored - 1) < 0.25
    blank = FeatureCache(base / "none", cache.fingerprint)
    assert 0.5 < estimate.bytes_needed(blank, TWO, 12) / stored < 2.5  # drawings compress better than photographs


def shard_with(base, layer):
    return next(path for path in files(base) if layer in h5py.File(path))


@pytest.mark.parametrize("kind", [0.5, "deleted"])
def test_lost_layers_are_mended_though_nobody_asked_for_them_this_time(base, kind):
    featurize(base, "--layers", "block3_pool")
    before = layers(base, ["block3_pool"])
    damage(kind, shard_with(base, "block3_pool"))
    assert not verify(base)["ok"]
    assert not verify(base)["ok"]  # looking at it does not make it good
    assert featurize(base)["computed"] == 12
    assert same(layers(base, ["block3_pool"]), before)
    assert verify(base)["ok"]


def test_what_was_lost_comes_back_the_way_it_came_though_a_lower_layer_is_cached(base, in_shards):
    featurize(base, "--layers", "block3_pool")
    path = shard_with(base, "block5_pool")
    rows = len(h5py.File(path)["digest"])
    damage("truncated", path)
    assert featurize(base)["computed"] == rows
    assert same(layers(base), in_shards[1])


def test_verify_asks_for_every_layer_of_the_last_featurize_without_an_index_too(base):
    featurize(base, "--layers", "block3_pool")
    shard_with(base, "block3_pool").unlink()
    next((base / "work" / "cache").glob("*/index.h5")).unlink()
    assert verify(base)["images_without_features"] == 12


def test_verify_beside_a_writer_finds_nothing(base):
    cache = Workspace(base / "work").cache()
    digest, other = (hashlib.sha256(name).hexdigest() for name in (b"new", b"newer"))
    row = {"block5_pool": np.ones((1, 7, 7, 512), np.float16)}

    def meanwhile(done, total):
        if done == 1:
            cache.write([digest], row, {})
            cache.save_index()
            (old,) = set(cache.positions.shards) - known
            cache.write([other], row, {})
            cache.forget([old])  # as prune does: the index first
            shards.path(cache.shards, old).unlink()

    known = set(cache.positions.shards)
    assert upkeep.verify(cache.folder, cache.fingerprint, meanwhile) == []
    assert (cache.folder / "index.h5").exists()


def test_what_says_how_features_were_made_is_mended(base):
    next((base / "work" / "cache").glob("*/fingerprint.json")).write_text("garbage")
    assert not verify(base)["ok"]
    assert featurize(base)["computed"] == 0
    assert verify(base)["ok"]


def test_damage_of_features_made_in_another_way_is_prunes_affair(base):
    featurize(base, "--preprocess", "raw", "--layers", "block5_pool")
    damage("truncated", shard_with(base, "block4_pool"))
    done = vggft("cache", "verify", "-w", base / "work")
    assert done.returncode == 1
    assert "vggft cache prune" in done.stdout
    assert "Run vggft featurize" not in done.stdout


def test_what_an_unfinished_first_run_kept_can_be_looked_at(base):
    (base / "work" / "workspace.json").unlink()
    assert verify(base)["ok"]
    found = strict_json(vggft("cache", "info", "-w", base / "work", "--json").stdout)
    assert [(one["images"], one["in_use"]) for one in found["fingerprints"]] == [(12, False)]
    assert "has not finished" in refused("head", "-w", base / "work", "--epochs", "1")
    damage(0.5, files(base)[0])
    assert not verify(base)["ok"]


@pytest.mark.skipif(sys.platform != "linux", reason="flock")
def test_where_hdf5s_own_lock_is_refused(base):
    import fcntl

    held = [path.open("rb") for path in files(base)]
    for file in held:
        fcntl.flock(file, fcntl.LOCK_EX)
    done = vggft("featurize", base / "data", "-w", base / "work", "--json", env={"HDF5_USE_FILE_LOCKING": "TRUE"})
    found = strict_json(done.stdout)
    assert (found["computed"], found["reused"], found["damaged_files"]) == (0, 12, 0)
    for file in held:
        file.close()


def test_prune_says_what_it_does_not_know_of(base):
    featurize(base)
    next((base / "data" / "bugs").iterdir()).unlink()
    done = vggft("cache", "prune", "--yes", "-w", base / "work")
    assert "1 files are gone since the last featurize" in done.stderr
    assert len(Workspace(base / "work").dataset.accepted()) == 12
