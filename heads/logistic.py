"""The baseline: logistic regression on standardised pooled features, its L2 strength chosen on the training side."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import Head, Layer, Pooling, folded, output_activation
from heads.training import Examples

# Inverse L2 strengths (scikit-learn's C) that are tried, half a decade apart; a choice at either end is remarked on.
STRENGTHS = tuple(float(c) for c in 10.0 ** np.arange(-5, 1.5, 0.5))
FOLDS = 5
_MAX_ITERATIONS = 2000


@dataclass(frozen=True)
class LogisticSpec:
    """Which pooled features the regression reads."""

    name: str
    pooling: Pooling


@dataclass(frozen=True)
class Fitted:
    """A fitted regression: as a head, as a scikit-learn pipeline, the strength chosen and how the fit ended."""

    head: Head
    pipeline: Any
    strength: float
    status: str


def train(spec: LogisticSpec, classes: Sequence[str], train: Examples, groups: Sequence[str], seed: int) -> Fitted:
    """Fit the baseline; validation images take no part.

    The strength with the lowest log-loss over stratified, group-aware folds of the training images is used.

    Args:
        train: pooled features float32 (n, inputs) and targets (n,).
        groups: one name an image; no fold parts a group.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    strength, status = _choose_strength(train, groups, len(classes), seed)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline.fit(train.inputs, train.targets)
    if any("converge" in str(warning.message) for warning in caught):
        status = f"not converged after {_MAX_ITERATIONS} iterations; {status}"
    return Fitted(fold(spec, classes, pipeline), pipeline, strength, status)


def fold(spec: LogisticSpec, classes: Sequence[str], pipeline: Any) -> Head:
    """Write scaler and regression as one dense layer."""
    scaler, regression = pipeline[0], pipeline[-1]
    layer = Layer(regression.coef_.T, regression.intercept_, output_activation(classes)[1])
    return Head(spec.name, "logistic", spec.pooling, tuple(classes), (folded(layer, scaler.mean_, scaler.scale_),))


def _choose_strength(train: Examples, groups: Sequence[str], classes: int, seed: int) -> tuple[float, str]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.preprocessing import StandardScaler

    named = np.asarray(groups)
    folds = min(FOLDS, *(len(set(named[train.targets == c])) for c in range(classes)))
    if folds < 2:
        middle = STRENGTHS[len(STRENGTHS) // 2]
        return middle, "strength not searched: a class has a single group of training images"
    losses: NDArray[np.float64] = np.zeros(len(STRENGTHS))
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for inner, outer in splitter.split(train.inputs, train.targets, named):
        if len(set(train.targets[inner].tolist())) < 2:
            continue  # groups of several classes can leave a fold nothing to tell apart
        scaler = StandardScaler().fit(train.inputs[inner])
        x, y = scaler.transform(train.inputs[inner]), train.targets[inner]
        x_out, y_out = scaler.transform(train.inputs[outer]), train.targets[outer]
        for i, strength in enumerate(STRENGTHS):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a strength that does not converge shows in its loss
                regression = LogisticRegression(C=strength, max_iter=_MAX_ITERATIONS).fit(x, y)
            p = np.full((len(y_out), classes), 1e-12)  # a class that the fold did not learn keeps next to nothing
            p[:, regression.classes_] = regression.predict_proba(x_out)
            losses[i] += len(y_out) * float(
                log_loss(y_out, p / p.sum(axis=1, keepdims=True), labels=list(range(classes)))
            )
    best = int(np.argmin(losses))
    edge = ", at the edge of the range tried" if best in (0, len(STRENGTHS) - 1) else ""
    return STRENGTHS[best], f"strength chosen over {folds} folds{edge}"
