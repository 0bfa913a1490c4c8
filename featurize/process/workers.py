"""Worker processes that run functions for the threads of this process, where threads would wait for Python's global lock.

Each calling thread has a process of its own. Calls and results are pickled; the numbers of arrays travel after the pickle, all in
one piece, so that the calling thread takes the lock a few times for a message, however many arrays it has. A worker exits when
its standard input closes, so also when its parent dies. It imports neither Keras nor the caller's main module.
"""

import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from featurize.process import interrupts

Result = TypeVar("Result")

_PIPE_BYTES = 2**20  # the most that Linux allows everyone
_SIZES = struct.Struct("<2q")  # bytes of the pickle, bytes of all arrays together
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from featurize.process import workers; workers.serve()"
)


class Ended(Exception):
    """The worker process has died, for whatever reason; the work may be done in this process."""


class Workers:
    """Runs functions in worker processes, one for each calling thread, which start with a thread's first call."""

    def __init__(self) -> None:
        """Start nothing yet."""
        # vggft's folder first, because the user's current folder may contain a featurize.py.
        self._command = [sys.executable, "-c", _START, json.dumps([str(Path(__file__).parents[2]), *sys.path])]
        # Otherwise NumPy starts one thread per core in every process.
        self._environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._thread = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def __call__(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return `function(*arguments)`, or raise what it raises.

        Args:
            function: of a module, so that it can be pickled; like the arguments and the result.

        Raises:
            Ended: the process has died; the next call starts another one.
        """
        try:
            process = self._process()
            assert process.stdin
            assert process.stdout
            _send(process.stdin, (function, arguments))
            error, result = _receive(process.stdout)
        except (OSError, EOFError):
            self._thread.process = None
            raise Ended from None
        if error:
            raise error
        return result  # type: ignore[no-any-return]

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._thread, "process", None)
        if process is None:
            # In a new session, so that Ctrl-C does not end it before it has replied.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                start_new_session=True,
            )
            for pipe in (process.stdin, process.stdout):
                _widen(pipe)
            self._thread.process = process
            self._all.append(process)
        return process

    def close(self) -> None:
        """End all processes. No calls are allowed after this. After a signal, nobody waits for what they still do."""
        for process in self._all:
            if interrupts.heard():
                process.kill()
            process.communicate()


def _widen(pipe: Any) -> None:
    """Enlarge a pipe, where the system can and lets this user."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _send(pipe: Any, value: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    data = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    head = pickle.dumps((data, [array.nbytes for array in arrays]))
    pipe.write(_SIZES.pack(len(head), sum(array.nbytes for array in arrays)) + head)
    for array in arrays:
        pipe.write(array)
    pipe.flush()


def _receive(pipe: Any) -> Any:
    head, numbers = _SIZES.unpack(_read(pipe, _SIZES.size))
    data, sizes = pickle.loads(_read(pipe, head))
    together = _read(pipe, numbers)
    ends = np.cumsum(sizes, dtype=np.int64)
    return pickle.loads(data, buffers=[together[end - size : end] for end, size in zip(ends, sizes, strict=True)])


def _read(pipe: Any, size: int) -> memoryview:
    data = np.empty(size, np.uint8).data  # not a bytearray, which is filled with zeros first
    if pipe.readinto(data) != size:
        raise EOFError
    return data


def serve() -> None:
    """Run what comes in on standard input until it closes; for worker processes."""
    replies: BinaryIO = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output that libraries print must not mix with the replies
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent has closed the pipe, or has died
        while True:
            function, arguments = _receive(sys.stdin.buffer)
            error, result = None, None
            try:
                result = function(*arguments)
            except Exception as raised:
                error = raised
            _send(replies, (error, result))
