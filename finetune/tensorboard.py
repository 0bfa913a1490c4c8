"""Learning curves for TensorBoard, where TensorFlow is installed to write them, whatever backend trains."""

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurize import durable
from featurize.backend import load_quietly
from heads.history import Epoch

# Tags, and what is shown under them of training and of validation: in one panel, as the tag is the same.
_TAGS = {
    "loss": ("loss", "val_loss"),
    "log_loss": ("log_loss", "val_log_loss"),
    "accuracy": ("accuracy", "val_accuracy"),
}
_SPLITS = ("train", "validation")
_EVENTS = "events.out.tfevents."


def is_ours(path: Path) -> bool:
    """Return whether a file or folder has a name that `Log` gives."""
    return path.match(f"{_EVENTS}*.vggft") or path.name in (*_SPLITS, "tensorboard")


class Log:
    """Event files below a folder, `train/` and `validation/`; a row an epoch. Without TensorFlow it writes nothing."""

    def __init__(self, folder: Path, history: Sequence[Epoch] = ()) -> None:
        """Begin a log, in the place of an earlier one, with the epochs that are done."""
        self._writers: list[Any] = []
        if importlib.util.find_spec("tensorflow") is None:
            return
        tf = load_quietly("tensorflow")
        self._event, self._summary, self._failure = tf.compat.v1.Event, tf.compat.v1.Summary, tf.errors.OpError
        durable.refuse_link(folder)
        durable.remove_known(folder, is_ours)
        for split in _SPLITS:
            (folder / split).mkdir(parents=True, exist_ok=True)
            writer = tf.io.TFRecordWriter(str(folder / split / f"{_EVENTS}{time.time_ns() // 10**9}.vggft"))
            writer.write(self._event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            self._writers.append(writer)
        for epoch in history:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        """Add an epoch; it can be seen at once.

        Raises:
            OSError: it cannot be written; nothing more will be.
        """
        for column, writer in enumerate(self._writers):
            found = {tag: getattr(epoch, names[column]) for tag, names in _TAGS.items()}
            values = [self._summary.Value(tag=tag, simple_value=v) for tag, v in found.items() if v is not None]
            summary = self._summary(value=values)
            try:
                writer.write(self._event(wall_time=time.time(), step=epoch.epoch, summary=summary).SerializeToString())
                writer.flush()
            except self._failure as error:
                self._writers = []
                raise OSError(f"the log for TensorBoard cannot be written ({error.message})") from None

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers:
            writer.close()
