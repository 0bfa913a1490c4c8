"""Ctrl-C and SIGTERM in the command line: a flag that every loop checks, and a thread that ends the process if none does.

An exception that a signal raises wherever Python happens to be may be swallowed by a library, or abort the process inside C++.
So a signal sets a flag, and `check` raises KeyboardInterrupt at the next step. Where no step comes (TensorFlow is being imported,
numba compiles, a file does not answer), the process ends after `_PATIENCE` as if killed, which loses no finished work.

Without `listen`, in a Python program that uses vggft, Ctrl-C is Python's, and `check` does nothing.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

EXIT_CODE = 130

_PATIENCE = 1.5  # seconds from a signal to the end where no check is reached: less than two, with the end itself
_TIDYING = 20.0  # seconds from a signal to the end where one is: finished rows are still written
_SAME = 1.0  # seconds within which a second signal repeats the first: the terminal's, passed on by a wrapper


class _Heard:
    """What is known of signals since `listen`."""

    signal = False
    raised = False  # by `check`
    message = "interrupted."
    tell: Callable[[str], None] | None = None


def listen() -> None:
    """Take SIGTERM, and SIGINT unless it is ignored (as by a shell's `&`), from now to the end of the process."""
    watched, written = socket.socketpair()
    written.setblocking(False)
    # Python's C code writes there even while the main thread is inside a library and no handler can be called.
    signal.set_wakeup_fd(written.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _handle)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _handle)
    stderr = os.dup(2)  # descriptor 2 may be another file while a library is imported
    threading.Thread(target=_watch, args=(watched, stderr), daemon=True, name="interrupts").start()


def announce(message: str, tell: Callable[[str], None]) -> None:
    """Name what is said on standard error where the process ends without an exception; `tell` passes it on to programs."""
    _Heard.message, _Heard.tell = message, tell


def check() -> None:
    """Raise KeyboardInterrupt, once, if there was a signal. To be called in every loop of the main thread."""
    if _Heard.signal and not _Heard.raised and threading.current_thread() is threading.main_thread():
        _Heard.raised = True
        raise KeyboardInterrupt


def heard() -> bool:
    """Return whether there was a signal, so that an error may be what became of it."""
    return _Heard.signal


@contextlib.contextmanager
def threads(number: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Hand out a pool of threads that is not waited for at the end: one may be reading a file that does not answer."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def leave() -> NoReturn:
    """End the process, whatever its threads are doing."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(EXIT_CODE)


def _handle(signum: int, frame: Any) -> None:
    _Heard.signal = True


def _watch(watched: socket.socket, stderr: int) -> None:
    """Read signals as they come; see that the first one ends the process in time, and that a second one ends it now."""
    began: float | None = None
    while True:
        left = None if began is None else began + (_TIDYING if _Heard.raised else _PATIENCE) - time.monotonic()
        if left is not None and left <= 0:
            _end(stderr)
        if not select.select([watched], [], [], left)[0] or watched.recv(1)[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        if began is None:
            began = time.monotonic()
            if os.isatty(stderr):
                _write(stderr, "\nstopping ...\n")
        elif time.monotonic() - began > _SAME:
            _end(stderr)


def _end(stderr: int) -> NoReturn:
    show_cursor = "\x1b[?25h" if os.isatty(stderr) else ""  # a progress bar hides it
    _write(stderr, f"{show_cursor}error: {_Heard.message}\n")
    if _Heard.tell:  # in a thread of its own: nobody may be reading
        telling = threading.Thread(target=_Heard.tell, args=(_Heard.message,), daemon=True)
        telling.start()
        telling.join(0.2)
    os._exit(EXIT_CODE)


def _write(stderr: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(stderr, text.encode())  # not by rich, which may be at work
