"""How any classifier here is judged: one function for every kind of model, so that numbers can be compared."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Metrics:
    """Quality on n labelled images.

    Attributes:
        n: number of images.
        accuracy: part of the images whose most probable class is their label.
        log_loss: mean negative natural logarithm of the label's probability (nats).
        auc: area under the ROC curve; with three or more classes the mean of one-vs-rest areas; None where undefined.
        auc_reason: why `auc` is None.
    """

    n: int
    accuracy: float
    log_loss: float
    auc: float | None
    auc_reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return a dictionary for JSON; the reason only where there is one."""
        return {key: value for key, value in asdict(self).items() if key != "auc_reason" or value}


def judge(probabilities: NDArray[np.floating[Any]], targets: NDArray[np.integer[Any]]) -> Metrics:
    """Judge class probabilities against the truth.

    Args:
        probabilities: (n, classes), each row summing to 1; n ≥ 1.
        targets: (n,), positions of the true classes.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    p = np.asarray(probabilities, np.float64)
    classes = range(p.shape[1])
    auc, reason = None, None
    absent = [c for c in classes if c not in set(targets.tolist())]
    if absent:
        reason = f"{len(absent)} of {p.shape[1]} classes have no image here"
    elif p.shape[1] == 2:
        auc = float(roc_auc_score(targets, p[:, 1]))
    else:
        auc = float(np.mean([roc_auc_score(targets == c, p[:, c]) for c in classes]))
    return Metrics(
        n=len(targets),
        accuracy=float(np.mean(p.argmax(axis=1) == targets)),
        log_loss=float(log_loss(targets, p, labels=list(classes))),
        auc=auc,
        auc_reason=reason,
    )


def wilson_interval(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval for a proportion, clamped to contain the estimate.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(confidence, method="wilson")
    return min(float(interval.low), correct / n), max(float(interval.high), correct / n)
