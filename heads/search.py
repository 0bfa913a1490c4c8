"""Many heads on the same features, one after the other, and one leaderboard."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads import dense, logistic
from heads.dense import DenseSpec
from heads.head import Head, pool
from heads.logistic import LogisticSpec
from heads.metrics import Metrics, judge
from heads.training import Epoch, Examples, Plan

Spec = DenseSpec | LogisticSpec

# The baseline on both poolings, two small dense heads, and the classic head of the Keras tutorials of 2016.
DEFAULT_SPECS: tuple[Spec, ...] = (
    LogisticSpec("logistic-avg", "avg"),
    LogisticSpec("logistic-max", "max"),
    DenseSpec("avg-256", "avg", units=256, dropout=0.5, learning_rate=1e-3),
    DenseSpec("max-256", "max", units=256, dropout=0.5, learning_rate=3e-4),
    DenseSpec("flatten-256-classic", "flatten", units=256, dropout=0.5, learning_rate=1e-4, standardise=False),
)


@dataclass(frozen=True)
class Features:
    """`block5_pool` of one split: outputs (n, height, width, filters), targets (n,), groups (n names)."""

    outputs: NDArray[np.float16]
    targets: NDArray[np.int64]
    groups: Sequence[str]


@dataclass(frozen=True)
class Result:
    """A trained head and how it did: seconds to train, validation metrics, learning curve (dense heads), a remark."""

    head: Head
    seconds: float
    validation: Metrics
    history: Sequence[Epoch] = ()
    remark: str = ""
    pipeline: Any = None

    def as_json(self) -> dict[str, Any]:
        """Return name, kind, pooling, parameters, seconds and validation metrics."""
        return {
            "name": self.head.name,
            "kind": self.head.kind,
            "pooling": self.head.pooling,
            "parameters": self.head.parameters,
            "seconds": self.seconds,
            "validation": self.validation.as_json(),
            **({"remark": self.remark} if self.remark else {}),
        }


def train_all(
    specs: Sequence[Spec],
    classes: Sequence[str],
    train: Features,
    validation: Features,
    plan: Plan,
    on_epoch: Callable[[str, Epoch], None] = lambda name, epoch: None,
) -> Iterator[Result]:
    """Train every head in turn and yield it as soon as it is done, so that a stopped run keeps what it finished.

    The seconds of a head do not include the pooling, which heads share.
    """

    @cache
    def pooled(pooling: str) -> tuple[Examples, Examples]:
        return (
            Examples(pool(train.outputs, pooling), train.targets),
            Examples(pool(validation.outputs, pooling), validation.targets),
        )

    for spec in specs:
        ours, theirs = pooled(spec.pooling)
        began = time.perf_counter()
        if isinstance(spec, LogisticSpec):
            fitted = logistic.train(spec, classes, ours, train.groups, plan.seed)
            seconds = time.perf_counter() - began
            measured = judge(fitted.head.predict(validation.outputs), validation.targets)
            remark = f"C = {fitted.strength:.3g}, {fitted.status}"
            yield Result(fitted.head, seconds, measured, remark=remark, pipeline=fitted.pipeline)
        else:
            head, trained = dense.train(
                spec,
                classes,
                ours,
                theirs,
                plan,
                partial(on_epoch, spec.name),
            )
            seconds = time.perf_counter() - began
            measured = judge(head.predict(validation.outputs), validation.targets)
            yield Result(head, seconds, measured, trained.history, f"epoch {trained.best.epoch} kept")


def merit(validation: Metrics, parameters: int) -> tuple[float, int]:
    """What "best" means, for heads and tuned networks: lowest validation log-loss, ties to fewer trained numbers."""
    return validation.log_loss, parameters


def best_first(results: Sequence[Result]) -> list[Result]:
    """Order by `merit`."""
    return sorted(results, key=lambda result: merit(result.validation, result.head.parameters))
