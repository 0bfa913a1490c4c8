"""Decoding files: in this process, or in worker processes for engines that are faster than threads can decode.

Only one thread at a time runs Python code, so each calling thread may use a worker process. The worker reads one line per
picture (digest and paths as JSON) and replies with the pixels or the reason why there are none. It exits when its standard input
closes, so also when its parent dies. It imports neither Keras nor the caller's main module.
"""

import contextlib
import hashlib
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize.disk import durable
from featurize.pixels import formats, memory
from featurize.pixels.images import Unreadable
from featurize.pixels.silence import silence
from featurize.process import interrupts

_PIPE_BYTES = 262_144  # holds a whole picture of 224 × 224

Decoder = Callable[[bytes], NDArray[np.uint8]]

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from featurize.pixels import decoding; decoding.serve(sys.argv[2])"
)
# Height, width, channels and number of bytes that follow; the first three are 0 if the bytes are a reason, and all are 0 if the
# picture is too large for a worker.
_HEADER = struct.Struct("<4q")


def picture(digest: str, paths: Sequence[Path], decoder: Decoder) -> NDArray[np.uint8] | str:
    """Decode the first of `paths` that can be read and has this digest; if there is none, return the last reason."""
    reason = "no file"
    for path in paths:
        try:
            with contents(path) as data:
                if hashlib.sha256(data).hexdigest() == digest:
                    return decode_or_reason(data, decoder)
                reason = "changed while vggft was running; run featurize again"
        except OSError as error:
            reason = unreadable(error)
        except Unreadable as error:
            reason = str(error)
    return reason


@contextlib.contextmanager
def contents(path: Path) -> Iterator[bytes]:
    """Read a file that may be a picture. Of large files, only one at a time is in memory.

    Raises:
        OSError: it cannot be read.
        Unreadable: it is too large, or large and certainly no picture, so that it is not read.
        memory.Declined: in a worker process, for large files.
    """
    with durable.open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > memory.LARGE_FILE:
            head = file.read(formats.HEAD)
            reason = formats.oversized(head, size) or formats.foreign(head)
            if reason:
                raise Unreadable(reason)
            file.seek(0)
        with memory.room().reading(size):
            try:
                data = file.read(size + 1)  # not more: the buffer is allocated first
            except MemoryError:
                raise Unreadable("not enough memory to read it") from None
            yield data


def decode_or_reason(data: bytes, decoder: Decoder) -> NDArray[np.uint8] | str:
    """Decode the bytes of a file; return the reason if they cannot be decoded."""
    try:
        return decoder(data)
    except Unreadable as error:
        return str(error)


def unreadable(error: OSError) -> str:
    """Return the reason for display why a file could not be read."""
    return f"cannot be read: {error.strerror or error}"


class Processes:
    """Runs `picture` in worker processes, one for each calling thread."""

    def __init__(self, decoder: Decoder) -> None:
        """Prepare the command; processes start with the first call.

        Raises:
            pickle.PicklingError, AttributeError, TypeError: the decoder cannot be pickled.
        """
        self._decoder = decoder
        # vggft's folder first, because the user's current folder may contain a featurize.py.
        path = [str(Path(__file__).parents[2]), *sys.path]
        self._command = [sys.executable, "-c", _START, json.dumps(path), pickle.dumps(decoder).hex()]
        # Otherwise NumPy starts one thread per core in every process.
        self._environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._thread = threading.local()
        self._all: list[subprocess.Popen[bytes]] = []

    def __call__(self, digest: str, paths: Sequence[Path]) -> NDArray[np.uint8] | str:
        """Return the picture or the reason. If it is large, or the process has died, decode in this process."""
        try:
            reply = _request(self._process(), digest, paths)
        except (OSError, EOFError):
            self._thread.process = reply = None
        return picture(digest, paths, self._decoder) if reply is None else reply

    def _process(self) -> subprocess.Popen[bytes]:
        process: subprocess.Popen[bytes] | None = getattr(self._thread, "process", None)
        if process is None:
            # In a new session, so that Ctrl-C does not end it before it has replied.
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pipesize=_PIPE_BYTES,
                env=self._environment,
                start_new_session=True,
            )
            self._thread.process = process
            self._all.append(process)
        return process

    def close(self) -> None:
        """End all processes. No calls are allowed after this. After a signal, nobody waits for the picture they decode."""
        for process in self._all:
            if interrupts.heard():
                process.kill()
            process.communicate()


def _request(process: subprocess.Popen[bytes], digest: str, paths: Sequence[Path]) -> NDArray[np.uint8] | str | None:
    assert process.stdin
    process.stdin.write(json.dumps([digest, [str(path) for path in paths]]).encode() + b"\n")
    process.stdin.flush()
    height, width, channels, size = _HEADER.unpack(_read(process, _HEADER.size).tobytes())
    if not size:
        return None
    reply = _read(process, size)
    return reply.reshape(height, width, channels) if height else reply.tobytes().decode()


def _read(process: subprocess.Popen[bytes], size: int) -> NDArray[np.uint8]:
    data = np.empty(size, np.uint8)
    assert process.stdout
    if process.stdout.readinto(data.data) != size:  # type: ignore[attr-defined]
        raise EOFError
    return data


def serve(pickled_decoder: str) -> None:
    """Reply to requests on standard input until it closes."""
    memory.be_worker()
    silence()
    decoder = pickle.loads(bytes.fromhex(pickled_decoder))
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output that libraries print must not mix with the replies
    for line in sys.stdin.buffer:
        digest, paths = json.loads(line)
        result: NDArray[np.uint8] | str
        try:
            result = picture(digest, [Path(path) for path in paths], decoder)
        except memory.Declined:
            result = ""
        if isinstance(result, str):
            data, shape = result.encode(errors="backslashreplace"), (0, 0, 0)
        else:
            data, shape = result.tobytes(), result.shape
        replies.write(_HEADER.pack(*shape, len(data)) + data)
        replies.flush()
