"""`cache verify --recompute`: what is computed again agrees with the cache, and rows that are wrong are found."""

import shutil

import numpy as np
import pytest
from conftest import refused, strict_json, vggft
from tiny import TINY

from vggft.workspace.workspace import Workspace


def test_rows_computed_again_agree(copied):
    done = vggft("cache", "verify", "--recompute", "7", "-w", copied / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["ok"]) == (0, True)
    again = found["recomputed"]
    assert again["images"] == 7
    assert again["made_by"] == {again["engine"]: 14}  # the same engine here: of both layers
    assert set(again["errors"]) == {"block2_pool", "block3_pool"}
    assert all(0 <= error["median"] <= error["largest"] <= 1e-3 for error in again["errors"].values())
    shown = vggft("cache", "verify", "--recompute", "100", "-w", copied / "work").stdout
    assert "24 images computed again on" in shown


def test_wrong_rows_with_right_checksums_are_found(copied):
    work = Workspace(copied / "work", TINY)
    cache, digests = work.cache(), [sample.digest for sample in work.dataset.accepted()]
    rows = {layer: cache.read(layer, digests) for layer in cache.layers}
    shutil.rmtree(cache.folder)
    rows["block3_pool"][:, ...] = (rows["block3_pool"].astype(np.float32) * 1.01).astype(np.float16)
    work.cache().write(digests, rows, {"engine": "elsewhere", "batch_size": "1"})
    work.cache().save_index()
    done = vggft("cache", "verify", "--recompute", "5", "-w", copied / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["ok"], found["damaged"]) == (1, False, [])
    assert found["recomputed"]["made_by"] == {"elsewhere": 10}
    assert found["recomputed"]["errors"]["block3_pool"]["median"] == pytest.approx(0.0099, abs=1e-3)
    assert found["recomputed"]["errors"]["block2_pool"]["largest"] < 2e-3 == found["recomputed"]["bound"]
    (shard,) = cache.shards.glob("*.h5")
    assert found["recomputed"]["far"] == [str(shard)]
    shard.unlink()
    assert vggft("featurize", copied / "data", "-w", copied / "work").returncode == 0
    assert vggft("cache", "verify", "--recompute", "5", "-w", copied / "work").returncode == 0


def test_no_files_to_compute_again_from(copied):
    vggft("featurize", copied / "data", "-w", copied / "work")
    (copied / "data").rename(copied / "elsewhere")
    done = vggft("cache", "verify", "--recompute", "3", "-w", copied / "work")
    assert done.returncode == 1
    assert "no image could be computed again" in done.stderr
    assert "--recompute -1" in refused("cache", "verify", "--recompute", "-1", "-w", copied / "work")
