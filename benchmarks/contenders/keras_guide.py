"""The recipe of Keras's guide to transfer learning and fine-tuning, with VGG16.

After https://keras.io/guides/transfer_learning/: with flipped and rotated pictures, Adam trains average pooling, dropout and one
dense layer on the frozen base, then the whole network with learning rate 1e-5. There are 20 epochs and 10, as in the guide's
explanation of the workflow; its example runs 2 and 1.

Changed for this comparison: VGG16, its preprocessing and pictures of 224 pixels replace Xception, rescaling and 150 pixels.
There may be more than two classes. Training pictures are shuffled, and cached before augmentation and not after it, so that
augmentation is random in each epoch.

`epoch` is the second phase, with batches of 32. It trains the whole network, where other contenders train block5 only.
"""

from contextlib import suppress
from typing import Any

from benchmarks.contenders.entry import TRAIN, VALIDATE, Entry, Task, classes, listed, main
from benchmarks.contenders.keras_network import (
    TimeIsUpError,
    on_top,
    pictures,
    predictor,
    reporting,
    vgg16,
)

HEAD_EPOCHS, EPOCHS, BATCH = 20, 10, 64


def race(entry: Entry) -> None:
    """Train the top layer, then everything, until the guide's epochs are over or the time is up."""
    import keras

    base, model = built(entry.task)
    number = len(classes(entry.task.data / TRAIN))
    scores = keras.layers.Activation("sigmoid" if number == 2 else "softmax")
    train, validate = augmented(entry.task, BATCH), pictures(entry.task.data / VALIDATE, BATCH).cache()
    callbacks = [reporting(entry, predict=predictor(keras.Sequential([model, scores])))]
    with suppress(TimeIsUpError):
        base.trainable = False
        compiled(model, keras.optimizers.Adam())
        model.fit(train, epochs=HEAD_EPOCHS, validation_data=validate, callbacks=callbacks, verbose=0)
        base.trainable = True
        compiled(model, keras.optimizers.Adam(1e-5))
        model.fit(
            train,
            initial_epoch=HEAD_EPOCHS,
            epochs=HEAD_EPOCHS + EPOCHS,
            validation_data=validate,
            callbacks=callbacks,
            verbose=0,
        )


def epoch(entry: Entry) -> None:
    """Fine-tune the whole network."""
    import keras

    task = entry.task
    _, model = built(task)
    compiled(model, keras.optimizers.Adam(1e-5))
    model.fit(
        augmented(task, 32),
        epochs=task.epochs,
        validation_data=pictures(task.data / VALIDATE, 32).cache(),
        callbacks=[reporting(entry)],
        verbose=0,
    )


def built(task: Task) -> tuple[Any, Any]:
    """Return the base and the network on it, whose outputs are logits."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(task.seed)
    number = len(classes(task.data / TRAIN))
    base = vgg16(task)
    top = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), layers.Dense(1 if number == 2 else number)]
    return base, on_top(base, top)


def compiled(model: Any, optimizer: Any) -> None:
    """Compile; needed again whenever layers are frozen or unfrozen."""
    from keras import losses

    kind = losses.BinaryCrossentropy if model.output_shape[1] == 1 else losses.SparseCategoricalCrossentropy
    model.compile(optimizer, kind(from_logits=True), metrics=["accuracy"])


def augmented(task: Task, batch_size: int) -> Any:
    """Return the training pictures, flipped and rotated at random."""
    import tensorflow as tf
    from keras import layers

    flip, rotate = layers.RandomFlip("horizontal"), layers.RandomRotation(0.1)
    folder = task.data / TRAIN
    decoded = pictures(folder, batch_size=None).cache()
    shuffled = decoded.shuffle(len(listed(folder)[0]), seed=task.seed).batch(batch_size)
    return shuffled.map(lambda x, y: (rotate(flip(x)), y), tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


if __name__ == "__main__":
    main({"race": race, "epoch": epoch})
