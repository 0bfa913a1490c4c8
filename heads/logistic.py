"""The baseline: logistic regression on standardised pooled features, its L2 strength chosen on the training side."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads import folds
from heads.features import Features
from heads.head import Head, Layer, Scaler, folded, output_activation
from heads.metrics import losses
from heads.specs import LogisticSpec

# Inverse L2 strengths (scikit-learn's C) that are tried, half a decade apart; a choice at either end is remarked on.
STRENGTHS = tuple(float(f"{10**exponent:.3g}") for exponent in np.arange(-5, 1.5, 0.5))
FOLDS = 5
MAX_ITERATIONS = 2000

# A class that was never seen in training gets at most this probability: next to nothing, but its log-loss is finite.
_UNSEEN = 1e-6


@dataclass(frozen=True)
class Tried:
    """One strength in the search: mean log-loss of held-out images, and how many of the fits did not converge."""

    strength: float
    log_loss: float
    unconverged: int


@dataclass(frozen=True)
class Fitted:
    """A fitted regression: as a head, as a scikit-learn pipeline, what the search saw, and how the fit ended.

    Attributes:
        head, pipeline: the same classifier twice (where training saw a single class, the pipeline is None).
        strength: the chosen C.
        search: one row a strength; empty where none could be searched for.
        converged: of the last fit.
        status: all that a person should know, in one line.
    """

    head: Head
    pipeline: Any
    strength: float
    search: tuple[Tried, ...]
    converged: bool
    status: str


def train(
    spec: LogisticSpec,
    classes: Sequence[str],
    train: Features,
    seed: int,
    class_weight: str | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Fitted:
    """Fit the baseline; validation images take no part.

    The strength with the lowest log-loss over stratified, group-aware folds of the training images is used; the folds and
    strengths run in as many threads as there are cores.

    Args:
        seed: of the folds.
        class_weight: None or "balanced", as scikit-learn has it.
        advance: told how many of the search's fits are done.
    """
    from sklearn.exceptions import ConvergenceWarning

    x, y = train.pooled[spec.pooling].astype(np.float32, copy=False), train.targets
    seen = np.unique(y)
    if len(seen) < 2:
        only = _constant(x.shape[1], len(classes), int(seen[0]))
        head = Head(spec.name, "logistic", spec.pooling, tuple(classes), (only,))
        return Fitted(head, None, STRENGTHS[-1], (), True, "training saw one class only")
    with warnings.catch_warnings():  # out here, as the threads of the search share one list of filters
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the status instead
        search = _search(x, y, train.groups, seed, class_weight, advance)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        best = min(search, key=lambda tried: tried.log_loss) if search else None
        strength = best.strength if best else STRENGTHS[len(STRENGTHS) // 2]
        pipeline = _fit(x, y, strength, class_weight)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    if best:
        status = f"C = {strength:.3g}, chosen over {len(search)} strengths"
        if best in (search[0], search[-1]):
            status += ", at the edge of the range"
        if best.unconverged:
            status += f", {best.unconverged} of its fits in the search not converged"
    else:
        status = f"C = {strength:.3g}, not searched: fewer than two classes have two groups of training images"
    if not converged:
        status = f"not converged after {MAX_ITERATIONS} iterations; {status}"
    return Fitted(fold(spec, classes, pipeline), pipeline, strength, search, converged, status)


def fold(spec: LogisticSpec, classes: Sequence[str], pipeline: Any) -> Head:
    """Write scaler and regression as one dense layer.

    A class that the regression never saw gets the mean logit of those it did, less log 10⁶: at most 1e-6 of the probability,
    as the mean of logits is below the logarithm of the sum of their exponentials.
    """
    scaler, regression = Scaler(pipeline[0].mean_, pipeline[0].scale_), pipeline[-1]
    kernel, bias, seen = regression.coef_.T, regression.intercept_, regression.classes_
    if len(seen) < len(classes):
        if len(seen) == 2:  # one logit for the second of them: as a softmax over both
            kernel, bias = np.hstack([-kernel / 2, kernel / 2]), np.concatenate([-bias / 2, bias / 2])
        whole = np.repeat(kernel.mean(axis=1, keepdims=True), len(classes), axis=1)
        offsets = np.full(len(classes), bias.mean() + np.log(_UNSEEN))
        whole[:, seen], offsets[seen] = kernel, bias
        kernel, bias = whole, offsets
    layer = Layer(kernel, bias, output_activation(classes)[1])
    return Head(spec.name, "logistic", spec.pooling, tuple(classes), (folded(layer, scaler),), scaler=scaler)


def _constant(inputs: int, classes: int, only: int) -> Layer:
    """Return the layer that always says the one class that was seen."""
    certain = -np.log(_UNSEEN)
    if classes == 2:
        return Layer(
            np.zeros((inputs, 1), np.float32), np.array([certain if only else -certain], np.float32), "sigmoid"
        )
    bias = np.zeros(classes, np.float32)
    bias[only] = certain
    return Layer(np.zeros((inputs, classes), np.float32), bias, "softmax")


def _fit(x: NDArray[Any], y: NDArray[Any], strength: float, class_weight: str | None) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=strength, max_iter=MAX_ITERATIONS, class_weight=class_weight)
    pipeline = make_pipeline(StandardScaler(), regression)
    pipeline.fit(x, y)
    return pipeline


def _search(
    x: NDArray[Any],
    y: NDArray[Any],
    groups: Sequence[str],
    seed: int,
    class_weight: str | None,
    advance: Callable[[int], None],
) -> tuple[Tried, ...]:
    import joblib
    from threadpoolctl import threadpool_limits

    number = folds.most(y, groups, FOLDS)
    if number < 2:
        return ()
    parts = folds.share_out(y, groups, number, seed)
    parts = [(inner, outer) for inner, outer in parts if len(np.unique(y[inner])) > 1]
    tasks = [(strength, part) for strength in reversed(STRENGTHS) for part in parts]  # the longest first

    def one(strength: float, part: folds.Fold) -> tuple[float, int, bool]:
        inner, outer = part
        pipeline = _fit(x[inner], y[inner], strength, class_weight)
        seen = pipeline[-1].classes_
        judged = outer[np.isin(y[outer], seen)]  # a class that was not learnt tells no strength from another
        loss = losses(pipeline.predict_proba(x[judged]).astype(np.float64), np.searchsorted(seen, y[judged]))
        return float(loss.sum()), len(judged), bool((pipeline[-1].n_iter_ < MAX_ITERATIONS).all())

    found = []
    with threadpool_limits(1):  # threads, not processes: they end with their parent, and share the features
        run = joblib.Parallel(n_jobs=-1, backend="threading", return_as="generator")
        for result in run(joblib.delayed(one)(*task) for task in tasks):
            found.append(result)
            advance(len(found))
    rows = []
    for i in range(0, len(found), len(parts)):
        loss, judged, converged = (np.array(column) for column in zip(*found[i : i + len(parts)], strict=True))
        rows.append(Tried(tasks[i][0], float(loss.sum() / max(1, judged.sum())), int((~converged).sum())))
    return tuple(reversed(rows))
