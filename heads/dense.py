"""Dense heads: what they look like and how one is trained on pooled features."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from featurize.backend import load_keras
from featurize.errors import VggftError
from heads.head import Head, Layer, Pooling, folded, output_activation
from heads.training import Diverged, Epoch, Examples, Plan, Trained, compile_for, fit


@dataclass(frozen=True)
class DenseSpec:
    """Architecture and hyper-parameters of a dense head: pooling → hidden ReLU units → dropout → classes.

    With `standardise`, training sees features of mean 0 and variance 1 (as measured on the training split); the scaler is
    folded into the first layer afterwards, so that the head reads features as they are.
    """

    name: str
    pooling: Pooling
    units: int
    dropout: float
    learning_rate: float  # of Adam (Kingma & Ba, arXiv:1412.6980), other parameters as Keras has them
    standardise: bool = True


def train(
    spec: DenseSpec,
    classes: Sequence[str],
    train: Examples,
    validation: Examples,
    plan: Plan,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[Head, Trained]:
    """Train one dense head.

    Args:
        train: pooled features (n, inputs) and targets (n,); validation: the same, deciding which epoch is kept.

    Returns:
        The head with the weights of its best epoch, and its learning curve. Provenance is left to the caller.

    Raises:
        VggftError: the loss is no number.
    """
    from sklearn.preprocessing import StandardScaler

    keras = load_keras()

    if spec.standardise:
        scaler = StandardScaler().fit(train.inputs)
        train, validation = (Examples(scaler.transform(e.inputs), e.targets) for e in (train, validation))
    keras.utils.set_random_seed(plan.seed)
    units, activation = output_activation(classes)
    model: Any = keras.Sequential(
        [
            keras.Input(train.inputs.shape[1:]),
            keras.layers.Dense(spec.units, activation="relu"),
            keras.layers.Dropout(spec.dropout, seed=plan.seed),
            keras.layers.Dense(units, activation=activation),
        ]
    )
    compile_for(model, keras.optimizers.Adam(spec.learning_rate))
    try:
        trained = fit(model, train, validation, plan, on_epoch)
    except Diverged as error:
        raise VggftError(f"head {spec.name}: {error}. Heads finished before it are kept.") from None
    first, last = model.layers[0].get_weights(), model.layers[-1].get_weights()
    hidden, output = Layer(first[0], first[1], "relu"), Layer(last[0], last[1], activation)
    if spec.standardise:
        hidden = folded(hidden, scaler.mean_, scaler.scale_)
    return Head(spec.name, "dense", spec.pooling, tuple(classes), (hidden, output), spec.dropout), trained
