"""Specifications of heads: architecture and hyper-parameters under a name, and the default set of heads."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from featurize.options import Option, Options

Pooling = Literal["flatten", "avg", "max", "avgmax"]

# Names of heads and runs become folder names beside vggft's own CSV files.
NAME = re.compile(r"(?!.*\.csv$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAMES = "letters, digits, '.', '_' and '-', 64 at most, and no .csv at the end"


_VIEWS = "-views"


def with_views(name: str, number: int) -> str:
    """Return the name of a head that is trained on `number` views of each image."""
    return f"{name}{_VIEWS}{number}"


def without_views(name: str) -> tuple[str, int]:
    """Split what `with_views` returns into name and number; a name without a number of views has 0."""
    base, _, number = name.rpartition(_VIEWS)
    return (base, int(number)) if base and number.isdecimal() else (name, 0)


@dataclass(frozen=True)
class DenseSpec(Options):
    """A dense head: pooling → hidden ReLU units → dropout → classes, trained by Adam.

    Attributes:
        name: display name, and name of the head's folder.
        pooling: see `heads.head.pool`.
        units: width of the hidden layer; 0 makes the head linear.
        learning_rate: of Adam (Kingma & Ba, arXiv:1412.6980), with Keras's defaults for its other parameters.
        dropout: rate after the hidden layer; 0 for a linear head.
        l2: weight of the L2 penalty; l2 · the sum of squares of all kernels is added to the loss, as Keras's
            `kernel_regularizer` does.
        standardise: train on features moved to mean 0 and scaled by `heads.head.scales`, measured on the training images. The
            scaler is folded into the first layer after training, so the head reads raw features.
    """

    name: str
    pooling: Pooling
    units: Annotated[int, Option("Hidden units; 0: a linear head.", least=0, most=8192)]
    learning_rate: Annotated[float, Option("Learning rate of Adam.", above=0)]
    dropout: Annotated[float, Option("Dropout rate after the hidden layer.", least=0, below=1)] = 0.0
    l2: Annotated[float, Option("Weight of the L2 penalty.", least=0)] = 0.0
    standardise: bool = True


@dataclass(frozen=True)
class LogisticSpec(Options):
    """The baseline: logistic regression on standardised pooled features; training searches for C."""

    name: str
    pooling: Pooling


Spec = DenseSpec | LogisticSpec

# The head of the original experiment and of the 2016 Keras tutorials, which did not standardise features.
CLASSIC = DenseSpec("flatten-256-classic", "flatten", units=256, learning_rate=1e-4, dropout=0.5, standardise=False)

# Chosen from a grid search (two to five values of each hyper-parameter, all combinations) on the photographs and drawings used
# in development. Pooling, L2 and the learning rate mattered most, dropout less than L2, and 64 or 256 hidden units hardly at all.
POOLED_HEADS: tuple[DenseSpec, ...] = (
    DenseSpec("avg-linear", "avg", units=0, learning_rate=1e-3, l2=0.01),
    DenseSpec("max-linear", "max", units=0, learning_rate=1e-3, l2=0.01),
    DenseSpec("avgmax-linear", "avgmax", units=0, learning_rate=3e-4, l2=0.01),
    DenseSpec("avg-256", "avg", units=256, learning_rate=1e-3, dropout=0.5),
    DenseSpec("max-256", "max", units=256, learning_rate=3e-4, dropout=0.5),
    DenseSpec("avgmax-256", "avgmax", units=256, learning_rate=3e-4, dropout=0.5),
    DenseSpec("avg-64-l2", "avg", units=64, learning_rate=1e-3, l2=0.03),
    DenseSpec("max-64-l2", "max", units=64, learning_rate=1e-3, l2=0.03),
    DenseSpec("avgmax-64-l2", "avgmax", units=64, learning_rate=1e-3, l2=0.03),
    DenseSpec("avg-64-l2-dropout", "avg", units=64, learning_rate=3e-3, dropout=0.5, l2=0.01),
    DenseSpec("max-64-l2-dropout", "max", units=64, learning_rate=3e-3, dropout=0.5, l2=0.01),
    DenseSpec("avgmax-64-l2-dropout", "avgmax", units=64, learning_rate=3e-3, dropout=0.5, l2=0.01),
)
BASELINES = (
    LogisticSpec("logistic-avg", "avg"),
    LogisticSpec("logistic-max", "max"),
    LogisticSpec("logistic-avgmax", "avgmax"),
)
DEFAULTS: tuple[Spec, ...] = (*BASELINES, *POOLED_HEADS, CLASSIC)

# The specification of the randomly initialised head of `vggft finetune --from scratch`.
UNTRAINED = next(spec for spec in POOLED_HEADS if spec.name == "avg-256")
