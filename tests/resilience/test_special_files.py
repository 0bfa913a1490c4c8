"""Pipes in place of files: opening one waits for ever, so they are named or passed over instead."""

import os
import signal
from contextlib import contextmanager

import pytest
from conftest import strict_json, vggft

from featurize.disk import durable


@contextmanager
def within(seconds):
    """Fail if the block takes longer, also where it waits inside a system call."""

    def late(number, frame):
        raise AssertionError("a pipe was opened")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def to_pipe(path):
    path.unlink()
    os.mkfifo(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, said in (
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "no", "No such"),
    ):
        for read in (durable.read_bytes, durable.sha256, durable.require_regular):
            with within(5), pytest.raises(OSError, match=said):
                read(path)


@pytest.mark.parametrize("pattern", ["index.h5", "fingerprint.json", "shards/*.h5"])
def test_a_pipe_in_place_of_a_file_of_the_cache(copied, pattern):
    work = copied / "work"
    (path,) = (work / "cache").glob(f"*/{pattern}")
    to_pipe(path)
    with within(60):
        assert vggft("cache", "info", "-w", work).returncode in (0, 1)
        verified = vggft("cache", "verify", "--json", "-w", work)
        assert path.name in verified.stderr
        done = vggft("featurize", copied / "data", "-w", work, "--json")
        assert done.returncode == 0, done.stderr
        assert strict_json(done.stdout)["computed"] == (24 if "shards" in pattern else 0)
        assert vggft("cache", "verify", "-w", work).returncode == 0


@pytest.mark.parametrize("name", ["workspace.json", "manifest.csv", "splits.csv", "checksums.json"])
def test_a_pipe_in_place_of_a_file_of_the_workspace(copied, name):
    work = copied / "work"
    if not (work / name).exists():
        pytest.skip("no such file here")
    to_pipe(work / name)
    with within(60):
        for words in (
            ("cache", "info"),
            ("head", "--epochs", "1", "--head", "max-linear"),
            ("predict", copied / "data"),
        ):
            done = vggft(*words, "-w", work)
            assert done.returncode in (0, 1), done.stderr
            assert "unexpected" not in done.stderr


def test_pipes_among_the_pictures(trained, tmp_path):
    (tmp_path / "in" / "birds").mkdir(parents=True)
    os.mkfifo(tmp_path / "in" / "birds" / "pipe.png")
    os.link(next((trained[1] / "birds").iterdir()), tmp_path / "in" / "birds" / "picture.png")
    with within(60):
        for words in (("predict", tmp_path / "in"), ("predict", tmp_path / "in" / "birds" / "pipe.png")):
            done = vggft(*words, "-w", trained[0].root)
            assert done.returncode == 3
            assert "pipe.png: not a regular file (a pipe, socket or device)" in done.stderr
