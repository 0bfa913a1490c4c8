"""The command line in processes of its own: fresh interpreters, and forks that need not import TensorFlow again.

A fresh interpreter takes five seconds of a core to import TensorFlow. A fork of a server that imported it, and computed
nothing, starts at once, and is interrupted, stopped and killed like any other process. Fresh interpreters are for tests of
imports, environment variables and standard streams.
"""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["preloaded"])


def vggft_apart(*arguments, cwd=None, env=None, timeout=300) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh interpreter."""
    command = [sys.executable, "-m", "vggft", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Forked:
    """A command in a forked process, with as much of `subprocess.Popen` as the tests use."""

    def __init__(self, *arguments, cwd=None):
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        for path in self._streams:
            path.touch()
        words = ["vggft", *map(str, arguments)]
        self._process = FORKS.Process(target=_run, args=(words, str(cwd or Path.cwd()), *map(str, self._streams)))
        _serve()
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self):
        return self._process.exitcode

    @property
    def said(self) -> str:
        """What it has written to standard error up to now."""
        return self._streams[1].read_text()

    def poll(self):
        return self._process.exitcode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=300):
        """Wait for its end; return all of standard output and standard error."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("vggft", timeout)
        return tuple(path.read_text() for path in self._streams)


def _serve():
    """Start the server of forks, if need be; it finds what it imports where this process does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        multiprocessing.forkserver.ensure_running()


def _run(words, cwd, out, err):
    assert "preloaded" in sys.modules, "the server of forks could not import tests/preloaded.py"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` makes its children deaf to Ctrl-C
    os.chdir(cwd)
    for number, name, path in ((1, "stdout", out), (2, "stderr", err)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))
    sys.argv = words
    from vggft.__main__ import main

    main()


def start(*arguments, cwd=None) -> Forked:
    """Start a command that the test disturbs."""
    return Forked(*arguments, cwd=cwd)


def wait_until(condition, process, seconds=120):
    """Wait for something that a running process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
