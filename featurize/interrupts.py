"""Ctrl-C and SIGTERM, also where TensorFlow is at work.

Python raises KeyboardInterrupt wherever it happens to be. Within TensorFlow that may be between C++ and Python, where it is
swallowed (training goes on, and nobody knows), comes out as another error, or ends the process by SIGABRT. So it waits there:
until the next `check`, or until a look every `_LOOK` seconds finds our own code at work, or waiting for something. A second
signal does not wait, but is raised once more if nothing came of it.
"""

import contextlib
import os
import signal
import time
from types import FrameType

# Packages whose C++ calls back into Python, or that pass over errors of any kind.
_SHELTERED = frozenset({"tensorflow", "keras", "jax", "torch", "numba", "llvmlite"})


_LOOK = 0.05
_TWICE = 1.0  # seconds within which two are one: of the terminal and of a wrapper that passes it on
_TIMER = hasattr(signal, "setitimer")  # Windows has none: there it waits for the next `check`


class _Signals:
    """What was heard since `listen`: `heard` at all, `waiting` to be raised."""

    heard = False
    waiting = False
    first = 0.0  # when the first one came
    terminal: int | None = None  # a descriptor of it: while a library is imported, 2 is another file

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """Take SIGINT or SIGTERM."""
        now = time.monotonic()
        told = self.heard
        again, self.heard = self.heard and now - self.first > _TWICE, True
        self.first = self.first or now
        self.waiting = True
        if not _sheltered(frame):
            self.raised()
        if self.terminal is not None and not told:
            with contextlib.suppress(OSError):
                os.write(self.terminal, b"\nstopping ...\n")  # not by rich, which may be at work itself
        if _TIMER:
            # Not before: an alarm that somebody else set for this process ends it, as it would any other.
            signal.signal(signal.SIGALRM, self.look)
            # A library may swallow what is raised in it: so that goes on waiting, but leaves time to put things in order.
            signal.setitimer(signal.ITIMER_REAL, _TWICE if again else _LOOK, _LOOK)
        if again:
            raise KeyboardInterrupt

    def look(self, signum: int, frame: FrameType | None) -> None:
        """Take SIGALRM: is the library still at work?"""
        if self.waiting and not _sheltered(frame):
            self.raised()

    def raised(self) -> None:
        _no_more_looks()
        if self.waiting:
            self.waiting = False
            raise KeyboardInterrupt


_signals = _Signals()


def listen() -> None:
    """Let SIGINT, unless it is ignored, and SIGTERM raise KeyboardInterrupt; where they come in a library, a little later."""
    _signals.heard, _signals.waiting, _signals.first = False, False, 0.0
    if _signals.terminal is None and os.isatty(2):
        _signals.terminal = os.dup(2)
    signal.signal(signal.SIGTERM, _signals.handle)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _signals.handle)


def check() -> None:
    """Raise the KeyboardInterrupt that waits, if there is one. To be called in every loop that keeps a library busy."""
    if _signals.waiting:
        _signals.raised()


def settled() -> None:
    """Let nothing more be raised: the command is at its end."""
    _signals.waiting = False
    _no_more_looks()


def heard() -> bool:
    """Return whether there was a signal since `listen`, so that an error may be what became of it."""
    return _signals.heard


def _no_more_looks() -> None:
    if _TIMER:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _sheltered(frame: FrameType | None) -> bool:
    """Return whether one of those packages is among the callers."""
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] in _SHELTERED:
            return True
        frame = frame.f_back
    return False
