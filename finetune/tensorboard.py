"""Learning curves for TensorBoard, if TensorFlow is installed; with any Keras backend."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from featurize.backend import load_quietly
from featurize.disk import durable
from heads.history import Epoch

# Tag → attributes of `Epoch` for training and validation; curves with the same tag share a panel.
_TAGS = {
    "loss": ("loss", "val_loss"),
    "log_loss": ("log_loss", "val_log_loss"),
    "accuracy": ("accuracy", "val_accuracy"),
}
SPLITS = ("train", "validation")
_EVENTS = "events.out.tfevents."


def is_ours(path: Path) -> bool:
    """Return whether a file or folder has a name that `Log` uses."""
    return path.match(f"{_EVENTS}*.vggft") or path.name in (*SPLITS, "tensorboard")


class Log:
    """Event files in `train/` and `validation/`, one row per epoch. Without TensorFlow, nothing is written."""

    def __init__(self, folder: Path, history: Sequence[Epoch] = ()) -> None:
        """Start a log with the epochs so far, replacing an earlier log."""
        self._writers: list[Any] = []
        if importlib.util.find_spec("tensorflow") is None:
            return
        tf = load_quietly("tensorflow")
        self._write, self._failure = tf.summary.write, tf.errors.OpError
        # Like `tf.summary.scalar`, which requires the package tensorboard.
        plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        self._metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin, data_class="DATA_CLASS_SCALAR")
        durable.refuse_link(folder)
        durable.remove_known(folder, is_ours)
        for split in SPLITS:
            (folder / split).mkdir(parents=True, exist_ok=True)
            self._writers.append(tf.summary.create_file_writer(str(folder / split), filename_suffix=".vggft"))
        for epoch in history:
            self.write(epoch)

    def write(self, epoch: Epoch) -> None:
        """Write an epoch and flush the files.

        Raises:
            OSError: the log cannot be written; later calls write nothing.
        """
        try:
            for column, writer in enumerate(self._writers):
                with writer.as_default(step=epoch.epoch):
                    for tag, names in _TAGS.items():
                        value = getattr(epoch, names[column])
                        if value is not None:
                            self._write(tag, np.float32(value), metadata=self._metadata)
                writer.flush()
        except self._failure as error:
            self._writers = []
            reason = error.message.rpartition("}} ")[2].partition("\n")[0]  # without the name of TensorFlow's operation
            raise OSError(f"the TensorBoard log cannot be written ({reason})") from None

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers:
            writer.close()
