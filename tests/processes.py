"""The command line in processes of its own: fresh interpreters, and forks that need not import TensorFlow again.

A fresh interpreter takes five seconds of a core to import TensorFlow. A fork of a server that imported it, and computed
nothing, starts at once, and is interrupted, stopped and killed like any other process. Fresh interpreters are for tests of
imports, environment variables and standard streams.
"""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
from tiny import TINY

from featurize.backbone.vgg16 import VGG16

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["preloaded"])

# What `python -m vggft` does, with the tiny network.
TINY_MAIN = f"""
import sys
from vggft import __main__
from vggft.cli import app
vgg16_main = app.main
def main():
    sys.path.append({str(Path(__file__).parent)!r})
    from tiny import TINY
    vgg16_main(TINY)
app.main = main
__main__.main()
"""


def command(*arguments, network=TINY) -> list[str]:
    """Return the words that start the command line in a fresh interpreter."""
    program = ["-m", "vggft"] if network is VGG16 else ["-c", TINY_MAIN]
    return [sys.executable, *program, *map(str, arguments)]


def vggft_apart(*arguments, cwd=None, env=None, timeout=300, network=TINY) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh interpreter."""
    return subprocess.run(
        command(*arguments, network=network),
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Fork:
    """A function in a forked process, with as much of `subprocess.Popen` as the tests use."""

    def __init__(self, function, *arguments):
        """Start it, and wait until it runs; what it writes to standard output and standard error goes into files."""
        self._folder = tempfile.TemporaryDirectory()
        self._streams = [Path(self._folder.name) / name for name in ("out", "err")]
        self._process = FORKS.Process(target=_call, args=(function, arguments, Path.cwd(), self._streams))
        with pytest.MonkeyPatch.context() as patch:
            # The server, which this starts if need be, finds what it imports where this process does.
            patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
            multiprocessing.forkserver.ensure_running()
        self._process.start()
        self.pid = self._process.pid
        wait_until(self._streams[1].exists, self)  # a signal before that would not reach the function

    @property
    def returncode(self):
        """Exit code; the negative number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def written(self) -> tuple[str, str]:
        """Return what it has written to standard output and standard error up to now."""
        return tuple(path.read_text() for path in self._streams)

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=300):
        """Wait for its end; return all of standard output and standard error."""
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("fork", timeout)
        return self.written()


def _call(function, arguments, cwd, streams):
    assert "preloaded" in sys.modules, "the server of forks could not import tests/preloaded.py"
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` makes its children deaf to Ctrl-C
    os.chdir(cwd)
    for number, name, path in ((1, "stdout", streams[0]), (2, "stderr", streams[1])):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
        setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115
    function(*arguments)


def _command(words, network, pause, light):
    from vggft import __main__
    from vggft.cli import app
    from vggft.workspace import backbone

    create = backbone.create
    backbone.create = lambda *arguments: Slow(create(*arguments), pause)
    sys.argv, app.main = words, partial(app.main, network)
    with contextlib.ExitStack() as lighter:
        if light:
            from conftest import blank_figures, eager

            lighter.enter_context(blank_figures())
            lighter.enter_context(eager())
        __main__.main()


class Slow:
    """An engine that takes a pause before each batch: the tiny network would be done before anybody disturbs it."""

    def __init__(self, engine, pause):
        self._engine, self._pause = engine, pause

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def __call__(self, *arguments):
        time.sleep(self._pause)
        return self._engine(*arguments)


def start(*arguments, network=TINY, pause=0.1, light=False) -> Fork:
    """Start a command that the test disturbs.

    Args:
        pause: seconds before each batch of the frozen network.
        light: as in a file of tests with `unrendered` and `untraced`.
    """
    return Fork(_command, ["vggft", *map(str, arguments)], network, pause, light)


def drained(descriptor) -> str:
    """Return what was written to a pseudo-terminal, whose other end this is; it gives 4 kB at a time."""
    os.set_blocking(descriptor, False)
    parts = []
    while True:
        try:
            parts.append(os.read(descriptor, 65536))
        except BlockingIOError:
            return b"".join(parts).decode()


def wait_until(condition, process, seconds=120):
    """Wait until a running process has done something."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def hold_the_lock(work, released):
    """Hold a workspace's lock until a file appears."""
    from vggft.workspace.workspace import Workspace

    with Workspace(work, TINY).writing():
        print("held", flush=True)
        while not released.exists():
            time.sleep(0.01)
