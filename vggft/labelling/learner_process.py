"""The process of a learner: one thread computes features, another trains; the parent sends decisions and receives suggestions.

A separate process, because the engine uses all cores and much memory: the page stays quick, and should this process end,
sorting goes on. It ends when its standard input closes, so also when its parent dies.
"""

import contextlib
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.errors import VggftError
from featurize.process import descriptors
from heads.head import Head
from vggft.labelling import classifier
from vggft.labelling.pooled import PooledFeatures
from vggft.labelling.suggestions import CANNOT_TELL
from vggft.ui.console import Advance, Ui
from vggft.workspace.workspace import Workspace

NICENESS = 5  # of the process: the server and the browser come first
# Between two trainings, at least as long as the last one took, so that training takes half of a core at most.
_LEAST_PAUSE = 0.3
_LOOK_SECONDS = 0.02
_CLOSING_SECONDS = 15.0  # after standard input closed, in which a batch may end, so that its features are kept


@dataclass(frozen=True)
class Task:
    """What the parent sends first. `files` are relative to `folder`, in the order in which suggestions are wanted."""

    workspace: Path
    architecture: Architecture
    folder: Path
    files: tuple[str, ...]


@dataclass(frozen=True)
class Relabelled:
    """Decisions that changed: position of a file → class, `CANNOT_TELL`, or None for a decision that was taken back."""

    labels: Mapping[int, str | None]


@dataclass(frozen=True)
class Progress:
    """Number of files whose features are there, and files that turned out to be unreadable since the last message."""

    computed: int
    unreadable: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Suggested:
    """The most probable class of every file that is not decided and has features.

    Attributes:
        classes: names.
        positions: of the files (n,).
        best: index of the most probable class (n,).
        probability: of that class (n,).
        learned_from: number of labels.
    """

    classes: tuple[str, ...]
    positions: NDArray[np.intp]
    best: NDArray[np.intp]
    probability: NDArray[np.float64]
    learned_from: int


@dataclass(frozen=True)
class Stopped:
    """Why no features are computed at the moment, or any more; empty once they are again."""

    reason: str


class _Closed(Exception):
    """The parent wants no more features."""


class _Progress(Ui):
    """Shows nothing; every progress of the engine is passed on."""

    def __init__(self, advance: Advance) -> None:
        super().__init__(quiet=True)
        self._advance = advance

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None, unit: str = "images") -> Iterator[Advance]:
        """Pass progress on."""
        yield self._advance


class Learning:
    """Features and training of one task.

    `compute` and `train` run until there is nothing more to do; each in a thread of its own, while `relabel` is called.
    """

    def __init__(self, task: Task, send: Callable[[Any], None]) -> None:
        """Start nothing.

        Args:
            task: what to learn.
            send: takes `Progress`, `Suggested` and `Stopped`; called from both threads.
        """
        workspace = Workspace(task.workspace, task.architecture, self._wait)
        self.features = PooledFeatures(workspace, task.folder, task.files, _Progress(self._advance))
        self._send = send
        self._labels: dict[int, str] = {}
        self._changed = threading.Condition()
        self._news = False  # decisions or features that no suggestions take into account yet
        self._closed = False
        self._waits = False
        self._named: set[int] = set()  # unreadable files that the parent knows of

    def relabel(self, changes: Relabelled) -> None:
        """Take decisions."""
        with self._changed:
            for position, label in changes.labels.items():
                if label is None:
                    self._labels.pop(position, None)
                else:
                    self._labels[position] = label
            self._announce()

    def close(self) -> None:
        """End both threads: computing after the batch that is being computed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def compute(self) -> None:
        """Compute the features of all files."""
        while not (self.features.complete or self._closed):
            with self._changed:
                decided = dict(self._labels)
            labelled = [position for position, label in decided.items() if label != CANNOT_TELL]
            self.features.advance(labelled, lambda position: position not in decided)  # noqa: B023 (called in this round)
            self._report()
            with self._changed:
                self._announce()

    def train(self) -> None:
        """Train after every change, and suggest classes."""
        head: Head | None = None
        learned: dict[int, str] = {}
        last = 0.0
        while True:
            time.sleep(max(_LEAST_PAUSE, last))
            with self._changed:
                self._changed.wait_for(lambda: self._news or self._closed)
                if self._closed:
                    return
                self._news = False
                decided = dict(self._labels)
            began = time.monotonic()
            present = self.features.present.copy()
            labels = {i: label for i, label in decided.items() if label != CANNOT_TELL and present[i]}
            before = head
            if labels != learned:
                head, learned = self._train(labels), labels
                last = time.monotonic() - began
            present[list(decided)] = False
            if head or before:
                self._send(self._suggested(head, np.flatnonzero(present), len(learned)))

    def _train(self, labels: Mapping[int, str]) -> Head | None:
        if not labels:
            return None
        return classifier.train(self.features.rows(np.array(list(labels), np.intp)), list(labels.values()))

    def _suggested(self, head: Head | None, positions: NDArray[np.intp], learned_from: int) -> Suggested:
        if head is None or not len(positions):
            nothing = np.empty(0, np.intp)
            return Suggested((), nothing, nothing, np.empty(0), learned_from if head else 0)
        p = head.scores(self.features.rows(positions))
        return Suggested(head.classes, positions, p.argmax(axis=1), p.max(axis=1), learned_from)

    def _announce(self) -> None:
        self._news = True
        self._changed.notify_all()

    def _advance(self, done: int, of: int | None = None, /, *, what: str | None = None) -> None:
        if self._closed:
            raise _Closed
        self._report(done)

    def _report(self, more: int = 0) -> None:
        """Send progress; `more`: pictures of the chunk that the engine has finished."""
        if self._waits:
            self._waits = False
            self._send(Stopped(""))
        new = {i: reason for i, reason in self.features.unreadable.items() if i not in self._named}
        self._named |= new.keys()
        self._send(Progress(int(self.features.present.sum()) + more, new))

    def _wait(self, message: str) -> None:
        self._waits = True
        self._send(Stopped(message))


def serve() -> None:
    """Learn what comes in on standard input until it closes."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output that libraries print must not mix with the replies
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    task: Task = pickle.load(sys.stdin.buffer)
    guard = threading.Lock()

    def send(message: Any) -> None:
        with guard, contextlib.suppress(OSError):  # the parent has died: standard input has closed, too
            pickle.dump(message, replies, protocol=5)
            replies.flush()

    learning = Learning(task, send)
    threading.Thread(target=_receive, args=(sys.stdin.buffer, learning), daemon=True).start()
    threading.Thread(target=_reporting, args=(learning.train, send), daemon=True).start()
    with descriptors.hiding_libraries():
        _reporting(learning.compute, send)
    threading.Event().wait()  # training goes on until standard input closes


def _reporting(work: Callable[[], None], send: Callable[[Any], None]) -> None:
    """Run one of the two threads; its errors are reported, and the other one goes on."""
    try:
        work()
    except _Closed:
        pass
    except VggftError as error:
        send(Stopped(str(error)))
    except Exception as error:
        traceback.print_exc()
        send(Stopped(f"unexpected: {type(error).__name__}: {error}"))


def _receive(stream: BinaryIO, learning: Learning) -> None:
    with contextlib.suppress(EOFError, OSError):
        while True:
            learning.relabel(pickle.load(stream))
    learning.close()
    until = time.monotonic() + _CLOSING_SECONDS
    while learning.features.writing and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)
    os._exit(0)
