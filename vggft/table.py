"""How numbers are written in the tables of several commands."""

from heads.metrics import Metrics, wilson_interval


def accuracy_interval(metrics: Metrics) -> tuple[float, float]:
    """Return Wilson's 95% interval of an accuracy."""
    return wilson_interval(round(metrics.accuracy * metrics.n), metrics.n)


def interval_text(metrics: Metrics) -> str:
    """Write `accuracy_interval`."""
    low, high = accuracy_interval(metrics)
    return f"{low:.3f}–{high:.3f}"


def auc_text(metrics: Metrics) -> str:
    """Write the AUC, or a dash where there is none."""
    return "–" if metrics.auc is None else f"{metrics.auc:.3f}"
