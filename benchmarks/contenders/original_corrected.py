"""The original experiment without its mistakes, still by `fit` on pixels.

After https://keras.io/guides/transfer_learning/: pictures are preprocessed as the weights expect, and the head is trained before
layers are unfrozen. Nothing is augmented, so the head trains on features computed once, the guide's "more lightweight workflow".
Each epoch trains and validates on every image. The epoch with the lowest validation log-loss is kept, as in
https://keras.io/api/callbacks/model_checkpoint/ and https://keras.io/api/callbacks/early_stopping/.

The network, the layers that train, SGD and the number of epochs are those of the script. The head trains for at most 50 epochs
and stops after 5 without improvement. `epoch` unfreezes all of block5, with batches of 32 and a random head, because only its
seconds count.
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

FROZEN, BLOCK5 = 16, 15  # layers below block5_conv2, and below block5_conv1
BATCH, EPOCHS = 64, 20
HEAD_EPOCHS, HEAD_PATIENCE = 50, 5


def experiment(entry: Entry) -> None:
    """Train the head, then for the epochs of the task; keep the best epoch."""
    model = tuned(entry, entry.task.epochs)
    entry.judge("best", predictor(model))


def race(entry: Entry) -> None:
    """Train the head, then for the epochs of the script, or until the time is up; each epoch is judged."""
    with suppress(TimeIsUpError):
        tuned(entry, EPOCHS, judged=True)


def epoch(entry: Entry) -> None:
    """Fine-tune all of block5 and a head."""
    import keras

    task = entry.task
    keras.utils.set_random_seed(task.seed)
    base = vgg16(task)
    model = on_top(base, classic_head(len(classes(task.data / TRAIN))))
    fine_tune(entry, (base, model), BLOCK5, (task.epochs, 32), [reporting(entry)])


def tuned(entry: Entry, epochs: int, judged: bool = False) -> Any:
    """Return the network at its best epoch; the trained head is epoch 0."""
    import keras

    keras.utils.set_random_seed(entry.task.seed)
    base = vgg16(entry.task)
    base.trainable = False
    head, log_loss = trained_head(entry, base)
    model = on_top(base, head)
    predict: Predict | None = None
    if judged:
        predict = predictor(model)
        entry.judge("head", predict)
    path = entry.task.work / "best.weights.h5"
    model.save_weights(path)
    best = keras.callbacks.ModelCheckpoint(
        path, save_best_only=True, save_weights_only=True, initial_value_threshold=log_loss
    )
    fine_tune(entry, (base, model), FROZEN, (epochs, BATCH), [best, reporting(entry, predict=predict)])
    model.load_weights(path)
    return model


def trained_head(entry: Entry, base: Any) -> tuple[list[Any], float]:
    """Train the head on outputs of the base, computed once; return its layers and its validation log-loss."""
    import keras

    data = entry.task.data
    number = len(classes(data / TRAIN))
    extractor = on_top(base, [])
    features, targets = {}, {}
    for split in (TRAIN, VALIDATE):
        features[split] = extractor.predict(pictures(data / split), callbacks=[reporting(entry)], verbose=0)
        targets[split] = listed(data / split)[1]
    head = keras.Sequential([keras.Input(base.output_shape[1:]), *classic_head(number)])
    head.compile(keras.optimizers.Adam(1e-4), loss(number), metrics=["accuracy"])
    validation = features[VALIDATE], targets[VALIDATE]
    best = keras.callbacks.EarlyStopping(patience=HEAD_PATIENCE, restore_best_weights=True)
    head.fit(
        features[TRAIN],
        targets[TRAIN],
        batch_size=BATCH,
        epochs=HEAD_EPOCHS,
        validation_data=validation,
        callbacks=[best, reporting(entry, "head epoch")],
        verbose=0,
    )
    return head.layers, head.evaluate(*validation, verbose=0)[0]


def fine_tune(
    entry: Entry, network: tuple[Any, Any], frozen: int, epochs_batch: tuple[int, int], callbacks: list[Any]
) -> None:
    """Train what is above the frozen layers, on all images."""
    import keras

    data = entry.task.data
    base, model = network
    epochs, batch = epochs_batch
    base.trainable = True
    for layer in base.layers[:frozen]:
        layer.trainable = False
    model.compile(keras.optimizers.SGD(1e-4, momentum=0.9), loss(len(classes(data / TRAIN))), metrics=["accuracy"])
    model.fit(
        pictures(data / TRAIN, batch, entry.task.seed),
        epochs=epochs,
        validation_data=pictures(data / VALIDATE, batch),
        callbacks=callbacks,
        verbose=0,
    )


if __name__ == "__main__":
    main({"experiment": experiment, "race": race, "epoch": epoch})
