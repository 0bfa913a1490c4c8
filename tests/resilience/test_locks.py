"""One writer and many readers at a time."""

import os
import shutil
import sys
import time

import numpy as np
import pytest
from conftest import refused, strict_json, vggft
from processes import Fork, hold_the_lock, start, vggft_apart, wait_until
from small_cache import featurize, files, layers, same, verify
from tiny import TINY

from featurize.cache import sharing
from featurize.errors import VggftError
from vggft.workspace.workspace import Workspace


@pytest.fixture
def held(base, tmp_path):
    """Another process that holds the lock until `release` is called."""
    released = tmp_path / "released"
    holder = Fork(hold_the_lock, base / "work", released)
    holder.release = released.touch
    wait_until(lambda: holder.written()[0] == "held\n", holder)
    yield holder
    holder.kill()
    holder.communicate()


@pytest.mark.parametrize(
    "command", [["featurize", "data"], ["head"], ["finetune"], ["compare"], ["cache", "prune", "--yes"]]
)
def test_a_second_writer_is_refused(base, held, command):
    message = refused(*command, "-w", base / "work", cwd=base)
    assert f"process {held.pid} on {os.uname().nodename}" in message
    assert "--wait" in message


def test_a_second_writer_waits_if_asked_to(base, held):
    waiting = start("featurize", base / "data", "-w", base / "work", "--wait", "--json", "--quiet")
    wait_until(lambda: f"waiting: process {held.pid}" in waiting.written()[1], waiting)
    time.sleep(0.5)
    assert waiting.poll() is None
    held.release()
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert strict_json(out)["reused"] == 12


def test_a_killed_holder_holds_nothing(base, held):
    held.kill()
    held.communicate()
    assert (base / "work" / "lock.txt").exists()
    assert featurize(base)["reused"] == 12


def test_readers_need_no_lock(base, held, in_shards):
    assert same(layers(base), in_shards[1])
    assert verify(base)["ok"]
    assert vggft("cache", "info", "-w", base / "work").returncode == 0


def test_two_at_once_in_a_new_workspace(base):
    shutil.rmtree(base / "work")
    both = [start("featurize", base / "data", "-w", base / "work", "--json", "--wait") for _ in range(2)]
    found = [strict_json(process.communicate(timeout=120)[0]) for process in both]
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
        Workspace(base / "work", TINY).writing(),
    ):
        pass


def test_only_featurize_makes_a_workspace(tmp_path):
    from featurize.errors import VggftError

    with pytest.raises(VggftError, match="no features here yet"), Workspace(tmp_path / "work", TINY).writing():
        pass
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
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
    workspace = Workspace(base / "work", TINY)
    reader, digests = workspace.cache(), sorted({s.digest for s in workspace.dataset.accepted()})
    gone = sorted((base / "data").rglob("*.png"))[::4]
    for path in gone:
        path.unlink()
    featurize(base)
    assert vggft("cache", "prune", "--yes", "-w", base / "work").returncode == 0
    kept = {s.digest for s in Workspace(base / "work", TINY).dataset.accepted()}
    at = [i for i, digest in enumerate(digests) if digest in kept]
    assert np.array_equal(reader.read("block3_pool", [digests[i] for i in at]), in_shards[1]["block3_pool"][at])


def test_a_file_system_without_locks_is_an_error_and_no_wait(base, monkeypatch):
    import fcntl

    def missing(descriptor, operation):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", missing)
    for _ in range(2):  # beside no lock file, and beside an empty one
        with (
            pytest.raises(VggftError, match=r"cannot be written or locked \(Function not implemented\)"),
            Workspace(base / "work", TINY).writing(),
        ):
            pass
        (base / "work" / "lock").touch()
        with pytest.raises(VggftError, match=r"cannot be written or locked \(Function not implemented\)"):
            sharing.join(base / "shared", base / "work", pytest.fail)
