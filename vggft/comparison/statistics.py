"""Uncertainty of a difference between models on the same images: bootstrap intervals, McNemar's test, Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize.process import interrupts

Floats = NDArray[np.float64]

DRAWS = 10_000
SEED = 0
CONFIDENCE = 0.95
POWER = 0.8

# What is drawn besides the images, in words (compare.json has it): see `resample`.
UNSEEN = (
    "log-loss: one additional group, which in each draw is a random group; on it, two models differ by plus or minus (at random) "
    "what they would differ by if its class were another one (mean over all wrong classes); accuracy: two additional groups of "
    "mean size, on which the difference of two models is +√½ and -√½"
)

_WEIGHTS_AT_ONCE = 4_000_000  # numbers of groups drawn, in memory at once: 32 MB


@dataclass(frozen=True)
class Resampled:
    """Means of m models over the images, in each of `DRAWS` bootstrap draws.

    Attributes:
        log_loss: (draws, m), of which only differences are meaningful; `seen` (m,): the observed means.
        accuracy: (draws, m); `accuracy_shift` (draws,): to add to the difference of any two of them.
    """

    log_loss: Floats
    seen: Floats
    accuracy: Floats
    accuracy_shift: Floats

    def log_loss_interval(self, a: int, b: int) -> tuple[float, float]:
        """Return the 95% interval of the log-loss of model a minus that of b; it contains the observed difference."""
        low, high = _percentiles(self.log_loss[:, a] - self.log_loss[:, b])
        seen = float(self.seen[a] - self.seen[b])
        return min(low, seen), max(high, seen)

    def accuracy_interval(self, a: int, b: int) -> tuple[float, float]:
        """Return the 95% interval of the accuracy of model a minus that of b."""
        return _percentiles(self.accuracy[:, a] - self.accuracy[:, b] + self.accuracy_shift)


def resample(losses: Floats, otherwise: Floats, right: NDArray[np.bool_], groups: Sequence[str]) -> Resampled:
    """Resample the images, whole groups with replacement, the same ones for all models.

    Intervals are percentiles (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; drawn by group: Davison
    & Hinkley, Bootstrap Methods, 1997, section 3.8). A plain bootstrap cannot draw what the images do not show, and few images
    show too little: no confident mistake, and no image on which the models disagree. So each draw adds pseudo-observations, as
    Agresti & Min do for proportions of matched pairs (Biometrics 61, 2005):

    - for log-loss one group, in each draw a random one of the groups, on which two models differ by as much as if its images had
      another class. What that costs a model follows from its probabilities: most where it is overconfident. Its sign is random:
      on unseen images an overconfident model may be wrong, or right again;
    - for accuracy two groups of mean size, on which the difference of two models is +√½ and -√½. They add as much variance as
      twice the half image of Agresti & Min.

    Coverage of the intervals: `tests/unit/test_statistics.py` and `benchmarks/interval_coverage.py`.

    Args:
        losses: log-loss (n, m) of n images by m models.
        otherwise: (n, m), the log-loss if the class were another one (`heads.metrics.losses_otherwise`).
        right: (n, m), whether the predicted class is the true one.
        groups: n names; images of one group are drawn together.
    """
    group_of = np.unique(np.asarray(groups), return_inverse=True)[1]
    number = int(group_of.max()) + 1
    sizes = np.bincount(group_of).astype(np.float64)
    seen, unseen, correct = (_by_group(group_of, number, v) for v in (losses, otherwise, right.astype(np.float64)))
    rng = np.random.default_rng(SEED)
    log_loss, accuracy, shifts = [], [], []
    at_once = max(1, _WEIGHTS_AT_ONCE // (number + 2))
    for first in range(0, DRAWS, at_once):
        interrupts.check()
        draws = min(at_once, DRAWS - first)
        weights, more = np.split(_weights(rng, draws, number + 1), [number], axis=1)
        other = rng.integers(0, number, draws)
        images = weights @ sizes + more[:, 0] * sizes[other]
        log_loss.append((weights @ seen + more * rng.choice([-1.0, 1.0], (draws, 1)) * unseen[other]) / images[:, None])
        weights, more = np.split(_weights(rng, draws, number + 2), [number], axis=1)
        better, worse = more.T * sizes.mean()
        images = weights @ sizes + better + worse
        accuracy.append(weights @ correct / images[:, None])
        shifts.append((better - worse) * math.sqrt(0.5) / images)
    return Resampled(np.concatenate(log_loss), losses.mean(axis=0), np.concatenate(accuracy), np.concatenate(shifts))


def _by_group(group_of: NDArray[np.intp], number: int, values: Floats) -> Floats:
    sums = np.zeros((number, values.shape[1]))
    np.add.at(sums, group_of, values)
    return sums


def _weights(rng: np.random.Generator, draws: int, number: int) -> Floats:
    """Return how often each of `number` groups occurs in a draw of `number` groups, (draws, number)."""
    drawn = rng.integers(0, number, (draws, number)) + number * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * number).reshape(draws, number).astype(np.float64)


def _percentiles(values: Floats) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def effective(groups: Sequence[str]) -> float:
    """Return the effective number of independent images: (Σ size)² / Σ size² over the groups.

    Source: L. Kish, Survey Sampling (1965), for perfect correlation within a group.
    """
    sizes = np.unique(np.asarray(groups), return_counts=True)[1]
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Source: Q. McNemar, Psychometrika 12 (1947); exact by the binomial distribution.

    Args:
        only_a, only_b: number of images that only one of two models classifies correctly.
    """
    from scipy.stats import binomtest

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (S. Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def images_needed(only_a: int, only_b: int, n: int) -> float:
    """Return the number of images that would show a difference as large as this one with 80% power; infinite where there is none.

    For McNemar's test at 5%, two-sided, with the observed ψ = p₁₀ + p₀₁ and δ = p₁₀ − p₀₁:
    (z₀.₉₇₅ √ψ + z₀.₈ √(ψ − δ²))² / δ². Source: R. J. Connor, Biometrics 43 (1987), equation 3.

    Args:
        only_a, only_b: number of images that only one of two models classifies correctly; n: all images.
    """
    from scipy.stats import norm

    if only_a == only_b:
        return math.inf
    discordant, difference = (only_a + only_b) / n, (only_a - only_b) / n
    z_test, z_power = norm.ppf(1 - (1 - CONFIDENCE) / 2), norm.ppf(POWER)
    root = z_test * math.sqrt(discordant) + z_power * math.sqrt(discordant - difference**2)
    return float(math.ceil((root / difference) ** 2))
