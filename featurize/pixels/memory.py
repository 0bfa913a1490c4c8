"""The memory that decoding takes over all threads: pictures that need much wait for each other, small ones do not.

A decoder estimates what a picture needs from its header, and takes that much room while it works. A picture that needs more than
there is in total is decoded alone.
"""

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator

BYTES = 2**30  # of all pictures in decoding together
LARGE_FILE = 2**24  # bytes; of files above this, only one at a time is in memory

# In a worker process, which cannot see what the others use, larger pictures and files are left to the process that started it.
WORKER_BYTES = 2**27


_TRIM_BYTES = 2**28  # after a picture that needed more, the C library returns free memory to the system


class Declined(Exception):
    """The picture needs more memory than this process may use."""


class Room:
    """Memory that threads share."""

    def __init__(self, limit: int = BYTES, *, alone: bool = True) -> None:
        """Create room for `limit` bytes. What needs more waits until it is alone, or is declined if `alone` is False."""
        self._limit, self._alone = limit, alone
        self._used = 0
        self._changed = threading.Condition()
        self._large = threading.Lock()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until `size` bytes are free, and take them inside the context.

        Raises:
            Declined: more than the limit, and nothing may be decoded alone.
        """
        self._check(size)
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + size <= self._limit)
            self._used += size
        try:
            yield
        finally:
            if size > _TRIM_BYTES:
                _trim()
            with self._changed:
                self._used -= size
                self._changed.notify_all()

    @contextlib.contextmanager
    def reading(self, size: int) -> Iterator[None]:
        """Wait until no other large file is in memory, if this one is large. To be entered before `taken`.

        Raises:
            Declined: as `taken`.
        """
        self._check(size)
        with self._large if size > LARGE_FILE else contextlib.nullcontext():
            yield

    def _check(self, size: int) -> None:
        if size > self._limit and not self._alone:
            raise Declined


def _trim() -> None:
    """Return free memory to the system: glibc keeps what a thread has freed, up to the largest picture for each thread."""
    if os.name == "posix":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim:
            trim(0)


_room = Room()


def room() -> Room:
    """Return the room of this process."""
    return _room


def be_worker() -> None:
    """Decline large pictures from now on: this process is one of several that decode."""
    global _room  # noqa: PLW0603 (memory belongs to the process, too)
    _room = Room(WORKER_BYTES, alone=False)
