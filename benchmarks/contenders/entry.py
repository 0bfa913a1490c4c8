"""A contender's side of a benchmark: its task, a clock, and events for the process that started it.

A contender is started as `python -m benchmarks.contenders.NAME TASK`, where TASK is a file with the fields of `Task` as JSON.
Events are lines of JSON on standard output; whatever libraries print goes to standard error. This module needs NumPy only, so
a contender may run with an interpreter that has its own libraries and not vggft.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

PICTURES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}  # what Keras's image_dataset_from_directory reads
TRAIN, VALIDATE = "train", "validate"
KERAS_WEIGHTS, ARRAYS = "vgg16.weights.h5", "vgg16.npz"  # of the 13 convolutions, in the folder `Task.weights`
UNSEEN = "unseen"
_VERSIONS = ("tensorflow", "keras", "torch", "torchvision", "fastai", "sklearn", "numpy")


@dataclass(frozen=True)
class Task:
    """What is to be done.

    Attributes:
        do: which task; the questions in `benchmarks.questions` define them.
        data: folder with `train/` and `validate/`, each with a folder for each class.
        unseen: folder with a folder for each class: images that neither train nor choose anything. Scores on them are reported
            while the clock stands still.
        weights: folder with the ImageNet weights of VGG16 without its top: `KERAS_WEIGHTS` for Keras's `load_weights`, and
            `ARRAYS`, an .npz file with `<layer>/kernel`, float32 (3, 3, in, out), and `<layer>/bias`, for pixels as the published
            weights expect them (BGR from 0 to 255 less the means 103.939, 116.779, 123.68).
        work: folder for what the contender keeps from one task to the next.
        epochs: of training; 0 where the contender decides.
        seed: differs from round to round.
        seconds: for all of it, by `Entry.clock`; None for as long as it takes.
        began: when the process was started, `time.time()`.
    """

    do: str
    data: Path
    unseen: Path
    weights: Path
    work: Path
    epochs: int = 0
    seconds: float | None = None
    seed: int = 0
    began: float = 0.0

    def write(self, path: Path) -> None:
        """Write the file that `read` reads; the clock starts now."""
        path.write_text(json.dumps(replace(self, began=time.time()).fields()))

    def fields(self) -> dict[str, Any]:
        """Return the fields as JSON."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a task."""
        fields = json.loads(path.read_text())
        return cls(**fields | {name: Path(fields[name]) for name in ("data", "unseen", "weights", "work")})


class Entry:
    """A contender's side of a task."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._paused = 0.0
        self._judged = 0
        self._events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)

    @property
    def clock(self) -> float:
        """Seconds since the process was started, without those in `judge`."""
        return time.time() - self.task.began - self._paused

    @property
    def seconds_left(self) -> float:
        """Seconds until the time of the task is up."""
        return float("inf") if self.task.seconds is None else self.task.seconds - self.clock

    def say(self, event: str, **values: Any) -> None:
        """Report an event, with the time on the clock."""
        print(json.dumps({"event": event, "clock": self.clock, **values}), file=self._events)

    def epoch(self, seconds: float) -> None:
        """Report that an epoch of training, with its validation, has taken some seconds."""
        self.say("epoch", seconds=seconds)

    def judge(self, name: str, predict: Callable[[Path], NDArray[Any]]) -> None:
        """Report how good a model is that exists at this time; its predictions take no time on the clock.

        Args:
            name: of the model, such as "epoch 3".
            predict: gets a folder with a folder for each class, and returns probabilities (images, classes) of the images in the
                order of `listed`, classes sorted.
        """
        clock, stopped = self.clock, time.time()
        self.say("judging")  # memory does not count from here on
        folders = {VALIDATE: self.task.data / VALIDATE, UNSEEN: self.task.unseen}
        path = self.task.work / f"judged-{self._judged}.npz"
        np.savez(path, **{split: np.asarray(predict(folder), np.float64) for split, folder in folders.items()})  # type: ignore[arg-type]
        self._judged += 1
        self._paused += time.time() - stopped
        self.say("judged", name=name, at=clock, file=str(path))

    def run(self, tasks: Mapping[str, Callable[["Entry"], None]]) -> None:
        """Do the task, or say which library is not installed."""
        self.task.work.mkdir(parents=True, exist_ok=True)
        try:
            tasks[self.task.do](self)
        except ModuleNotFoundError as error:
            self.say("missing", reason=str(error))
            return
        loaded = {name: sys.modules[name] for name in _VERSIONS if name in sys.modules}
        self.say("done", versions={name: getattr(module, "__version__", "?") for name, module in loaded.items()})


def main(tasks: Mapping[str, Callable[[Entry], None]]) -> None:
    """Do the task that the command line names."""
    Entry(Task.read(Path(sys.argv[1]))).run(tasks)


def classes(folder: Path) -> list[str]:
    """Return the names of the class folders, sorted."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def listed(folder: Path) -> tuple[list[Path], NDArray[np.int64]]:
    """Return the pictures of a folder with class folders, class by class and sorted, and the numbers of their classes."""
    files = [
        (path, number)
        for number, name in enumerate(classes(folder))
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in PICTURES
    ]
    return [path for path, _ in files], np.array([number for _, number in files], np.int64)
