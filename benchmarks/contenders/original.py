"""The original experiment (docs/history.md): the blog post's script in current Keras, with its mistakes.

Each epoch of `fit` computes the whole network from pixels: RGB from 0 to 255, without the preprocessing that the weights expect.
The first 16 layers are frozen, and SGD trains two convolutions and a random head. `steps_per_epoch` covers half of the training
images, `validation_steps` drops the images after the last full batch, and the last epoch is kept.

Changed for this comparison: `image_dataset_from_directory` reads the files, as https://keras.io/api/data_loading/image/ shows,
because `flow_from_directory` is deprecated. There may be more than two classes. With too few images for a full batch, an epoch
is one step.

`classic` trains the head only, by Adam with learning rate 1e-4, on preprocessed pixels and with every image in every epoch.
"""

from contextlib import suppress
from typing import Any

from benchmarks.contenders.entry import TRAIN, VALIDATE, Entry, classes, listed, main
from benchmarks.contenders.keras_network import (
    Predict,
    TimeIsUpError,
    classic_head,
    loss,
    on_top,
    pictures,
    predictor,
    reporting,
    vgg16,
)

FROZEN = 16  # layers, the input among them: up to and including block5_conv1
BATCH, EPOCHS = 64, 20


def experiment(entry: Entry) -> None:
    """Train for the epochs of the task; keep the last."""
    model = built(entry)
    train(entry, model, entry.task.epochs)
    entry.judge("last", predictor(model))


def race(entry: Entry) -> None:
    """Train for the epochs of the script, or until the time is up."""
    model = built(entry)
    with suppress(TimeIsUpError):
        train(entry, model, EPOCHS, predictor(model))


def built(entry: Entry) -> Any:
    """Return the script's network, compiled."""
    import keras

    keras.utils.set_random_seed(entry.task.seed)
    number = len(classes(entry.task.data / TRAIN))
    base = vgg16(entry.task)
    for layer in base.layers[:FROZEN]:
        layer.trainable = False
    model = on_top(base, classic_head(number), preprocess=False)
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), loss(number), metrics=["accuracy"])
    return model


def train(entry: Entry, model: Any, epochs: int, predict: Predict | None = None) -> None:
    """Call `fit` as the script did."""
    data, seed = entry.task.data, entry.task.seed
    images = {split: len(listed(data / split)[0]) for split in (TRAIN, VALIDATE)}
    model.fit(
        pictures(data / TRAIN, BATCH, seed).repeat(),
        steps_per_epoch=max(1, images[TRAIN] // 2 // BATCH),
        epochs=epochs,
        validation_data=pictures(data / VALIDATE, BATCH, seed).repeat(),
        validation_steps=max(1, images[VALIDATE] // BATCH),
        callbacks=[reporting(entry, predict=predict)],
        verbose=0,
    )


def classic(entry: Entry) -> None:
    """Train the head on the frozen base, which computes all pictures in each epoch."""
    import keras

    task = entry.task
    keras.utils.set_random_seed(task.seed)
    number = len(classes(task.data / TRAIN))
    base = vgg16(task)
    base.trainable = False
    model = on_top(base, classic_head(number))
    model.compile(keras.optimizers.Adam(1e-4), loss(number), metrics=["accuracy"])
    model.fit(
        pictures(task.data / TRAIN, seed=task.seed),
        epochs=task.epochs,
        validation_data=pictures(task.data / VALIDATE),
        callbacks=[reporting(entry)],
        verbose=0,
    )


if __name__ == "__main__":
    main({"experiment": experiment, "race": race, "classic": classic})
