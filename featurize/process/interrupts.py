"""Ctrl-C and SIGTERM in the command line: a flag that every loop checks, and a thread that ends the process if none does.

An exception raised by a signal handler can be swallowed by a library, or abort the process inside C++. So a signal only sets a
flag, and `check` raises KeyboardInterrupt at the next step of a loop; and again at a later step, should Python have ignored it,
as in a finalizer or a callback. If none is on its way after `_PATIENCE`, because there is no next step (while TensorFlow is
imported, numba compiles, or a file system does not respond), the process exits as if killed, which loses no work.

Without `listen`, in a Python program that uses vggft, Python handles Ctrl-C, and `check` does nothing.
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
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

EXIT_CODE = 130

_PATIENCE = 1.5  # seconds from a signal to the exit if no KeyboardInterrupt is on its way; less than two in total
_TIDYING = 20.0  # seconds from a signal to the exit if it is; enough to write finished rows
_LOOK_SECONDS = 0.2  # between two looks for a signal
_LOOK = 0.2  # seconds between two looks at the main thread after `_PATIENCE`
_ENDING = 0.5  # seconds in which threads end that are not blocked
_READERS = "vggft-reader"  # name of the threads of `threads`
_SAME = 1.0  # seconds in which a second signal counts as the first: the terminal's signal, forwarded by a wrapper


class _Heard:
    """State of the signals since `listen`."""

    signal = False
    message = "interrupted. Nothing was changed."  # until a command says what it keeps
    tell: Callable[[str], None] | None = None


_asked = threading.local()


@contextlib.contextmanager
def asking(function: Callable[[], None]) -> Iterator[None]:
    """Inside the context, `check` calls a function in this thread, which raises an error once the work is no longer wanted."""
    _asked.function = function
    try:
        yield
    finally:
        _asked.function = None


def listen() -> None:
    """Handle SIGTERM and SIGINT until the end of the process; SIGINT not if it is ignored, as after a shell's `&`."""
    watched, written = socket.socketpair()
    written.setblocking(False)
    # Python's C code writes to this socket even while the main thread is inside a library and cannot call a handler.
    signal.set_wakeup_fd(written.detach(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _handle)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, _handle)
    stderr = os.dup(2)  # descriptor 2 may be another file while a library is imported
    threading.Thread(target=_watch, args=(watched, stderr), daemon=True, name="interrupts").start()


def announce(message: str, tell: Callable[[str], None]) -> None:
    """Set the message for an exit without an exception: for standard error, and for programs through `tell`."""
    _Heard.message, _Heard.tell = message, tell


def check() -> None:
    """Raise KeyboardInterrupt after a signal. Every loop of the main thread must call this.

    It raises none while one is on its way, so that `except` and `finally` can tidy up. In a thread with `asking`, it raises what
    the function there raises.
    """
    ask = getattr(_asked, "function", None)
    if ask:
        ask()
    if _Heard.signal and threading.current_thread() is threading.main_thread() and not _on_its_way(sys.exc_info()[1]):
        raise KeyboardInterrupt


def _on_its_way(error: BaseException | None) -> bool:
    """Return whether an exception that is being handled is a KeyboardInterrupt, or was raised while handling one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _main_thread_tidies() -> bool:
    """Return whether the main thread is handling a KeyboardInterrupt. Called from the thread that watches."""
    handled: Any = sys._current_exceptions().get(threading.main_thread().ident or 0)
    return _on_its_way(handled[1] if isinstance(handled, tuple) else handled)  # a tuple up to Python 3.11


def heard() -> bool:
    """Return whether there was a signal, which may be the cause of an error."""
    return _Heard.signal


@contextlib.contextmanager
def threads(number: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Return a thread pool that is not joined at the end, because a thread may be blocked by a file system."""
    pool = ThreadPoolExecutor(number, _READERS)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def result(future: Future[T]) -> T:
    """Return the result of a thread, and look for signals while waiting for it.

    Raises:
        KeyboardInterrupt: after a signal, as `check`.
    """
    while True:
        with contextlib.suppress(TimeoutError):
            value = future.result(_LOOK_SECONDS)
            check()
            return value
        if future.done():
            return future.result()  # the thread itself raised TimeoutError
        check()


def blocked() -> bool:
    """Return whether a thread of `threads` is still at work after `_ENDING`."""
    until = time.monotonic() + _ENDING
    readers = [thread for thread in threading.enumerate() if thread.name.startswith(_READERS)]
    for thread in readers:
        thread.join(max(0.0, until - time.monotonic()))
    return any(thread.is_alive() for thread in readers)


def leave(code: int = EXIT_CODE) -> NoReturn:
    """Exit the process without waiting for its threads, for which Python would wait."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _handle(signum: int, frame: Any) -> None:
    _Heard.signal = True


def _watch(watched: socket.socket, stderr: int) -> None:
    """Wait for signals. Exit the process in time after the first one, and immediately after a second one."""
    began: float | None = None
    while True:
        waited = 0.0 if began is None else time.monotonic() - began
        if waited > _TIDYING or (waited > _PATIENCE and not _main_thread_tidies()):
            _end(stderr)
        left = None if began is None else max(_PATIENCE - waited, _LOOK)
        if not select.select([watched], [], [], left)[0] or watched.recv(1)[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        if began is None:
            began = time.monotonic()
            if os.isatty(stderr):
                _write(stderr, "\nstopping ...\n")
        elif time.monotonic() - began > _SAME:
            _end(stderr)


def _end(stderr: int) -> NoReturn:
    show_cursor = "\x1b[?25h" if os.isatty(stderr) else ""  # progress bars hide the cursor
    _write(stderr, f"{show_cursor}error: {_Heard.message}\n")
    if _Heard.tell:  # in a thread, because writing blocks if nothing reads the output
        thread = threading.Thread(target=_Heard.tell, args=(_Heard.message,), daemon=True)
        thread.start()
        thread.join(0.2)
    os._exit(EXIT_CODE)


def _write(stderr: int, text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(stderr, text.encode())  # not with rich, which may be writing in another thread
