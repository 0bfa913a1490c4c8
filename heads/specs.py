"""Which heads there are to train: architecture and hyper-parameters by name, and the default population."""

import re
from dataclasses import dataclass
from typing import Annotated

from featurize.options import Option, Options
from heads.head import Pooling

# What heads and runs may be called: names of folders, and of no file of ours.
NAME = re.compile(r"(?!.*\.csv$)[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NAMES = "letters, digits, '.', '_' and '-', 64 at most, and no .csv at the end"


@dataclass(frozen=True)
class DenseSpec(Options):
    """A dense head: pooling → hidden ReLU units → dropout → classes, trained by Adam.

    Attributes:
        name: what people call it, and its folder.
        pooling: see `heads.head.pool`.
        units: of the one hidden layer; 0: none, the head is linear.
        learning_rate: of Adam (Kingma & Ba, arXiv:1412.6980), other parameters as Keras has them.
        dropout: rate after the hidden layer; a linear head has none.
        l2: added to the loss is l2 · the sum of squares of all kernels (as Keras's `kernel_regularizer` does).
        standardise: training sees features of mean 0 and variance 1, as measured on the training images; the scaler is folded
            into the first layer afterwards, so that the head reads features as they are.
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
    """The baseline: logistic regression on standardised pooled features; its L2 strength is searched for."""

    name: str
    pooling: Pooling


Spec = DenseSpec | LogisticSpec

# The head of the experiment that vggft grew from, and of the Keras tutorials of 2016; their features were not standardised.
CLASSIC = DenseSpec("flatten-256-classic", "flatten", units=256, learning_rate=1e-4, dropout=0.5, standardise=False)

# What was seen to matter on the photographs and drawings this was developed with: the pooling, L2 (more than dropout) and
# the learning rate; 64 hidden units or 256 hardly. Seen by training all combinations of two to five values of each.
POOLED: tuple[DenseSpec, ...] = (
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
DEFAULTS: tuple[Spec, ...] = (*BASELINES, *POOLED, CLASSIC)

# What `vggft finetune --from` takes in the place of a head's name: the best head, and one of this form with random weights.
BEST, SCRATCH = "best", "scratch"
UNTRAINED = next(spec for spec in POOLED if spec.name == "avg-256")
