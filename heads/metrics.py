"""How any classifier here is judged: one function for every kind of model, so that numbers can be compared."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Scores:
    """Precision, recall and F1, means over the classes that have images here; precision is 0 where nothing is predicted."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class ClassScores:
    """One class against the rest: its number of images, and scores; None where they are undefined.

    Recall, F1 and `auc` (area under the ROC curve) need images of the class, precision needs predictions of it.
    """

    n: int
    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None


@dataclass(frozen=True)
class Metrics:
    """Quality on n labelled images.

    Attributes:
        n: number of images.
        accuracy: part of the images whose most probable class is their label.
        log_loss: mean negative natural logarithm of the label's probability (nats).
        auc: area under the ROC curve; with three or more classes the mean of one-vs-rest areas; None where undefined.
        macro: means over the classes that have images here, each class counting alike (recall: the balanced accuracy).
        weighted: the same, each class counting by its images.
        per_class: in the order of the probabilities.
        auc_reason: why `auc` is None.
    """

    n: int
    accuracy: float
    log_loss: float
    auc: float | None
    macro: Scores
    weighted: Scores
    per_class: tuple[ClassScores, ...]
    auc_reason: str | None = None

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the accuracy."""
        return wilson_interval(round(self.accuracy * self.n), self.n)

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON: the attributes and `accuracy_interval`; the reason only where there is one."""
        kept = {key: value for key, value in asdict(self).items() if key != "auc_reason" or value}
        return {**kept, "accuracy_interval": list(self.accuracy_interval)}

    @classmethod
    def of_json(cls, kept: Mapping[str, Any]) -> "Metrics":
        """Return what `as_json` wrote.

        Raises:
            KeyError, TypeError: it did not.
        """
        values = {key: value for key, value in kept.items() if key != "accuracy_interval"}
        values |= {name: Scores(**kept[name]) for name in ("macro", "weighted")}
        return cls(**{**values, "per_class": tuple(ClassScores(**row) for row in kept["per_class"])})


def judge(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> Metrics:
    """Judge class probabilities against the truth.

    Args:
        probabilities: (n, classes), each row summing to 1; n ≥ 1.
        targets: (n,), positions of the true classes.
    """
    from sklearn.metrics import log_loss, precision_recall_fscore_support

    p = np.asarray(probabilities, np.float64)
    predicted, classes = p.argmax(axis=1), range(p.shape[1])
    present = sorted(set(targets.tolist()))
    means = {}
    for average in ("macro", "weighted"):
        found = precision_recall_fscore_support(targets, predicted, labels=present, average=average, zero_division=0)
        means[average] = Scores(*(float(value) for value in found[:3]))
    each = precision_recall_fscore_support(targets, predicted, labels=list(classes), average=None, zero_division=0)
    said = np.bincount(predicted, minlength=len(classes))
    per_class = tuple(
        ClassScores(
            n=int(n),
            precision=float(precision) if said[c] else None,
            recall=float(recall) if n else None,
            f1=float(f1) if n else None,
            auc=_area(targets == c, p[:, c]),
        )
        for c, (precision, recall, f1, n) in enumerate(zip(*each, strict=True))
    )
    areas = [one.auc for one in per_class]
    absent = sum(one.n == 0 for one in per_class)
    auc, reason = None, None
    if absent:
        reason = f"{absent} of {p.shape[1]} classes have no image here"
    else:
        auc = areas[1] if p.shape[1] == 2 else float(np.mean([area for area in areas if area is not None]))
    return Metrics(
        n=len(targets),
        accuracy=float(np.mean(predicted == targets)),
        log_loss=float(log_loss(targets, p, labels=list(classes))),
        auc=auc,
        macro=means["macro"],
        weighted=means["weighted"],
        per_class=per_class,
        auc_reason=reason,
    )


def _area(own: NDArray[np.bool_], p: NDArray[np.float64]) -> float | None:
    """Return the area under the ROC curve; None where there is only one kind of image."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(own, p)) if 0 < own.sum() < len(own) else None


def losses(probabilities: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each image's log-loss in nats, probabilities clipped as scikit-learn's log_loss clips them."""
    p = probabilities[np.arange(len(targets)), targets]
    return -np.log(np.clip(p, np.finfo(p.dtype).eps, 1))


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion, clamped to contain the estimate.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return min(float(interval.low), correct / n), max(float(interval.high), correct / n)
