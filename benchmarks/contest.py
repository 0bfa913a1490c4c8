"""Running contenders in turn, each in a process of its own: seconds, peak memory, bytes on disk, and scores."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.entry import UNSEEN, VALIDATE, Task, listed
from benchmarks.machine import children_processor_seconds
from heads.metrics import measure

VGGFT = "vggft"
ROOT = Path(__file__).parents[1]
_SAMPLED = 0.5  # seconds between two samples of the memory


@dataclass(frozen=True)
class Score:
    """Metrics of a model that a contender had trained after `clock` seconds."""

    name: str
    clock: float
    validation: Mapping[str, float]
    unseen: Mapping[str, float]


@dataclass(frozen=True)
class Run:
    """A task that a contender has done.

    Attributes:
        seconds: from the start of the process to its last event, without those in `Entry.judge`.
        epochs: seconds of each epoch.
        memory: peak of all its processes together, in bytes (proportional set size, sampled twice a second, not in
            `Entry.judge`).
        disk: bytes that it keeps in its folder.
        events: all of them.
        processor: seconds of processor time of all its processes, those in `Entry.judge` included.
    """

    seconds: float
    epochs: Sequence[float] = ()
    scores: Sequence[Score] = ()
    memory: int = 0
    disk: int = 0
    events: Sequence[Mapping[str, Any]] = ()
    processor: float = 0.0


@dataclass
class Contest:
    """What all questions share.

    Attributes:
        data: see `Task.data`; `unseen` and `weights` alike.
        place: folder for what contenders keep.
        rounds: how often each contender does a task.
        quick: whether this is a test on a few images, whose times are meaningless.
        interpreters: contender → Python, where it is not this one.
        only: contenders that take part; empty for all.
        missing: contender → why it could not take part.
        versions: contender → package → version, of those that ran with another Python.
        sizes: numbers of images at which the growth of costs is measured; `files`: the same without the network.
        journal: file to which each run is appended, a line of JSON, as soon as it has ended; None: nowhere.
    """

    data: Path
    unseen: Path
    weights: Path
    place: Path
    rounds: int = 3
    quick: bool = False
    epochs: int = 20
    minutes: Sequence[float] = (10,)
    interpreters: Mapping[str, str] = field(default_factory=dict)
    only: Sequence[str] = ()
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    sizes: Sequence[int] = (500, 1_000, 2_000)
    files: Sequence[int] = (10_000, 100_000)
    journal: Path | None = None

    def task(self, do: str, **fields: Any) -> Task:
        """Return a task on the files of this contest; `work` is each contender's own folder."""
        return Task(do, self.data, self.unseen, self.weights, self.place, **fields)

    def work(self, contender: str) -> Path:
        """Return the folder of a contender."""
        return self.place / contender

    def run(self, contender: str, task: Task) -> Run | None:
        """Let a contender do a task in its folder; None, and the reason in `missing`, if it cannot."""
        print(f"{contender}: {task.do} …", file=sys.stderr, end=" ", flush=True)
        try:
            run = _run(contender, task, self.work(contender), self.interpreters.get(contender, sys.executable))
        except Failed as failed:
            self.missing[contender] = f"failed: {failed}"
        else:
            if run.events[-1]["event"] == "done":
                print(f"{run.seconds:.1f} s", file=sys.stderr)
                if contender in self.interpreters:
                    self.versions[contender] = run.events[-1]["versions"]
                if self.journal:
                    with self.journal.open("a", encoding="utf-8") as lines:
                        print(
                            json.dumps({"contender": contender, "task": task.fields(), "run": asdict(run)}), file=lines
                        )
                return run
            self.missing[contender] = run.events[-1]["reason"]
        print(f"left out: {self.missing[contender]}", file=sys.stderr)
        return None

    def in_turn(
        self, contenders: Sequence[str], tasks: Task | Mapping[str, Task], before: Callable[[str], None] | None = None
    ) -> dict[str, list[Run]]:
        """Let contenders do a task in turn, round by round; those that cannot are left out.

        The seed of a task is the number of the round, and each round begins with another contender.

        Args:
            tasks: one for all, or contender → task.
            before: called with the contender's name before each of its turns.
        """
        runs: dict[str, list[Run]] = {name: [] for name in contenders}
        for number in range(self.rounds):
            first = number % max(1, len(contenders))
            for name in (*contenders[first:], *contenders[:first]):
                if (self.only and name not in self.only) or name in self.missing:
                    continue
                if before:
                    before(name)
                task = tasks if isinstance(tasks, Task) else tasks[name]
                run = self.run(name, replace(task, seed=number))
                if run is not None:
                    runs[name].append(run)
        return {name: each for name, each in runs.items() if each and name not in self.missing}

    def prepare(self, contenders: Sequence[str]) -> None:
        """Let contenders compute the features that later tasks begin with, into empty folders."""
        replace(self, rounds=1).in_turn(contenders, self.task("features"), self.clear)

    def clear(self, contender: str) -> None:
        """Remove what a contender has kept."""
        shutil.rmtree(self.work(contender), ignore_errors=True)


class Failed(Exception):
    """A contender has not done its task; the message has the last line that it printed."""


def _run(contender: str, task: Task, work: Path, interpreter: str) -> Run:
    work.mkdir(parents=True, exist_ok=True)
    # Caches in the home folder, such as the engines that vggft has measured, are those of this contest only.
    environment = {**os.environ, "XDG_CACHE_HOME": str(work.parent / "caches"), "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        file, printed = Path(folder) / "task.json", Path(folder) / "stderr.txt"
        replace(task, work=work).write(file)
        command = [interpreter, "-m", f"benchmarks.contenders.{contender}", str(file)]
        used = children_processor_seconds()
        with printed.open("wb") as stderr:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, start_new_session=True
            )
        memory = Memory(process.pid)
        try:
            assert process.stdout
            events = []
            for line in process.stdout:
                events.append(json.loads(line))
                memory.watches = events[-1]["event"] != "judging"
            status = process.wait()
        finally:
            peak = memory.stop()
            with suppress(ProcessLookupError):  # whatever it has started, and all of it after Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        used = children_processor_seconds() - used
        if status or not events or events[-1]["event"] not in ("done", "missing"):
            lines = printed.read_text(errors="replace").strip().splitlines()
            raise Failed(f"status {status}; {lines[-1] if lines else 'nothing was printed'}")
    scores = [score for event in events if event["event"] == "judged" and (score := _score(task, event))]
    for path in work.glob("judged-*.npz"):
        path.unlink()
    epochs = [event["seconds"] for event in events if event["event"] == "epoch"]
    disk = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    return Run(events[-1]["clock"], epochs, scores, peak, disk, events, used)


def _score(task: Task, event: Mapping[str, Any]) -> Score | None:
    """Return the scores of a model; None, with a message, if it has diverged."""
    folders = {VALIDATE: task.data / VALIDATE, UNSEEN: task.unseen}
    with np.load(event["file"]) as stored:
        if not all(np.isfinite(stored[split]).all() for split in folders):
            print(
                f"{event['name']} has diverged: its probabilities are not finite …",
                file=sys.stderr,
                end=" ",
                flush=True,
            )
            return None
        metrics = [measure(stored[split], listed(folder)[1]) for split, folder in folders.items()]
    validation, unseen = ({"log_loss": each.log_loss, "accuracy": each.accuracy} for each in metrics)
    return Score(event["name"], event["at"], validation, unseen)


class Memory:
    """The peak memory of a process and of those that it has started, together; sampled twice a second.

    Attributes:
        watches: whether samples count.
    """

    def __init__(self, pid: int) -> None:
        self.watches = True
        self._pid, self._peak, self._ended = pid, 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """Return the peak in bytes; 0 where the system does not tell."""
        self._ended.set()
        self._thread.join()
        return self._peak

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLED):
            memory = sum(map(_memory, _family(self._pid)))
            if self.watches:
                self._peak = max(self._peak, memory)


def _family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [each for child in task.read_text().split() for each in _family(int(child))]
        except OSError:  # it has ended
            continue
    return found


def _memory(pid: int) -> int:
    """Return the memory of a process in bytes; memory that processes share is divided among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended, or this system has no such file
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Return the median, with minimum and maximum where there are several values."""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}}–{max(values):{form}})"


def relative(seconds: Mapping[str, Sequence[float]], name: str) -> str:
    """Return the seconds of a contender relative to vggft in the same round; – without vggft."""
    if VGGFT not in seconds:
        return "–"
    return spread([a / b for a, b in zip(seconds[name], seconds[VGGFT], strict=True)], ".2f")


def fastest_first(seconds: Mapping[str, Sequence[float]]) -> list[str]:
    """Return contenders in the order of their medians: those that are faster than vggft are above it."""
    return sorted(seconds, key=lambda name: statistics.median(seconds[name]))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, the first column aligned left."""
    lines = [f"| {' | '.join(heads)} |", "|---|" + "--:|" * (len(heads) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
