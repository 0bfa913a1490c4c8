"""Files → pictures, or reasons why not; in this process, or in others for engines that are faster than threads can decode.

Of threads, one at a time runs Python. So each of the caller's threads may have a process that reads a line a picture, digest
and paths as JSON, and answers with the pixels or the reason. It ends when its input does: with its parent, however that ends.
It imports neither Keras nor the caller's main module.
"""

import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize.pixels.images import Unreadable

_PIPE_BYTES = 262_144  # a picture of 224 × 224 goes through at once

Decoder = Callable[[bytes], NDArray[np.uint8]]

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from featurize.pixels import decoding; decoding.serve(sys.argv[2])"
)
# Height, width, channels, bytes that follow; the first three are 0 where the bytes are a reason.
_HEADER = struct.Struct("<4q")


def picture(digest: str, paths: Sequence[Path], decoder: Decoder) -> NDArray[np.uint8] | str:
    """Decode the first of `paths` that reads and still has these bytes; else return the last reason."""
    reason = "no file"
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            reason = unreadable(error)
            continue
        if hashlib.sha256(data).hexdigest() == digest:
            return decode_or_reason(data, decoder)
        reason = "changed while vggft was running; run featurize again"
    return reason


def decode_or_reason(data: bytes, decoder: Decoder) -> NDArray[np.uint8] | str:
    """Decode one file's bytes; return the reason where there is no picture in them."""
    try:
        return decoder(data)
    except Unreadable as error:
        return str(error)


def unreadable(error: OSError) -> str:
    """Say why a file could not be read."""
    return f"cannot be read: {error.strerror or error}"


class Processes:
    """Does what `picture` does in a process of the calling thread."""

    def __init__(self, decoder: Decoder) -> None:
        """Take a decoder that pickle finds by name in a module. Nothing is started yet.

        Raises:
            pickle.PicklingError, AttributeError, TypeError: pickle cannot find it.
        """
        self._decoder = decoder
        # Its own folder first: a person may have a featurize.py in the folder where they work.
        path = [str(Path(__file__).parents[2]), *sys.path]
        self._command = [sys.executable, "-c", _START, json.dumps(path), pickle.dumps(decoder).hex()]
        # Without this, NumPy would start as many threads as there are cores, in each process.
        self._environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._own = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def __call__(self, digest: str, paths: Sequence[Path]) -> NDArray[np.uint8] | str:
        """Return the picture; where the process is gone (killed for memory, say), decode in this one."""
        try:
            return _ask(self._process(), digest, paths)
        except (OSError, EOFError):
            self._own.process = None
            return picture(digest, paths, self._decoder)

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._own, "process", None)
        if process is None:
            # In a session of its own, or Ctrl-C would end it before what it is asked for is there.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pipesize=_PIPE_BYTES,
                env=self._environment,
                start_new_session=True,
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
    decoder = pickle.loads(bytes.fromhex(command))
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
