"""Signals and kills sent to real processes during featurize."""

import random
import shutil
import signal
import time

import numpy as np
import pytest
from conftest import drawings, shards, strict_json, vggft, wait_for_shards
from processes import start
from tiny import TINY

from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import Fingerprint
from vggft.workspace.workspace import Workspace


@pytest.mark.slow
def test_interrupted_by_a_person(tmp_path):
    data = drawings(tmp_path / "data", 12, "birds", "bugs", "flowers", "fruit")
    process = start("featurize", data, "-w", tmp_path / "work", "--shard", "8", "--json")
    wait_for_shards(tmp_path / "work", 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "kept" in err
    assert "Traceback" not in err
    assert "error" in strict_json(out)
    kept = shards(tmp_path / "work")
    found = strict_json(vggft("featurize", data, "-w", tmp_path / "work", "--json").stdout)
    assert found["computed"] + found["reused"] == 48
    assert found["reused"] >= 8
    assert kept.items() <= shards(tmp_path / "work").items()


def same_rows(cache, undisturbed) -> int:
    """See that all that a cache holds is, bit for bit, what the undisturbed one holds; return how many images it has."""
    digests = sorted({s.digest for s in undisturbed.dataset.accepted()})
    counts = []
    for layer in ("block2_pool", "block3_pool"):
        held = sorted(set(digests) - set(cache.missing([layer], digests)))
        counts.append(len(held))
        assert not held or np.array_equal(cache.read(layer, held), undisturbed.cache().read(layer, held))
    assert counts[0] == counts[1]
    return counts[0]


def kill_at_random(tmp_path, data, kills, rng):
    """Kill -9 `kills` times, now while it starts, now while it computes or writes; look at the cache each time."""
    assert vggft("featurize", data, "-w", tmp_path / "undisturbed").returncode == 0
    undisturbed = Workspace(tmp_path / "undisturbed", TINY)
    number = len({s.digest for s in undisturbed.dataset.accepted()})
    work = tmp_path / "killed"
    for _ in range(kills):
        before = shards(work)
        process = start("featurize", data, "-w", work, "--shard", "4", "--json")
        if rng.random() < 0.2:
            time.sleep(rng.random() * 0.5)
        else:
            wait_for_shards(work, len(before) + 1, process)
            time.sleep(rng.random() * 0.3)
        assert process.poll() is None
        process.kill()
        process.communicate()
        assert before.items() <= shards(work).items()
        if same_rows(FeatureCache(work / "cache", Fingerprint.of(TINY), TINY), undisturbed) > number - 32:
            shutil.rmtree(work)  # nearly done: from the beginning again
    done = vggft("featurize", data, "-w", work, "--shard", "8", "--json")
    assert done.returncode == 0, done.stderr
    assert Workspace(work, TINY).dataset.identity == undisturbed.dataset.identity
    assert same_rows(Workspace(work, TINY).cache(), undisturbed) == number


def test_killed_and_run_again(tmp_path):
    kill_at_random(tmp_path, drawings(tmp_path / "data", 24, "bugs", "flowers"), 2, random.Random(0))


@pytest.mark.slow
def test_killed_twelve_times(tmp_path):
    data = drawings(tmp_path / "data", 33, *("birds", "bugs", "flowers", "fruit"))
    kill_at_random(tmp_path, data, 12, random.Random(1))
