"""`vggft cache`: info, prune and export; layers computed from cached ones; disk space."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import PICTURES, refused, snapshot, strict_json, vggft
from small_cache import TWO, damage, featurize, files, layers, same, verify
from tiny import TINY

from featurize.cache import shards
from featurize.disk.digests import unpack
from vggft.steps.options import FeaturizeOptions
from vggft.workspace.workspace import Workspace


def test_a_layer_asked_for_later_comes_from_the_deepest_cached_one(base, in_shards):
    before = {p.name: p.read_bytes() for p in files(base)}
    for path in (base / "data").rglob("*.png"):  # cached layers are enough: the pictures are not opened
        path.chmod(0o644)
    done = featurize(base, "--layers", "block3_conv1", "--layers", "block3_conv2")
    assert (done["computed"], done["reused"]) == (12, 0)
    assert "block3_conv1 and block3_conv2 of 12 images from cached block2_pool" in done["said"]
    done = featurize(base, "--layers", "block1_pool")
    assert "block1_pool of 12 images on" in done["said"]
    made = {}
    for path in files(base):
        with h5py.File(path) as file:
            made |= dict.fromkeys(shards.layers_of(file), file.attrs["computed_from"])
    assert made == {
        "block1_pool": "pixels",
        "block2_pool": "pixels",
        "block3_conv1": "block2_pool",
        "block3_conv2": "block2_pool",
        "block3_pool": "pixels",
    }
    assert before.items() <= {p.name: p.read_bytes() for p in files(base)}.items()
    later = layers(base, ("block3_conv1", "block3_conv2"))
    shutil.rmtree(base / "work" / "cache")
    featurize(base, "--layers", "block3_conv1", "--layers", "block3_conv2")
    for name, from_pixels in layers(base, ("block3_conv1", "block3_conv2")).items():
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
    top = sound["layers"]["block3_pool"]
    assert (top["rows"], top["raw_bytes"]) == (12, 12 * 4 * 4 * 16 * 2)
    assert top["ratio"] == top["raw_bytes"] / top["bytes"] > 0
    own = [p for p in files(base) if p.parent.parent == Path(sound["folder"])]
    assert (sound["files"], sound["bytes"]) == (len(own), sum(p.stat().st_size for p in own))
    shown = vggft("cache", "info", "-w", base / "work").stdout
    assert all(word in shown for word in ("stale", "in use", "block2_pool", "schema version 1", "ratio"))


def shard_in_use(base):
    folder = Workspace(base / "work", TINY).cache().folder
    return next(path for path in files(base) if path.is_relative_to(folder))


def test_prune(base, in_shards):
    featurize(base, "--preprocess", "raw")
    featurize(base, "--preprocess", "caffe")
    damage("truncated", shard_in_use(base))
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
    held = [d for p in files(base) for d in unpack(shards.digests_of(h5py.File(p)))]
    assert sorted(held) == sorted({s.digest for s in Workspace(base / "work", TINY).dataset.accepted()})
    assert same(layers(base), rows)
    assert verify(base)["ok"]
    assert featurize(base)["computed"] == 0
    again = strict_json(vggft("cache", "prune", "-w", base / "work", "--json").stdout)
    assert (again["rows"], again["folders"]) == (0, [])


def test_export(base, in_shards):
    file = base / "out.h5"
    (base / "data" / "bugs" / "text.png").write_text("no picture")
    featurize(base)
    featurize(base, "--layers", "block1_pool")
    sample = next(s for s in Workspace(base / "work", TINY).dataset.accepted() if s.label == "bugs")
    shutil.copy(sorted((PICTURES / "fruit").iterdir())[0], base / "data" / "flowers")
    featurize(base)
    done = vggft("cache", "export", file, "-w", base / "work", "--json")
    assert strict_json(done.stdout)["layers"] == TWO
    assert "block1_pool" in done.stderr  # left out: the new image has none
    read = (
        "import sys, h5py, json; sys.modules['hdf5plugin'] = None; f = h5py.File(sys.argv[1]); "
        "print(json.dumps([f['path'].asstr()[...].tolist(), f['label'][...].tolist(), f['split'].asstr()[...].tolist(), "
        "f['classes'].asstr()[...].tolist(), f['digest'].asstr()[...].tolist(), list(f['features']['block3_pool'].shape), "
        "str(f['features']['block3_pool'].dtype), float(f['features']['block3_pool'][...].sum(dtype='f8'))]))"
    )
    plain = subprocess.run([sys.executable, "-c", read, str(file)], capture_output=True, text=True, check=True)
    paths, labels, splits, classes, digests, shape, dtype, total = json.loads(plain.stdout)
    accepted = Workspace(base / "work", TINY).dataset.accepted()
    assert classes == ["bugs", "flowers"]
    assert [(p, classes[n], s, d) for p, n, s, d in zip(paths, labels, splits, digests, strict=True)] == [
        (s.path, s.label, s.split, s.digest) for s in accepted
    ]
    assert sample.path in paths
    assert (shape, dtype) == ([13, 4, 4, 16], "float16")
    expected = Workspace(base / "work", TINY).cache().read("block3_pool", digests)
    assert total == expected.sum(dtype="f8")
    with h5py.File(file) as out:
        assert np.array_equal(out["features/block3_pool"][...], expected)
    before = file.read_bytes()
    assert "the file exists" in refused("cache", "export", file, "-w", base / "work")
    assert file.read_bytes() == before
    assert "no such folder" in refused("cache", "export", base / "none" / "x.h5", "-w", base / "work")


@pytest.mark.parametrize("command", ["info", "verify", "prune", "export"])
def test_without_a_workspace(tmp_path, command):
    arguments = [tmp_path / "x.h5"] if command == "export" else []
    assert "vggft featurize" in refused("cache", command, *arguments, "-w", tmp_path / "none")
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_refused_before_anything_is_written(base, monkeypatch, ui):
    from collections import namedtuple

    from featurize.cache import estimate
    from featurize.errors import VggftError
    from vggft.steps import featurize as stage

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda path: usage(10**9, 10**9 - 3_000, 3_000))
    with pytest.raises(VggftError, match=r"12 images: 3\.0 kB free, about \d+ kB needed"):
        stage.run(Workspace(base / "new", TINY), FeaturizeOptions(base / "data"), ui)
    assert not (base / "new").exists()
    before = snapshot(base / "work")
    stage.run(Workspace(base / "work", TINY), FeaturizeOptions(base / "data"), ui)  # nothing to compute needs no room
    assert snapshot(base / "work").keys() - {"lock"} == before.keys() - {"lock"}


def test_prune_says_what_it_does_not_know_of(base):
    featurize(base)
    next((base / "data" / "bugs").iterdir()).unlink()
    done = vggft("cache", "prune", "--yes", "-w", base / "work")
    assert "1 file missing since the last featurize" in done.stderr
    assert len(Workspace(base / "work", TINY).dataset.accepted()) == 12
