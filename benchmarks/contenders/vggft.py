"""vggft, by its commands' Python interface and with their defaults."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

import finetune.train
from benchmarks.contenders.entry import Entry, listed, main
from featurize import runner
from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.disk import durable
from featurize.engines import WORTH_MEASURING
from finetune.train import Callbacks, State
from heads.search import Result
from vggft import Experiment
from vggft.prediction.inference import start_its_engine
from vggft.steps.board import Board
from vggft.workspace.backbone import decoder, start_engine

CLASSIC = "flatten-256-classic"
BATCH = 32  # of fine-tuning, as the contenders have it that it is compared with
_AT_ONCE = 32  # pictures computed at once for `judge`


class _TimeIsUp(Exception):
    """The time of the task is over."""


def ready(entry: Entry) -> None:
    """Compile and measure the engines, as vggft does once on a machine, for its first many images."""
    chosen = start_engine(VGG16, Fingerprint.of(VGG16), None, images=WORTH_MEASURING)
    entry.say("ready", engine=chosen.name)


def experiment(entry: Entry) -> Experiment:
    """Return the workspace in the contender's folder."""
    return Experiment(entry.task.work / "vggft-work")


def features(entry: Entry) -> None:
    """Cache the features of all pictures, or of those that are new."""
    result = experiment(entry).featurize(entry.task.data)
    entry.say("features", computed=result["computed"], engine=result["engine"])


def classic(entry: Entry) -> None:
    """Train the classic head from the cache."""
    # As many epochs as asked for, and no cross-validation: what the other contenders do.
    epochs, seed = entry.task.epochs, entry.task.seed
    experiment(entry).fit_heads(head=[CLASSIC], epochs=epochs, patience=epochs, cv=0, retrain=True, seed=seed)


def population(entry: Entry) -> None:
    """Train the default heads from the cache, without cross-validation: what the other contenders do."""
    work = experiment(entry)
    trained = work.fit_heads(cv=0, retrain=True, seed=entry.task.seed)["heads"]
    entry.say("population", heads=len(trained))
    entry.judge("best", _of(work))


def epoch(entry: Entry, memory: int | None = None) -> None:
    """Tune block5 and a head from the cache; `memory`: bytes of inputs in memory, None for the default."""
    work = experiment(entry)
    if not (work.workspace.heads / "logistic-avg").exists():
        work.fit_heads(head=["logistic-avg"], cv=0)
    epochs, seed = entry.task.epochs, entry.task.seed
    with _each_epoch(entry, lambda state, program: None):
        work.finetune(epochs=epochs, patience=epochs, batch_size=BATCH, seed=seed, memory=memory)


def original(entry: Entry) -> None:
    """Repeat the original experiment: the recipe, which uses every training image in every epoch, on cached features."""
    work = experiment(entry)
    work.featurize(entry.task.data, preprocess="raw")
    with _each_epoch(entry, lambda state, program: None):
        run = work.finetune(recipe="original", epochs=entry.task.epochs, seed=entry.task.seed)
    entry.judge("last", _of(work, run["name"]))


def race(entry: Entry) -> None:
    """Do the commands of the README: featurize, head, finetune."""
    work = experiment(entry)
    features(entry)
    with _first_head(entry, work):
        work.fit_heads(seed=entry.task.seed)
    entry.judge("best head", _of(work))

    @cache
    def below(folder: Path) -> NDArray[np.float16]:
        return _outputs(work, folder)

    def on_epoch(state: State, program: Any) -> None:
        current = program.weights()
        program.set_weights(state.best)  # what vggft keeps, with the temperature
        entry.judge(f"epoch {state.epoch}", lambda folder: _in_batches(program.predict, below(folder)))
        program.set_weights(current)

    def on_step(*_: Any) -> None:
        if entry.seconds_left <= 0:
            raise _TimeIsUp

    try:
        with _each_epoch(entry, on_epoch, on_step):
            work.finetune(seed=entry.task.seed)
    except _TimeIsUp:
        pass


def _of(work: Experiment, name: str | None = None) -> Callable[[Path], NDArray[np.float64]]:
    """Return what predicts the pictures of a folder with a model; None: the best."""
    return lambda folder: work.model(name).predict(listed(folder)[0])


def _first_head(entry: Entry, work: Experiment) -> Any:
    """Return a context in which the first head is judged as soon as it is on disk, where `vggft predict` finds it."""
    add = Board.add

    def first(board: Board, result: Result) -> None:
        add(board, result)
        if len(board.trained) == 1:
            entry.judge("first head", _of(work, result.head.name))

    return mock.patch.object(Board, "add", first)


def _each_epoch(
    entry: Entry, on_epoch: Callable[[State, Any], None], on_step: Callable[..., None] = lambda *_: None
) -> Any:
    """Return a context in which fine-tuning reports its epochs, each with its checkpoint, and also calls these functions.

    They are called after each step, and after each epoch but epoch 0.
    """
    train = finetune.train.train

    def watched(program: Any, data: Any, plan: Any, state: Any, callbacks: Callbacks) -> State:
        clock = entry.clock

        def each(now: State) -> None:
            nonlocal clock
            callbacks.epoch(now)
            if now.epoch:
                entry.epoch(entry.clock - clock)
                on_epoch(now, program)
            clock = entry.clock

        def step(*values: Any) -> None:
            callbacks.step(*values)
            on_step(*values)

        return train(program, data, plan, state, Callbacks(step, each))

    return mock.patch.object(finetune.train, "train", watched)


def _outputs(work: Experiment, folder: Path) -> NDArray[np.float16]:
    """Compute what fine-tuning reads of the pictures of a folder, as `featurize` does."""
    network = work.workspace.architecture
    layer = network.split_point(network.unfreeze)
    assert layer
    files, engine = listed(folder)[0], start_its_engine(work.workspace)
    digests = [durable.sha256(file) for file in files]
    decode = decoder(work.workspace.settings.fingerprint)
    pictures = dict(
        runner.decoded({digest: [file] for digest, file in zip(digests, files, strict=True)}, decode, _AT_ONCE)
    )
    rows = np.stack([pictures[digest] for digest in digests])
    return _in_batches(lambda some: engine(some, [layer])[0].astype(np.float16), rows)


def _in_batches(function: Callable[[Any], NDArray[Any]], rows: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([function(rows[first : first + _AT_ONCE]) for first in range(0, len(rows), _AT_ONCE)])


if __name__ == "__main__":
    tasks = (ready, features, classic, population, epoch, race)
    main({task.__name__: task for task in tasks} | {"experiment": original})
