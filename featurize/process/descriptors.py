"""Redirecting file descriptors 1 and 2, and so the output of C++ libraries.

File descriptors belong to the whole process, so only the command line redirects them. In a Python program that uses vggft,
libraries print as usual.
"""

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator

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


def hide_libraries() -> None:
    """Activate `hidden`, for the command line."""
    global _hiding  # noqa: PLW0603 (descriptors are global, too)
    _hiding = True


@contextlib.contextmanager
def hidden() -> Iterator[None]:
    """Hide what libraries print while they load, for which they have no complete setting. Inactive before `hide_libraries`.

    After an exception, the output is shown, except for ImportError and ValueError, which mean that something is not installed and
    are reported by the caller.
    """
    if not _hiding:
        yield
        return
    with tempfile.TemporaryFile() as hidden_output, redirected(hidden_output.fileno(), 1, 2) as (_, stderr):
        try:
            yield
        except (ImportError, ValueError):
            raise
        except BaseException:
            _flush()
            hidden_output.seek(0)
            os.write(stderr, hidden_output.read())
            raise


def _flush() -> None:
    """Flush Python's buffers and C's; on a pipe or file, printf writes only when its buffer is full."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if os.name == "posix":
        ctypes.CDLL(None).fflush(None)
