"""The learner behind the page: passes decisions to its process, and keeps the latest suggestions that come back."""

import contextlib
import json
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vggft.labelling.learner_process import Progress, Relabelled, Stopped, Suggested, Task
from vggft.labelling.suggestions import Snapshot, Suggestion
from vggft.workspace.workspace import Workspace

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from vggft.labelling import learner_process; learner_process.serve()"
)
# From `close` to the end of the process, which finishes a batch and writes its features; then it is killed.
_CLOSING_SECONDS = 20.0


class ProcessLearner:
    """A `Learner` (`vggft.labelling.suggestions`) that computes and trains in a separate process."""

    def __init__(self, workspace: Workspace, folder: Path, files: Sequence[str]) -> None:
        """Start the process.

        Args:
            workspace: whose cache is used; it need not exist.
            folder: with the files.
            files: relative to the folder, with forward slashes, in the order in which suggestions are wanted.
        """
        self._files = tuple(files)
        self._numbers = {file: number for number, file in enumerate(self._files)}
        self._snapshot = Snapshot(total=len(self._files))
        self._decisions: Mapping[str, str] = {}
        self._new = threading.Event()
        self._closing = False
        path = [str(Path(__file__).parents[2]), *sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the server, which closes the learner
        )
        task = Task(workspace.root, workspace.architecture, folder.absolute(), self._files)
        self._threads = [
            threading.Thread(target=self._send, args=(task,), name="learner-send", daemon=True),
            threading.Thread(target=self._receive, name="learner-receive", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def learn(self, decisions: Mapping[str, str]) -> None:
        """See `Learner`. Files that the learner was not given are ignored."""
        self._decisions = dict(decisions)
        self._new.set()

    def snapshot(self) -> Snapshot:
        """See `Learner`. `suggestions` is the same object until there are new ones."""
        return self._snapshot

    def close(self) -> None:
        """See `Learner`. Returns when the process has ended, which finishes the batch that it is computing."""
        self._closing = True
        self._new.set()
        self._threads[0].join(_CLOSING_SECONDS)
        try:
            self._process.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._threads[1].join()

    def _send(self, task: Task) -> None:
        """Send the task, and then what has changed since the last message, until `close`."""
        stream = self._process.stdin
        assert stream
        sent: dict[int, str] = {}
        with contextlib.suppress(OSError):  # the process has died, which `_receive` reports
            pickle.dump(task, stream)
            stream.flush()
            while not self._closing:
                labels = {
                    self._numbers[file]: label for file, label in self._decisions.items() if file in self._numbers
                }
                changes: dict[int, str | None] = {i: label for i, label in labels.items() if sent.get(i) != label}
                changes |= dict.fromkeys(sent.keys() - labels.keys())
                if changes:
                    pickle.dump(Relabelled(changes), stream)
                    stream.flush()
                    sent = labels
                self._new.wait()
                self._new.clear()
        with contextlib.suppress(OSError):
            stream.close()

    def _receive(self) -> None:
        stream = self._process.stdout
        assert stream
        with contextlib.suppress(EOFError, OSError, pickle.UnpicklingError):  # the process has ended
            while True:
                self._take(pickle.load(stream))
        code = self._process.wait()
        if not self._closing:
            self._snapshot = replace(self._snapshot, stopped=_ended(code))

    def _take(self, message: Progress | Suggested | Stopped) -> None:
        now = self._snapshot
        if isinstance(message, Progress):
            new = {self._files[i]: reason for i, reason in message.unreadable.items()}
            self._snapshot = replace(now, computed=message.computed, unreadable={**now.unreadable, **new})
        elif isinstance(message, Stopped):
            self._snapshot = replace(now, stopped=message.reason)
        else:
            each = zip(message.positions.tolist(), message.best.tolist(), message.probability.tolist(), strict=True)
            suggestions = {self._files[i]: Suggestion(message.classes[best], p) for i, best, p in each}
            self._snapshot = replace(now, suggestions=suggestions, learned_from=message.learned_from)


def _ended(code: int) -> str:
    """Return why there are no new suggestions any more, as a sentence."""
    how = f"exit code {code}"
    if code < 0:
        with contextlib.suppress(ValueError):
            how = signal.Signals(-code).name
        if how == "SIGKILL":
            how += ", probably for lack of memory"
    return f"The process behind the suggestions has ended ({how}). Sorting goes on; to get new ones, start vggft sort again."
