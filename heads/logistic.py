"""The baseline: logistic regression on scaled pooled features, with C chosen by cross-validation on the training images."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heads import folds
from heads.features import Features
from heads.head import Head, Layer, Scaler, folded, output_activation, scales
from heads.metrics import losses
from heads.specs import LogisticSpec, Pooling

# Values of C, scikit-learn's inverse regularisation strength, half a decade apart.
C_VALUES = tuple(float(f"{10**exponent:.3g}") for exponent in np.arange(-5, 1.5, 0.5))
FOLDS = 5
MAX_ITERATIONS = 2000

# Largest probability of a class without training images: small, but above 0, so that its log-loss is finite.
_UNSEEN = 1e-6


@dataclass(frozen=True)
class SearchPoint:
    """One value of C in the search: mean log-loss of held-out images, and number of fits that did not converge."""

    C: float
    log_loss: float
    unconverged: int


@dataclass(frozen=True)
class Fitted:
    """A fitted logistic regression and the search for its C.

    Attributes:
        head: the regression as a head.
        pipeline: the same classifier as a scikit-learn pipeline; None if the training images have only one class.
        C: the chosen inverse regularisation strength.
        search: results for each value of C; empty if cross-validation was not possible.
        converged: whether the final fit converged.
        status: one-line summary of search and fit, for display.
    """

    head: Head
    pipeline: Any
    C: float
    search: tuple[SearchPoint, ...]
    converged: bool
    status: str


def train(
    spec: LogisticSpec,
    classes: Sequence[str],
    train: Features,
    seed: int,
    class_weight: str | None = None,
    advance: Callable[[int], None] = lambda count: None,
    *,
    C: float | None = None,
) -> Fitted:
    """Fit the baseline on the training images only.

    C is the value with the lowest mean log-loss in cross-validation with stratified, group-aware folds. The fits of the search
    run in parallel, one thread per core.

    Args:
        seed: random seed of the folds.
        class_weight: None or "balanced", as in scikit-learn.
        advance: called with the number of finished fits of the search.
        C: do not search, use this value.
    """
    from sklearn.exceptions import ConvergenceWarning

    trained_classes = np.unique(train.targets)
    if len(trained_classes) < 2:
        layer = _constant(train.pooled[spec.pooling].shape[1], len(classes), int(trained_classes[0]))
        head = Head(spec.name, "logistic", spec.pooling, tuple(classes), (layer,))
        return Fitted(head, None, C_VALUES[-1], (), True, "the training images have only one class")
    with warnings.catch_warnings():  # outside the search, because its threads share one list of filters
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted in the status instead
        search = _search(train, spec.pooling, seed, class_weight, advance) if C is None else ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        C = best_C(search) if C is None else C
        pipeline = _fit(train, spec.pooling, C, class_weight)
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    if search:
        best = min(search, key=_loss)
        status = f"C = {C:.3g}, chosen from {len(search)} values"
        if best in (search[0], search[-1]):
            status += ", at the edge of the search range"
        if best.unconverged:
            status += f", {best.unconverged} of its fits in the search did not converge"
    else:
        status = f"C = {C:.3g}, not searched: fewer than two classes have two groups of training images"
    if not converged:
        status = f"not converged after {MAX_ITERATIONS} iterations; {status}"
    return Fitted(fold(spec, classes, pipeline), pipeline, C, search, converged, status)


def best_C(search: Sequence[SearchPoint]) -> float:
    """Return the value with the lowest log-loss in a search; the middle one if there was none."""
    return min(search, key=_loss).C if search else C_VALUES[len(C_VALUES) // 2]


def _loss(point: SearchPoint) -> float:
    return point.log_loss


def fold(spec: LogisticSpec, classes: Sequence[str], pipeline: Any) -> Head:
    """Fold the pipeline's scaler and regression into one dense layer.

    A class without training images gets the mean logit of the others minus log 10⁶. Its probability is then at most 1e-6,
    because the mean of logits is below the logarithm of the sum of their exponentials.
    """
    scaler, regression = Scaler(pipeline[0].mean_, pipeline[0].scale_), pipeline[-1]
    kernel, bias, trained_classes = regression.coef_.T, regression.intercept_, regression.classes_
    if len(trained_classes) < len(classes):
        if len(trained_classes) == 2:  # scikit-learn has one logit for two classes; the softmax needs two
            kernel, bias = np.hstack([-kernel / 2, kernel / 2]), np.concatenate([-bias / 2, bias / 2])
        all_kernels = np.repeat(kernel.mean(axis=1, keepdims=True), len(classes), axis=1)
        all_biases = np.full(len(classes), bias.mean() + np.log(_UNSEEN))
        all_kernels[:, trained_classes], all_biases[trained_classes] = kernel, bias
        kernel, bias = all_kernels, all_biases
    layer = Layer(kernel, bias, output_activation(classes)[1])
    return Head(spec.name, "logistic", spec.pooling, tuple(classes), (folded(layer, scaler),), scaler=scaler)


def _constant(inputs: int, classes: int, predicted: int) -> Layer:
    """Return a layer that always predicts the class with index `predicted`."""
    logit = -np.log(_UNSEEN)
    if classes == 2:
        return Layer(
            np.zeros((inputs, 1), np.float32), np.array([logit if predicted else -logit], np.float32), "sigmoid"
        )
    bias = np.zeros(classes, np.float32)
    bias[predicted] = logit
    return Layer(np.zeros((inputs, classes), np.float32), bias, "softmax")


def _fit(images: Features, pooling: Pooling, C: float, class_weight: str | None) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    regression = LogisticRegression(C=C, max_iter=MAX_ITERATIONS, class_weight=class_weight)
    copies = 1 + len(images.views)
    x = np.concatenate([pooled[pooling] for pooled in (images.pooled, *images.views)]).astype(np.float32, copy=False)
    scaler = StandardScaler().fit(x)
    scaler.scale_ = scales(scaler.var_, pooling)
    weights = np.full(len(x), 1 / copies) if copies > 1 else None  # an image counts as one, whatever its views
    regression.fit(scaler.transform(x), np.tile(images.targets, copies), weights)
    return make_pipeline(scaler, regression)


def _search(
    images: Features, pooling: Pooling, seed: int, class_weight: str | None, advance: Callable[[int], None]
) -> tuple[SearchPoint, ...]:
    import joblib
    from threadpoolctl import threadpool_limits

    pooled, *views = [{pooling: pooled[pooling]} for pooled in (images.pooled, *images.views)]
    images = Features(pooled, images.targets, images.samples, views)
    y, groups = images.targets, images.groups
    number = folds.max_folds(y, groups, FOLDS)
    if number < 2:
        return ()
    parts = folds.split(y, groups, number, seed)
    parts = [(train, held_out) for train, held_out in parts if len(np.unique(y[train])) > 1]
    tasks = [(C, part) for C in reversed(C_VALUES) for part in parts]  # the slowest fits first

    def evaluate(C: float, part: folds.Fold) -> tuple[float, int, bool]:
        train, held_out = part
        pipeline = _fit(images.take(train), pooling, C, class_weight)
        trained_classes = pipeline[-1].classes_
        rows = held_out[np.isin(y[held_out], trained_classes)]  # images of other classes cannot distinguish values of C
        x = pooled[pooling][rows].astype(np.float32, copy=False)
        loss = losses(pipeline.predict_proba(x).astype(np.float64), np.searchsorted(trained_classes, y[rows]))
        return float(loss.sum()), len(rows), bool((pipeline[-1].n_iter_ < MAX_ITERATIONS).all())

    results = []
    with threadpool_limits(1):  # threads, not processes: they end with their parent, and share the features
        run = joblib.Parallel(n_jobs=-1, backend="threading", return_as="generator")
        for result in run(joblib.delayed(evaluate)(*task) for task in tasks):
            results.append(result)
            advance(len(results))
    points = []
    for i in range(0, len(results), len(parts)):
        loss, counts, converged = (np.array(column) for column in zip(*results[i : i + len(parts)], strict=True))
        points.append(SearchPoint(tasks[i][0], float(loss.sum() / max(1, counts.sum())), int((~converged).sum())))
    return tuple(reversed(points))
