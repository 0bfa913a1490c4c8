"""File descriptors 1 and 2: sending what is printed on them elsewhere, also by C++ libraries.

They belong to the whole process, so only the command line redirects them: a Python program that uses vggft, perhaps from
several threads, prints what the libraries print.
"""

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator

_hiding = False


def redirect(to: int, *descriptors: int) -> list[int]:
    """Send what is written on some descriptors to another one; return duplicates of what they were."""
    _flush()
    originals = [os.dup(descriptor) for descriptor in descriptors]
    for descriptor in descriptors:
        os.dup2(to, descriptor)
    return originals


@contextlib.contextmanager
def redirected(to: int, *descriptors: int) -> Iterator[list[int]]:
    """Send what is written on some descriptors to another one for a while; the value is duplicates of what they were."""
    originals = redirect(to, *descriptors)
    try:
        yield originals
    finally:
        _flush()
        for descriptor, original in zip(descriptors, originals, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


def hide_libraries() -> None:
    """Let `hidden` hide something from now on; for the command line, whose process is its own."""
    global _hiding  # noqa: PLW0603 (descriptors are global, too)
    _hiding = True


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Keep what a library prints while it loads (no setting silences all of it) off descriptors 1 and 2.

    It is shown upon failure, other than by ImportError and ValueError: something is not installed, which the caller reports.
    Without `hide_libraries`, nothing is hidden.
    """
    if not _hiding:
        yield
        return
    with tempfile.TemporaryFile() as unseen, redirected(unseen.fileno(), 1, 2) as (_, stderr):
        try:
            yield
        except (ImportError, ValueError):
            raise
        except BaseException:
            _flush()
            unseen.seek(0)
            os.write(stderr, unseen.read())
            raise


def _flush() -> None:
    """Empty Python's buffers, and C's: into a pipe or file, printf writes only when its buffer is full."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
