"""Decoding files: in this process, or in worker processes for engines that are faster than threads can decode."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featurize.disk import durable
from featurize.pixels import formats, memory
from featurize.pixels.images import Unreadable
from featurize.pixels.silence import silence
from featurize.process.workers import Ended, Workers

Decoder = Callable[[bytes], NDArray[np.uint8]]


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
    """Decodes in worker processes, one for each calling thread."""

    def __init__(self, decoder: Decoder) -> None:
        """Prepare; processes start with the first call. The decoder must be picklable."""
        self._decoder = decoder
        self._workers = Workers()

    def __call__(self, files: Sequence[tuple[str, Sequence[Path]]]) -> list[NDArray[np.uint8] | str]:
        """Return what `picture` returns for each; large pictures, and all if the process has died, are decoded here."""
        found: Sequence[NDArray[np.uint8] | str | None]
        try:
            found = self._workers(_in_worker, files, self._decoder)
        except Ended:
            found = [None] * len(files)
        return [
            picture(digest, paths, self._decoder) if result is None else result
            for (digest, paths), result in zip(files, found, strict=True)
        ]

    def close(self) -> None:
        """End all processes. No calls are allowed after this. After a signal, nobody waits for the pictures they decode."""
        self._workers.close()


def _in_worker(files: Sequence[tuple[str, Sequence[Path]]], decoder: Decoder) -> list[NDArray[np.uint8] | str | None]:
    """Decode files; None for pictures that need more memory than one of several processes may use."""
    _become_worker()
    found: list[NDArray[np.uint8] | str | None] = []
    for digest, paths in files:
        try:
            found.append(picture(digest, paths, decoder))
        except memory.Declined:
            found.append(None)
    return found


@functools.cache
def _become_worker() -> None:
    memory.be_worker()
    silence()
