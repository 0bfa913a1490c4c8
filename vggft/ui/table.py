"""Formatting of numbers that the tables of several commands share."""

from heads.metrics import Metrics


def interval_text(metrics: Metrics) -> str:
    """Format the 95% interval of an accuracy."""
    low, high = metrics.accuracy_interval
    return f"{low:.3f}–{high:.3f}"


def auc_text(metrics: Metrics) -> str:
    """Format the AUC; a dash if it is undefined."""
    return "–" if metrics.auc is None else f"{metrics.auc:.3f}"
