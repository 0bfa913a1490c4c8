"""What several contenders do alike with Keras: VGG16, pictures, the classic head, probabilities, and reports after each epoch.

After https://keras.io/api/applications/, https://keras.io/api/data_loading/image/ and
https://keras.io/guides/transfer_learning/ (pixels go into the model, which does the preprocessing).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.entry import KERAS_WEIGHTS, Entry, Task

SHAPE = (224, 224, 3)
Predict = Callable[[Path], NDArray[Any]]


class TimeIsUpError(Exception):
    """The seconds of the task are over."""


def vgg16(task: Task) -> Any:
    """Return the network without its top, with the weights of the task."""
    import keras

    return keras.applications.VGG16(include_top=False, weights=str(task.weights / KERAS_WEIGHTS), input_shape=SHAPE)


def on_top(base: Any, layers: Sequence[Any], preprocess: bool = True) -> Any:
    """Return a model that reads pixels (RGB from 0 to 255): preprocessing, if asked for, then the base, then layers."""
    import keras

    inputs = keras.Input(SHAPE)
    x = base(keras.applications.vgg16.preprocess_input(inputs) if preprocess else inputs)
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def classic_head(classes: int) -> list[Any]:
    """Return the layers of the original experiment, with random weights."""
    from keras import layers

    last = layers.Dense(1, "sigmoid") if classes == 2 else layers.Dense(classes, "softmax")
    return [layers.Flatten(), layers.Dense(256, "relu"), layers.Dropout(0.5), last]


def loss(classes: int) -> str:
    """Return the loss for the last layer of `classic_head`; as a metric, it has this name."""
    return "binary_crossentropy" if classes == 2 else "sparse_categorical_crossentropy"


def pictures(folder: Path, batch_size: int | None = 32, seed: int | None = None) -> Any:
    """Return a tf.data.Dataset of pixels and class numbers: in the order of `listed`, or with a seed shuffled in each epoch."""
    import keras

    return keras.utils.image_dataset_from_directory(
        folder,
        label_mode="int",
        image_size=SHAPE[:2],
        batch_size=batch_size,
        shuffle=seed is not None,
        seed=seed,
        verbose=False,
    )


def probabilities(outputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return a column for each class, also where the model has one sigmoid unit; rows sum to 1 in float64."""
    p = outputs.astype(np.float64)
    return np.hstack([1 - p, p]) if p.shape[1] == 1 else p / p.sum(axis=1, keepdims=True)


def predictor(model: Any) -> Predict:
    """Return what `Entry.judge` expects, for a model that reads pixels."""
    return lambda folder: probabilities(model.predict(pictures(folder), verbose=0))


def reporting(entry: Entry, event: str = "epoch", predict: Predict | None = None) -> Any:
    """Return a callback that reports the seconds of each epoch and has the model judged after it.

    It raises `TimeIsUpError` after the first batch, of training, validation or prediction, that ends too late.
    """
    import keras

    class Reporting(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            entry.say(event, seconds=time.perf_counter() - self.began)
            if predict:
                entry.judge(f"{event} {epoch + 1}", predict)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if entry.seconds_left <= 0:
                raise TimeIsUpError

        on_test_batch_end = on_predict_batch_end = on_train_batch_end

    return Reporting()
