"""Redirecting file descriptors 1 and 2, and so the output of C++ libraries.

File descriptors belong to the whole process, so only the command line redirects them. In a Python program that uses vggft,
libraries print as usual.
"""

import contextlib
import ctypes
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import BinaryIO

_hiding = False


def redirect(to: int, *descriptors: int) -> list[int]:
    """Redirect descriptors to the descriptor `to`; return duplicates of the originals."""
    _flush()
    originals = [os.dup(descriptor) for descriptor in descriptors]
    for descriptor in descriptors:
        os.dup2(to, descriptor)
    return originals


@contextlib.contextmanager
def redirected(to: int, *descriptors: int) -> Iterator[list[int]]:
    """Redirect descriptors to the descriptor `to` inside the context; the context's value is duplicates of the originals."""
    originals = redirect(to, *descriptors)
    try:
        yield originals
    finally:
        _flush()
        for descriptor, original in zip(descriptors, originals, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


@contextlib.contextmanager
def hiding_libraries() -> Iterator[None]:
    """Make `hidden` effective inside the context, for the command line."""
    global _hiding  # noqa: PLW0603 (descriptors are global, too)
    before, _hiding = _hiding, True
    try:
        yield
    finally:
        _hiding = before


def hiding() -> bool:
    """Return whether this is the command line, where libraries print nothing."""
    return _hiding


class _Hidden:
    """What is hidden now. Threads share it: the first redirects the descriptors, and the last restores them."""

    guard = threading.Lock()
    threads = 0
    output: BinaryIO
    redirection: contextlib.ExitStack
    stderr: int


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hide what libraries print while they load, for which they have no complete setting. Only within `hiding_libraries`.

    After an exception, the output is shown, except for ImportError and ValueError, which mean that something is not installed and
    are reported by the caller.
    """
    if not _hiding:
        yield
        return
    with _Hidden.guard:
        if not _Hidden.threads:
            with contextlib.ExitStack() as stack:
                _Hidden.output = stack.enter_context(_buffer())
                _Hidden.stderr = stack.enter_context(redirected(_Hidden.output.fileno(), 1, 2))[1]
                _Hidden.redirection = stack.pop_all()
        _Hidden.threads += 1
    try:
        yield
    except (ImportError, ValueError):
        raise
    except BaseException:
        with _Hidden.guard:
            _flush()
            _Hidden.output.seek(0)
            os.write(_Hidden.stderr, _Hidden.output.read())
        raise
    finally:
        with _Hidden.guard:
            _Hidden.threads -= 1
            if not _Hidden.threads:
                _Hidden.redirection.close()


def _buffer() -> BinaryIO:
    """Return an empty file, in memory where the system has such files: the temporary folder may be full, or missing."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("hidden"), "w+b")
    return tempfile.TemporaryFile()


def _flush() -> None:
    """Flush Python's buffers and C's; on a pipe or file, printf writes only when its buffer is full."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, closed, or replaced by a program
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
