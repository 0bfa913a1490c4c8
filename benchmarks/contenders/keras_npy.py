"""Features from Keras's `predict` in a .npy file, and heads on them by Keras and scikit-learn: a home-made cache.

After https://keras.io/api/applications/ (features with VGG16), https://scikit-learn.org/stable/modules/preprocessing.html (a
pipeline of StandardScaler and logistic regression), scikit-learn's reference of LogisticRegressionCV, and
https://keras.io/api/callbacks/early_stopping/. A list of the files beside the features tells when pictures or labels have
changed: everything is then computed again.

`population` trains the default heads of vggft, listed below, one after another. Dense heads train for at most 50 epochs and are
restored to the epoch with the lowest validation log-loss.
"""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.entry import TRAIN, VALIDATE, Entry, Task, classes, listed, main
from benchmarks.contenders.keras_network import (
    TimeIsUpError,
    classic_head,
    loss,
    on_top,
    pictures,
    probabilities,
    reporting,
    vgg16,
)

FEATURES, FILES = "features-{}.npy", "files-{}.txt"
Scores = Callable[[NDArray[Any]], NDArray[Any]]


class Dense(NamedTuple):
    """A dense head; without hidden units it is linear."""

    pooling: str
    units: int
    learning_rate: float
    dropout: float = 0.0
    l2: float = 0.0
    standardise: bool = True


DENSE = (
    Dense("avg", 0, 1e-3, l2=0.01),
    Dense("max", 0, 1e-3, l2=0.01),
    Dense("avgmax", 0, 3e-4, l2=0.01),
    Dense("avg", 256, 1e-3, dropout=0.5),
    Dense("max", 256, 3e-4, dropout=0.5),
    Dense("avgmax", 256, 3e-4, dropout=0.5),
    Dense("avg", 64, 1e-3, l2=0.03),
    Dense("max", 64, 1e-3, l2=0.03),
    Dense("avgmax", 64, 1e-3, l2=0.03),
    Dense("avg", 64, 3e-3, dropout=0.5, l2=0.01),
    Dense("max", 64, 3e-3, dropout=0.5, l2=0.01),
    Dense("avgmax", 64, 3e-3, dropout=0.5, l2=0.01),
    Dense("flatten", 256, 1e-4, dropout=0.5, standardise=False),
)
LOGISTIC = ("avg", "max", "avgmax")
EPOCHS, PATIENCE = 50, 15  # as vggft has them


def features(entry: Entry) -> None:
    """Compute block5_pool of all pictures, unless the stored features are those of these files."""
    for split in (TRAIN, VALIDATE):
        stored(entry, split)


def classic(entry: Entry) -> None:
    """Train the classic head on the stored features."""
    import keras

    keras.utils.set_random_seed(entry.task.seed)
    number = len(classes(entry.task.data / TRAIN))
    train, validate = (stored(entry, split) for split in (TRAIN, VALIDATE))
    head = keras.Sequential(classic_head(number))
    head.compile(keras.optimizers.Adam(1e-4), loss(number), metrics=["accuracy"])
    head.fit(*train, epochs=entry.task.epochs, validation_data=validate, callbacks=[reporting(entry)], verbose=0)


def population(entry: Entry) -> None:
    """Train all heads, and choose the one with the lowest validation log-loss."""
    import keras
    from sklearn.metrics import log_loss

    keras.utils.set_random_seed(entry.task.seed)
    data = {split: stored(entry, split) for split in (TRAIN, VALIDATE)}
    inputs = {
        pooling: {split: (pooled(x, pooling), targets) for split, (x, targets) in data.items()}
        for pooling in (*LOGISTIC, "flatten")
    }
    heads = [(pooling, logistic(*inputs[pooling][TRAIN])) for pooling in LOGISTIC]
    heads += [(spec.pooling, dense(spec, inputs[spec.pooling])) for spec in DENSE]

    def validation(head: tuple[str, Scores]) -> float:
        pooling, scores = head
        x, targets = inputs[pooling][VALIDATE]
        p = scores(x)
        return float(log_loss(targets, p, labels=np.arange(p.shape[1])))

    pooling, scores = min(heads, key=validation)
    entry.say("population", heads=len(heads))
    entry.judge("best", lambda folder: scores(pooled(computed(entry.task, folder), pooling)))


def race(entry: Entry) -> None:
    """Compute features, then fit logistic regression to the pooled and to the flattened ones."""
    # Judging takes no time on the clock, but need not compute unseen pictures twice.
    seen: dict[Path, NDArray[Any]] = {}

    def judged(folder: Path) -> NDArray[Any]:
        if folder not in seen:
            seen[folder] = computed(entry.task, folder)
        return scores(pooled(seen[folder], pooling))

    with suppress(TimeIsUpError):
        x, targets = stored(entry, TRAIN)
        seen[entry.task.data / VALIDATE] = stored(entry, VALIDATE)[0]
        for pooling in ("avg", "flatten"):
            with interrupted(entry):
                scores = logistic(pooled(x, pooling), targets)
            entry.judge(f"logistic regression, {pooling}", judged)


def logistic(x: NDArray[Any], targets: NDArray[Any]) -> Scores:
    """Fit logistic regression to standardised features; cross-validation chooses C if each class has two images or more."""
    from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = min(5, int(np.bincount(targets).min()))
    if folds < 2:
        regression = LogisticRegression(max_iter=1000)
    else:
        regression = LogisticRegressionCV(
            cv=folds, l1_ratios=(0,), max_iter=1000, scoring="neg_log_loss", use_legacy_attributes=False, n_jobs=-1
        )
    model = make_pipeline(StandardScaler(), regression).fit(x, targets)
    return lambda x: probabilities(model.predict_proba(x))


def dense(spec: Dense, data: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]) -> Scores:
    """Train a dense head, and restore its best epoch."""
    import keras
    from keras import layers

    (x, targets), number = data[TRAIN], int(data[TRAIN][1].max()) + 1
    penalty = keras.regularizers.L2(spec.l2) if spec.l2 else None
    head = keras.Sequential([keras.Input(x.shape[1:])])
    if spec.standardise:
        normalization = layers.Normalization()
        normalization.adapt(x)
        head.add(normalization)
    if spec.units:
        head.add(layers.Dense(spec.units, "relu", kernel_regularizer=penalty))
        head.add(layers.Dropout(spec.dropout))
    outputs, activation = (1, "sigmoid") if number == 2 else (number, "softmax")
    head.add(layers.Dense(outputs, activation, kernel_regularizer=penalty))
    head.compile(keras.optimizers.Adam(spec.learning_rate), loss(number), metrics=[loss(number)])
    best = keras.callbacks.EarlyStopping(  # by the metric, because the loss contains the penalty
        f"val_{loss(number)}", mode="min", patience=PATIENCE, restore_best_weights=True
    )
    validation = data[VALIDATE][0], data[VALIDATE][1][:, None]
    head.fit(x, targets[:, None], epochs=EPOCHS, validation_data=validation, callbacks=[best], verbose=0)
    return lambda x: probabilities(head.predict(x, verbose=0))


def pooled(x: NDArray[Any], pooling: str) -> NDArray[Any]:
    """Return a row of numbers for each picture."""
    if pooling == "flatten":
        return x.reshape(len(x), -1)
    parts = {"avg": [x.mean(axis=(1, 2))], "max": [x.max(axis=(1, 2))]}
    return np.hstack(parts["avg"] + parts["max"] if pooling == "avgmax" else parts[pooling])


def stored(entry: Entry, split: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the features of a split, float32 (images, 7, 7, 512), and the numbers of the classes."""
    files, targets = listed(entry.task.data / split)
    path, names = (entry.task.work / name.format(split) for name in (FEATURES, FILES))
    text = "\n".join(map(str, files))
    if not (names.exists() and names.read_text() == text):
        np.save(path, computed(entry.task, entry.task.data / split, [reporting(entry)]))
        names.write_text(text)
    return np.load(path), targets


def computed(task: Task, folder: Path, callbacks: Any = None) -> NDArray[Any]:
    """Run the frozen network over the pictures of a folder with class folders."""
    x: NDArray[Any] = extractor(task).predict(pictures(folder), callbacks=callbacks, verbose=0)
    return x


@cache
def extractor(task: Task) -> Any:
    """Return the frozen network, loaded once."""
    return on_top(vgg16(task), [])


@contextmanager
def interrupted(entry: Entry) -> Iterator[None]:
    """Raise `TimeIsUpError` inside, between iterations of the solver or while folds are fitted, when the time is up."""
    if entry.task.seconds is None:
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeIsUpError

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(entry.seconds_left, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main({"features": features, "classic": classic, "population": population, "race": race})
