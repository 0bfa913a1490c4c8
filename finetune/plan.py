"""Training settings of fine-tuning."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from featurize.options import Option, Options
from featurize.options.choices import FULL_PRECISION, ClassWeight, Precision, Seed
from featurize.options.records import Count

Optimizer = Literal["sgd", "adam"]
Schedule = Literal["constant", "cosine"]
Keep = Literal["best", "last"]

# Heads that a training starts from: the best of all, the best logistic regression, and one with random weights.
BEST, LOGISTIC, SCRATCH = "best", "logistic", "scratch"

# Default learning rates, measured with the other defaults (docs/fine-tuning.md). Adam's is smaller, because its steps do not
# shrink with the gradient.
RATES: dict[Optimizer, float] = {"sgd": 1e-3, "adam": 1e-4}
_BY_OPTIMIZER: Any = None
_MOST = 1_000_000  # far above every useful value, and far below where 32-bit arithmetic overflows


@dataclass(frozen=True)
class Plan(Options):
    """Settings of one training.

    In addition to the help texts:
        batch_size: the last batch of an epoch may be smaller.
        seed: order and dropout masks depend only on seed, epoch and step.
        optimizer: Adam: Kingma & Ba, arXiv:1412.6980, with Keras's defaults for its other parameters.
        learning_rate: of the head, and of the other layers unless `layer_decay` is below 1.
        schedule: "cosine": Loshchilov & Hutter, arXiv:1608.03983, over all steps of all epochs, without restarts, after an epoch
            in which the rate rises linearly (Goyal et al., arXiv:1706.02677, section 2.2).
        dropout: None for that of the head, as in runs of earlier versions.
        layer_decay: discriminative learning rates, Howard & Ruder, arXiv:1801.06146; the head has the full rate.
        l2_sp: α of the penalty α/2 · ‖w − w⁰‖² on tuned convolutions, where w⁰ are the pretrained weights (Li, Grandvalet &
            Davoine, arXiv:1802.01483, equation 5, without its term for the head).
        class_weight: as in scikit-learn.
        clip: the norm of all gradients together.
        views: of each training image, besides the image itself; an epoch has a random one of each.
        keep: "best" keeps the epoch with the lowest validation log-loss and fits its temperature; "last" keeps the last epoch as
            it is: validation images decide nothing, and patience never ends training.
        precision: "mixed_float16" computes convolutions in 16 bits; weights, head and validation stay in 32 bits.
    """

    epochs: Annotated[
        int, Option("Maximum number of epochs; the best is kept, which may be epoch 0, the untuned head.", least=1)
    ] = 10
    batch_size: Annotated[int, Option("Images in a training step.", least=1)] = 16
    seed: Seed = 0
    optimizer: Annotated[Optimizer, Option("Optimizer.")] = "sgd"
    learning_rate: Annotated[
        float,
        Option(
            "Learning rate.",
            name="lr",
            above=0,
            default=", ".join(f"{rate:g} ({name})" for name, rate in RATES.items()),
        ),
    ] = _BY_OPTIMIZER
    momentum: Annotated[float, Option("Momentum of SGD.", least=0, below=1)] = 0.9
    schedule: Annotated[
        Schedule, Option("Learning-rate schedule; cosine rises in the first epoch, then falls to 0.")
    ] = "cosine"
    layer_decay: Annotated[
        float,
        Option("Multiply the learning rate by this factor once for each convolution further down.", above=0, most=1),
    ] = 1.0
    l2_sp: Annotated[
        float,
        Option("L2-SP penalty: pulls tuned layers towards their pretrained weights (e.g. 0.01).", least=0, most=_MOST),
    ] = 0.0
    label_smoothing: Annotated[
        float, Option("Label smoothing: share of each label spread evenly over all classes.", least=0, below=1)
    ] = 0.0
    class_weight: ClassWeight = None
    clip: Annotated[
        float | None, Option("Clip the global norm of the gradients to this value.", above=0, most=_MOST)
    ] = None
    dropout: Annotated[float | None, Option("Dropout before the last layer.", least=0, below=1)] = 0.5
    patience: Annotated[int, Option("Stop after this many epochs without a lower validation log-loss.", least=1)] = 10
    views: Count = 0
    keep: Keep = "best"
    precision: Precision = FULL_PRECISION

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learning_rate is _BY_OPTIMIZER:
            object.__setattr__(self, "learning_rate", RATES[self.optimizer])
