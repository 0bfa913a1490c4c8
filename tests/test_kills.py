"""Real interrupts and real kills of real processes, in the middle of featurize."""

import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import drawings, strict_json, vggft

from vggft.workspace import Workspace


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "vggft", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shards(work) -> dict:
    return {p.name: p.read_bytes() for p in (work / "cache").glob("*/shards/*.h5")}


def wait_for_shards(work, number, process):
    deadline = time.monotonic() + 120
    while len(list((work / "cache").glob("*/shards/[0-9a-f]*.h5"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_interrupted_by_a_person(tmp_path):
    data = drawings(tmp_path / "data", 24, "bugs", "flowers")
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


def kill_at_random(tmp_path, data, kills, rng):
    """Kill -9 `kills` times at random moments, then finish; return what the undisturbed and the killed cache hold."""
    work = tmp_path / "killed"
    for _ in range(kills):
        before = shards(work)
        process = start("featurize", data, "-w", work, "--shard", "8", "--json")
        with_shards = len(before) + 1
        if len(before) < 4 and rng.random() < 0.7:
            wait_for_shards(work, with_shards, process)
        time.sleep(rng.random() * 1.5)
        process.kill()
        process.communicate()
        after = shards(work)
        assert before.items() <= after.items()
    done = vggft("featurize", data, "-w", work, "--shard", "8", "--json")
    assert done.returncode == 0, done.stderr
    assert vggft("featurize", data, "-w", tmp_path / "undisturbed", "--shard", "8").returncode == 0
    killed, undisturbed = Workspace(work), Workspace(tmp_path / "undisturbed")
    assert killed.dataset.identity == undisturbed.dataset.identity
    digests = sorted({s.digest for s in undisturbed.dataset.accepted()})
    for layer in ("block4_pool", "block5_pool"):
        assert np.array_equal(killed.cache().read(layer, digests), undisturbed.cache().read(layer, digests))


def test_killed_and_run_again(tmp_path):
    kill_at_random(tmp_path, drawings(tmp_path / "data", 20, "bugs", "flowers"), 2, random.Random(0))


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    kill_at_random(
        tmp_path, drawings(tmp_path / "data", 33, *("birds", "bugs", "flowers", "fruit")), 20, random.Random(1)
    )
