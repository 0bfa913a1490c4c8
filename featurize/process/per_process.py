"""Values that all threads of a process share; a forked process makes its own."""

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class PerProcess(Generic[Value]):
    """A value that several threads share, such as a thread pool or a loaded network.

    A fork copies neither threads nor what a lock protects at that moment, so the child process makes the value anew.
    """

    def __init__(self, make: Callable[[], Value]) -> None:
        """Make nothing yet.

        Args:
            make: returns the value; called by the first thread that needs it, while the others wait.
        """
        self._make = make
        self._forget()
        forget = weakref.WeakMethod(self._forget)

        def after_fork() -> None:
            method = forget()
            if method:
                method()

        if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
            os.register_at_fork(after_in_child=after_fork)

    def _forget(self) -> None:
        self._making = threading.RLock()
        self._values: list[Value] = []

    @property
    def made(self) -> bool:
        """True once the value exists in this process."""
        return bool(self._values)

    def __call__(self) -> Value:
        """Return the value."""
        with self._making:
            if not self._values:
                self._values.append(self._make())
            return self._values[0]
