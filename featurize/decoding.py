"""Decoding in processes of its own, for engines so fast that threads, of which one at a time runs Python, cannot feed them.

Each of the caller's threads has a process that reads a line a picture, digest and paths as JSON, and answers with the pixels or
the reason why there are none. It ends when its input does: with its parent, however that ends. It imports neither Keras nor
the caller's main module.
"""

import json
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIPE_BYTES = 262_144  # a picture of 224 × 224 goes through at once

Picture = Callable[[str, Sequence[Path], Any], NDArray[np.uint8] | str]

_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from featurize import decoding; decoding.serve(sys.argv[2])"
_HEADER = struct.Struct(
    "<4q"
)  # height, width, channels, bytes that follow; the first three are 0 where these are a reason


class Processes:
    """Calls a function (digest, paths, decoder) → picture or reason in a process of the calling thread."""

    def __init__(self, picture: Picture, decoder: Any) -> None:
        """Take a function and a decoder, both found by name in modules. Nothing is started yet.

        Raises:
            pickle.PicklingError, AttributeError, TypeError: they cannot be found by name.
        """
        self._picture, self._decoder = picture, decoder
        self._command = pickle.dumps((picture, decoder)).hex()
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def __call__(self, digest: str, paths: Sequence[Path]) -> NDArray[np.uint8] | str:
        """Return the picture; where the process is gone (killed for memory, say), decode in this one."""
        try:
            return _ask(self._process(), digest, paths)
        except (OSError, EOFError):
            self._own.process = None
            return self._picture(digest, paths, self._decoder)

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            command = [sys.executable, "-c", _START, json.dumps(sys.path), self._command]
            # In a session of its own, or Ctrl-C would end it before what it is asked for is there.
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pipesize=_PIPE_BYTES, start_new_session=True
            )
            self._own.process = process
            self._all.append(process)
        return process

    def close(self) -> None:
        """End all processes. No thread may call any more."""
        for process in self._all:
            process.communicate()


def _ask(process: subprocess.Popen[bytes], digest: str, paths: Sequence[Path]) -> NDArray[np.uint8] | str:
    assert process.stdin
    process.stdin.write(json.dumps([digest, [str(path) for path in paths]]).encode() + b"\n")
    process.stdin.flush()
    height, width, channels, size = _HEADER.unpack(_read(process, _HEADER.size).tobytes())
    answer = _read(process, size)
    return answer.reshape(height, width, channels) if height else answer.tobytes().decode()


def _read(process: subprocess.Popen[bytes], size: int) -> NDArray[np.uint8]:
    found = np.empty(size, np.uint8)
    assert process.stdout
    if process.stdout.readinto(found.data) != size:  # type: ignore[attr-defined]
        raise EOFError
    return found


def serve(command: str) -> None:
    """Answer requests on standard input until it ends."""
    picture, decoder = pickle.loads(bytes.fromhex(command))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the answers
    for line in sys.stdin.buffer:
        digest, paths = json.loads(line)
        found = picture(digest, [Path(path) for path in paths], decoder)
        if isinstance(found, str):
            data, shape = found.encode(errors="backslashreplace"), (0, 0, 0)
        else:
            data, shape = found.tobytes(), found.shape
        answers.write(_HEADER.pack(*shape, len(data)) + data)
        answers.flush()
