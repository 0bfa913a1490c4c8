"""Temperature scaling: one number that makes a tuned network as sure of itself as it is right.

Source: C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On calibration of modern neural networks" (2017), section 4.2.
"""

import numpy as np
from numpy.typing import NDArray

from heads.metrics import losses

MOST = 20.0  # logits of a network that is always right or always wrong would be divided by any number


def fit(p: NDArray[np.float64], targets: NDArray[np.int64]) -> float:
    """Return the temperature, from 1 to `MOST`, with the lowest log-loss.

    Values below 1 are not tried: on a few images that are all classified correctly, the smallest one would always win.

    Args:
        p: class probabilities (n, classes).
        targets: indices of the true classes, (n,).
    """
    from scipy.optimize import minimize_scalar

    def log_loss(log_temperature: float) -> float:
        return float(losses(scaled(p, np.exp(log_temperature)), targets).mean())

    found = minimize_scalar(log_loss, bounds=(0, np.log(MOST)), method="bounded")
    return float(np.exp(found.x)) if found.fun < log_loss(0) else 1.0


def scaled(p: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Return the probabilities (n, classes) that a network has after its logits are divided by `temperature`."""
    powers = (p / p.max(axis=1, keepdims=True)) ** (1 / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
