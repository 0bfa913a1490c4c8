"""How a network is tuned: every setting of the training, its default, and what it may be."""

import math
from dataclasses import dataclass

from featurize.cache.fingerprint import FULL_PRECISION, MIXED_PRECISION
from featurize.errors import SEEDS, VggftError, require_whole

# Learning rates where none is asked for. SGD's is that of the original experiment; Adam's steps do not shrink with the
# gradient, so its rate is smaller, as is usual where weights are already good.
RATES = {"sgd": 1e-4, "adam": 1e-5}
SCHEDULES = ("constant", "cosine")
PRECISIONS = (FULL_PRECISION, MIXED_PRECISION)


@dataclass(frozen=True)
class Plan:
    """Settings of one training.

    Attributes:
        epochs: at most.
        batch_size: images a step; the last step of an epoch takes what is left.
        seed: order and dropout of a step are functions of seed, epoch and step alone.
        optimizer: "sgd" or "adam" (Kingma & Ba, arXiv:1412.6980; other parameters as Keras has them).
        learning_rate: of the head, and of all other layers but for `layer_decay`.
        momentum: of SGD.
        schedule: "constant", or "cosine": from the rate down to 0 over all steps of all epochs (Loshchilov & Hutter,
            arXiv:1608.03983, without restarts).
        layer_decay: the rate of a convolution is multiplied by this once for each convolution above it, and once more, as the
            head has the full rate (the discriminative rates of Howard & Ruder, arXiv:1801.06146).
        l2_sp: α of the penalty α/2 · ‖w − w⁰‖² on tuned convolutions, w⁰ the pretrained weights (Li, Grandvalet & Davoine,
            arXiv:1802.01483, equation 5, without its term for the head).
        label_smoothing: part of the label's probability that is shared evenly among all classes.
        class_weight: None, or "balanced" as scikit-learn has it.
        clip: largest norm of all gradients together; None: any.
        patience: training stops after so many epochs without a lower validation log-loss.
        precision: "float32", or "mixed_float16": convolutions in 16 bits, weights, head and validation in 32.
    """

    epochs: int = 10
    batch_size: int = 16
    seed: int = 0
    optimizer: str = "sgd"
    learning_rate: float = RATES["sgd"]
    momentum: float = 0.9
    schedule: str = "constant"
    layer_decay: float = 1.0
    l2_sp: float = 0.0
    label_smoothing: float = 0.0
    class_weight: str | None = None
    clip: float | None = None
    patience: int = 5
    precision: str = FULL_PRECISION

    def __post_init__(self) -> None:
        for option, value in (("epochs", self.epochs), ("batch-size", self.batch_size), ("patience", self.patience)):
            require_whole(f"--{option}", value, 1)
        require_whole("--seed", self.seed, 0, SEEDS)
        for option, text, known in (
            ("optimizer", self.optimizer, tuple(RATES)),
            ("schedule", self.schedule, SCHEDULES),
            ("precision", self.precision, PRECISIONS),
        ):
            if text not in known:
                raise VggftError(f"--{option} {text!r}: expected {' or '.join(known)}.")
        if self.class_weight not in (None, "balanced"):
            raise VggftError(f"--class-weight {self.class_weight!r}: expected balanced, or no such option.")
        if not 0 < self.learning_rate < math.inf:
            raise VggftError(f"--lr {self.learning_rate}: expected a rate above 0, such as 1e-4.")
        if not 0 < self.layer_decay <= 1:
            raise VggftError(f"--layer-decay {self.layer_decay}: expected a number above 0, up to 1 (all rates alike).")
        if not 0 <= self.l2_sp < math.inf:
            raise VggftError(f"--l2-sp {self.l2_sp}: expected a number from 0 up, such as 0.01.")
        for option, part in (("momentum", self.momentum), ("label-smoothing", self.label_smoothing)):
            if not 0 <= part < 1:
                raise VggftError(f"--{option} {part}: expected a number from 0 up to, but not including, 1.")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise VggftError(f"--clip {self.clip}: expected a norm above 0, such as 1.")
