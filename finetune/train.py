"""Training above the split point: stochastic gradient descent from the best head, epoch 0 included."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from featurize.backend import load_keras
from featurize.errors import VggftError
from finetune.network import above
from heads.training import Diverged, Epoch, Examples, Plan, Trained, compile_for, fit


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent with momentum; the defaults are those of the original experiment."""

    learning_rate: float = 1e-4
    momentum: float = 0.9


def train(
    network: Any,
    split_point: str,
    data: tuple[Examples, Examples],
    plan: Plan,
    sgd: Sgd,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Trained:
    """Train an assembled network's layers above the split point, and leave it with the weights of the best epoch.

    Args:
        network: from `finetune.network.assemble`.
        data: training and validation examples whose inputs are the split point's outputs (n, height, width, filters).
        plan: `from_epoch_zero` should be set, so that the head as it came may win.

    Raises:
        VggftError: the loss became NaN or infinite.
    """
    keras = load_keras()

    keras.utils.set_random_seed(plan.seed)
    upper = above(network, split_point)
    compile_for(upper, keras.optimizers.SGD(sgd.learning_rate, momentum=sgd.momentum))
    try:
        return fit(upper, *data, plan, on_epoch)
    except Diverged as error:
        raise VggftError(
            f"{error}, with --lr {sgd.learning_rate:g}. Try a tenth of it: --lr {sgd.learning_rate / 10:g}"
        ) from None
