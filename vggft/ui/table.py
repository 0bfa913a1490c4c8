"""How numbers are written in the tables of several commands."""

from heads.metrics import Metrics


def interval_text(metrics: Metrics) -> str:
    """Write the interval of an accuracy."""
    low, high = metrics.accuracy_interval
    return f"{low:.3f}–{high:.3f}"


def auc_text(metrics: Metrics) -> str:
    """Write the AUC, or a dash where there is none."""
    return "–" if metrics.auc is None else f"{metrics.auc:.3f}"
