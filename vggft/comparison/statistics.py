"""How sure a difference between methods on the same images is: bootstrap intervals, McNemar's test, Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featurize import interrupts

Floats = NDArray[np.float64]

DRAWS = 10_000
SEED = 0
CONFIDENCE = 0.95
POWER = 0.8

# What is drawn besides the images, in words: see `resample`.
UNSEEN = (
    "log-loss: one group more, in each draw another one of the groups; two methods differ on it by + or - (by chance) what they "
    "would if its class were another one (the mean over all wrong ones); accuracy: two groups more of mean size, the difference "
    "of two methods +√½ on one and -√½ on the other"
)

_WEIGHTS_AT_ONCE = 4_000_000  # numbers of groups drawn, in memory at once: 32 MB


@dataclass(frozen=True)
class Resampled:
    """Means of m methods over the images, in each of `DRAWS` bootstrap draws.

    Attributes:
        log_loss: (draws, m), of which only differences mean anything; `seen` (m,): what was seen.
        accuracy: (draws, m); `accuracy_shift` (draws,): to be added to the difference of any two of them.
    """

    log_loss: Floats
    seen: Floats
    accuracy: Floats
    accuracy_shift: Floats

    def log_loss_interval(self, a: int, b: int) -> tuple[float, float]:
        """Return the 95% interval of the log-loss of method a minus that of b; it contains what was seen."""
        low, high = _percentiles(self.log_loss[:, a] - self.log_loss[:, b])
        seen = float(self.seen[a] - self.seen[b])
        return min(low, seen), max(high, seen)

    def accuracy_interval(self, a: int, b: int) -> tuple[float, float]:
        """Return the 95% interval of the accuracy of method a minus that of b."""
        return _percentiles(self.accuracy[:, a] - self.accuracy[:, b] + self.accuracy_shift)


def resample(losses: Floats, otherwise: Floats, right: NDArray[np.bool_], groups: Sequence[str]) -> Resampled:
    """Draw the images again and again, whole groups with replacement, the same ones for all methods.

    Intervals are percentiles (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; drawn by group: Davison
    & Hinkley, Bootstrap Models, 1997, section 3.8). By themselves they know nothing of what the images did not happen to show,
    and few images show too little: no confident mistake, and no image on which the methods disagree. So a little more is drawn
    from than was seen, as Agresti & Min do for proportions of matched pairs (Biometrics 61, 2005):

    - for log-loss one group more, in each draw another one of those there are, on which two methods differ by as much as if its
      images had another class: what that costs a method is known from its probabilities, and is most for one that is too sure
      of itself. By chance it is for or against that one: a sure method may be wrong about what is not seen, or go on being right;
    - for accuracy two groups more of mean size, on which the difference of two methods is +√½ and -√½: to the variance that adds
      what the two times half an image of Agresti & Min add.

    How often the intervals hold the truth: `tests/unit/test_statistics.py` and `benchmarks/interval_coverage.py`.

    Args:
        losses: log-loss (n, m) of n images by m methods.
        otherwise: (n, m), what it would be if the class were another one (`heads.metrics.losses_otherwise`).
        right: (n, m), whether the class is right.
        groups: n names; images of one group are drawn together.
    """
    own = np.unique(np.asarray(groups), return_inverse=True)[1]
    number = int(own.max()) + 1
    sizes = np.bincount(own).astype(np.float64)
    seen, unseen, correct = (_by_group(own, number, v) for v in (losses, otherwise, right.astype(np.float64)))
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


def _by_group(own: NDArray[np.intp], number: int, values: Floats) -> Floats:
    sums = np.zeros((number, values.shape[1]))
    np.add.at(sums, own, values)
    return sums


def _weights(rng: np.random.Generator, draws: int, number: int) -> Floats:
    """Return how often each of `number` groups is drawn, (draws, number), when as many are drawn as there are."""
    drawn = rng.integers(0, number, (draws, number)) + number * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * number).reshape(draws, number).astype(np.float64)


def _percentiles(values: Floats) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def effective(groups: Sequence[str]) -> float:
    """Return as how many images of which none belong together these count: (Σ size)² / Σ size² of the groups' sizes.

    Source: L. Kish, Survey Sampling (1965), for images of a group that say all the same.
    """
    sizes = np.unique(np.asarray(groups), return_counts=True)[1]
    return float(sizes.sum() ** 2 / (sizes**2).sum())


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Source: Q. McNemar, Psychometrika 12 (1947); exact by the binomial distribution.

    Args:
        only_a, only_b: images that one method gets right and the other does not.
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
    """Return how many images would show a difference as large as this one in 80 of 100 cases; infinite where there is none.

    For McNemar's test at 5%, two-sided, with ψ = p₁₀ + p₀₁ and δ = p₁₀ − p₀₁ as they were seen:
    (z₀.₉₇₅ √ψ + z₀.₈ √(ψ − δ²))² / δ². Source: R. J. Connor, Biometrics 43 (1987), equation 3.

    Args:
        only_a, only_b: images that one method gets right and the other does not; n: all images.
    """
    from scipy.stats import norm

    if only_a == only_b:
        return math.inf
    discordant, difference = (only_a + only_b) / n, (only_a - only_b) / n
    z_test, z_power = norm.ppf(1 - (1 - CONFIDENCE) / 2), norm.ppf(POWER)
    root = z_test * math.sqrt(discordant) + z_power * math.sqrt(discordant - difference**2)
    return float(math.ceil((root / difference) ** 2))
