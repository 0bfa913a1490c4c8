"""One writer, many readers."""

import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import refused, strict_json, vggft, vggft_apart
from small_cache import featurize, files, layers, same, verify

from featurize.backbone.vgg16 import VGG16
from vggft.workspace.workspace import Workspace

HOLD = """
import sys
from pathlib import Path
from vggft.workspace.workspace import Workspace
with Workspace(Path(sys.argv[1]), VGG16).writing():
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

    with (
        pytest.raises(VggftError, match=r"cannot be written or locked.*flock"),
        Workspace(base / "work", VGG16).writing(),
    ):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="flock")
def test_where_hdf5s_own_lock_is_refused(base):
    import fcntl

    held = [path.open("rb") for path in files(base)]
    for file in held:
        fcntl.flock(file, fcntl.LOCK_EX)
    done = vggft_apart("featurize", base / "data", "-w", base / "work", "--json", env={"HDF5_USE_FILE_LOCKING": "TRUE"})
    found = strict_json(done.stdout)
    assert (found["computed"], found["reused"], found["damaged_files"]) == (0, 12, 0)
    for file in held:
        file.close()


def test_a_reader_goes_on_after_prune(base, in_shards):
    workspace = Workspace(base / "work", VGG16)
    reader, digests = workspace.cache(), sorted({s.digest for s in workspace.dataset.accepted()})
    gone = sorted((base / "data").rglob("*.png"))[::4]
    for path in gone:
        path.unlink()
    featurize(base)
    assert vggft("cache", "prune", "--yes", "-w", base / "work").returncode == 0
    kept = {s.digest for s in Workspace(base / "work", VGG16).dataset.accepted()}
    at = [i for i, digest in enumerate(digests) if digest in kept]
    assert np.array_equal(reader.read("block5_pool", [digests[i] for i in at]), in_shards[1]["block5_pool"][at])
