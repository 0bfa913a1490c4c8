"""The metrics of every classifier, computed by one function, so that numbers can be compared."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featurize.options import records
from featurize.options.records import AtLeast0, Count, Positive, Share

# Number of bins of the expected calibration error, as in Guo et al.
CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1, means over the classes that have images here; precision is 0 where nothing is predicted."""

    precision: Share
    recall: Share
    f1: Share


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest: its number of images, and scores; None where they are undefined.

    Recall, F1, `auc` (area under the ROC curve) and `average_precision` need images of the class, precision needs
    predictions of it.
    """

    n: Count
    precision: Share | None
    recall: Share | None
    f1: Share | None
    auc: Share | None
    average_precision: Share | None


@dataclass(frozen=True)
class Metrics:
    """Quality on n labelled images.

    Attributes:
        n: number of images.
        accuracy: part of the images whose most probable class is their label.
        log_loss: mean negative natural logarithm of the label's probability (nats).
        brier: Brier score: mean squared difference of the second class's probability and the truth (0–1); with three or more
            classes the sum over them, as in Brier (0–2).
        calibration_error: expected calibration error of the most probable class's probability, see `calibration_error`.
        auc: area under the ROC curve; with three or more classes the mean of one-vs-rest areas; None where undefined.
        average_precision: of the second class; with three or more classes the mean of one-vs-rest; None where `auc` is.
        macro: unweighted means over the classes that have images here (recall: the balanced accuracy).
        weighted: the same means, weighted by the number of images.
        per_class: in the order of the probabilities.
        auc_reason: why `auc` and `average_precision` are None.
    """

    n: Positive
    accuracy: Share
    log_loss: AtLeast0
    brier: AtLeast0
    calibration_error: Share
    auc: Share | None
    average_precision: Share | None
    macro: Scores
    weighted: Scores
    per_class: tuple[ClassScores, ...]
    auc_reason: str | None = None

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have images here."""
        return self.macro.recall

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy."""
        return wilson_interval(round(self.accuracy * self.n), self.n)

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON: the attributes and properties; the reason only where there is one."""
        attributes = {key: value for key, value in asdict(self).items() if key != "auc_reason" or value}
        derived = {"accuracy_interval": list(self.accuracy_interval), "balanced_accuracy": self.balanced_accuracy}
        return {**attributes, **derived}

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> "Metrics":
        """Return what `as_json` wrote.

        Raises:
            AttributeError, ValueError: it did not.
        """
        derived = ("accuracy_interval", "balanced_accuracy")
        return records.build(cls, {key: value for key, value in stored.items() if key not in derived})


def measure(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> Metrics:
    """Measure class probabilities against the true classes.

    Args:
        probabilities: (n, classes), each row summing to 1; n ≥ 1.
        targets: (n,), indices of the true classes.
    """
    from sklearn.metrics import (
        average_precision_score,
        brier_score_loss,
        log_loss,
        precision_recall_fscore_support,
        roc_auc_score,
    )

    p = np.asarray(probabilities, np.float64)
    predicted, classes = p.argmax(axis=1), range(p.shape[1])
    present = sorted(set(targets.tolist()))
    means = {}
    for average in ("macro", "weighted"):
        scores = precision_recall_fscore_support(targets, predicted, labels=present, average=average, zero_division=0)
        means[average] = Scores(*map(_share, scores[:3]))
    each = precision_recall_fscore_support(targets, predicted, labels=list(classes), average=None, zero_division=0)
    predictions = np.bincount(predicted, minlength=len(classes))
    per_class = tuple(
        ClassScores(
            n=int(n),
            precision=float(precision) if predictions[c] else None,
            recall=float(recall) if n else None,
            f1=float(f1) if n else None,
            auc=_one_vs_rest(roc_auc_score, targets == c, p[:, c]),
            average_precision=_one_vs_rest(average_precision_score, targets == c, p[:, c]),
        )
        for c, (precision, recall, f1, n) in enumerate(zip(*each, strict=True))
    )
    absent = sum(class_scores.n == 0 for class_scores in per_class)
    reason = f"{absent} of {p.shape[1]} classes have no image here" if absent else None
    return Metrics(
        n=len(targets),
        accuracy=float(np.mean(predicted == targets)),
        log_loss=float(log_loss(targets, p, labels=list(classes))),
        brier=float(brier_score_loss(targets, p[:, 1] if len(classes) == 2 else p, labels=list(classes))),
        calibration_error=_share(calibration_error(p, targets)),
        auc=_over_classes([class_scores.auc for class_scores in per_class]),
        average_precision=_over_classes([class_scores.average_precision for class_scores in per_class]),
        macro=means["macro"],
        weighted=means["weighted"],
        per_class=per_class,
        auc_reason=reason,
    )


def _one_vs_rest(score: Callable[..., Any], of_class: NDArray[np.bool_], p: NDArray[np.float64]) -> float | None:
    """Return a score of one class against the rest; None where there is only one kind of image."""
    return _share(score(of_class, p)) if 0 < of_class.sum() < len(of_class) else None


def _share(value: float) -> float:
    """Return a sum of shares without what rounding adds: scikit-learn's average precision may be 1 + 2e-16."""
    return min(1.0, float(value))


def _over_classes(scores: Sequence[float | None]) -> float | None:
    """Return the second class's score where there are two, else the mean; None where one of them is undefined."""
    known = [score for score in scores if score is not None]
    if len(known) < len(scores):
        return None
    return known[1] if len(known) == 2 else _share(float(np.mean(known)))


def calibration_error(probabilities: NDArray[np.float64], targets: NDArray[np.integer[Any]]) -> float:
    """Return the expected calibration error: Σ over bins (images in it / n) · |its accuracy − its mean confidence|.

    Confidence is the probability of the most probable class; `CALIBRATION_BINS` bins of equal width, closed above.
    Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks" (2017), equations 2–5.
    """
    n, accuracy, confidence = reliability(probabilities, targets)
    return float((n * np.abs(accuracy - confidence)).sum() / len(targets))


class Reliability(NamedTuple):
    """Number of images, accuracy and mean confidence of each bin, each (`CALIBRATION_BINS`,); 0 where a bin is empty."""

    n: NDArray[np.int64]
    accuracy: NDArray[np.float64]
    confidence: NDArray[np.float64]


def reliability(probabilities: NDArray[np.float64], targets: NDArray[np.integer[Any]]) -> Reliability:
    """Return what is in each bin of `calibration_error`."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(int) - 1, 0, CALIBRATION_BINS - 1)
    n, corrects, confidences = (np.bincount(bins, each, CALIBRATION_BINS) for each in (None, right, confidence))
    return Reliability(n.astype(np.int64), corrects / np.maximum(n, 1), confidences / np.maximum(n, 1))


def confusion(probabilities: NDArray[np.float64], targets: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return the confusion matrix (classes, classes): one row per true class, one column per predicted class."""
    from sklearn.metrics import confusion_matrix

    labels = np.arange(probabilities.shape[1])
    return np.asarray(confusion_matrix(targets, probabilities.argmax(axis=1), labels=labels), np.int64)


def losses(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each image's log-loss in nats, probabilities clipped as scikit-learn's log_loss clips them."""
    return _minus_log(probabilities[np.arange(len(targets)), targets])


def losses_otherwise(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each image's log-loss if its class were another one: the mean over all other classes."""
    every = _minus_log(probabilities)
    others = every.sum(axis=1) - every[np.arange(len(targets)), targets]
    return np.asarray(others / (every.shape[1] - 1))


def _minus_log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return -np.log(np.clip(p, np.finfo(p.dtype).eps, 1))


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion, clamped to contain the estimate.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return min(float(interval.low), correct / n), max(float(interval.high), correct / n)
