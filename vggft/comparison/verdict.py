"""The verdict: which of two models to use, as an outcome with numbers. `vggft.comparison.report.sentences` words it.

The rules, the first that applies:

1. No epoch of fine-tuning was better than the head that the network started from: use the head (`UNCHANGED`).
2. The images count for fewer than `FEWEST` independent ones, which is too few: use the head, which is cheaper (`TOO_FEW`).
   Groups of unequal size count for fewer than they are: (Σ size)² / Σ size².
3. Log-loss decides, as everywhere in vggft. If the 95% interval of the network's minus the head's is below 0: use the network
   (`NETWORK_WINS`), unless all of it is within `RELEVANT` of 0 (`BELOW_RELEVANT`); if it is above 0: use the head (`HEAD_WINS`).
4. If it contains 0, these images show no difference: use the head, which is cheaper (`NO_DIFFERENCE`).

Accuracy does not decide; `Verdict.accuracy` says which model its 95% interval favours. Where it favours neither, and log-loss
shows no difference, the verdict says how many images would show a difference in accuracy as large as the observed one
(McNemar's test, 80% power); where images are in groups, one image of each group is counted.
"""

import math
from dataclasses import dataclass
from enum import Enum

from vggft.comparison.statistics import images_needed

# Where more than this many images would be needed to show a difference, no number is given: nobody labels as many, and the
# estimate is unreliable.
CAP = 100_000

# A smaller gain in log-loss is not worth fine-tuning: it raises the probability of the true class by 1% (0.9 to 0.909, say).
RELEVANT = 0.01

# Bootstrap intervals are unreliable for groups of very unequal size: in simulations they contained the truth in 83 to 91 of
# 100 cases where 60 groups counted for 8.
FEWEST = 10


class Outcome(Enum):
    """The rule that decided."""

    UNCHANGED = "unchanged"
    TOO_FEW = "too_few"
    BELOW_RELEVANT = "below_relevant"
    NETWORK_WINS = "network_wins"
    HEAD_WINS = "head_wins"
    NO_DIFFERENCE = "no_difference"
    HEADS_ONLY = "heads_only"  # no network is tuned yet: the best head


class Favours(Enum):
    """The model that the 95% interval of a difference favours."""

    NETWORK = "network"
    HEAD = "head"
    NEITHER = "neither"


@dataclass(frozen=True)
class Pair:
    """Two candidates on the same n images; differences are a minus b.

    Attributes:
        accuracy_difference, log_loss_difference: with 95% bootstrap intervals (`vggft.comparison.statistics`).
        only_a, only_b: number of images that only the one or the other classifies correctly.
        effective: number of independent images that these count for (`statistics.effective`).
        independent: number of groups; n where each image is a group of its own.
        counted: `only_a` and `only_b` among one image of each group: what p-values and numbers of images come from.
        p_value: of McNemar's exact test; with Holm's correction for all but the first pair. None where none is given.
        p_value_uncorrected: the same without the correction.
    """

    a: str
    b: str
    n: int
    accuracy_difference: float
    accuracy_interval: tuple[float, float]
    log_loss_difference: float
    log_loss_interval: tuple[float, float]
    only_a: int
    only_b: int
    effective: float
    independent: int
    counted: tuple[int, int]
    p_value: float | None = None
    p_value_uncorrected: float | None = None

    @property
    def grouped(self) -> bool:
        """True where some of the images are in one group."""
        return self.independent < self.n


@dataclass(frozen=True)
class Verdict:
    """Which of the two to use, and why.

    Attributes:
        outcome: the rule that decided.
        accuracy: the model that accuracy favours.
        needed: number of independent images that would show the observed difference in accuracy, infinite where none was
            observed. None where the question does not arise, or where the formula says that there are enough.
    """

    outcome: Outcome
    accuracy: Favours
    needed: float | None = None

    @property
    def use_network(self) -> bool:
        """True: use the network; False: use the head."""
        return self.outcome is Outcome.NETWORK_WINS

    @property
    def images_needed(self) -> int | None:
        """`needed`; None where it is above `CAP`."""
        return int(self.needed) if self.needed is not None and self.needed <= CAP else None


def decide(pair: Pair, unchanged: bool) -> Verdict:
    """Apply the rules.

    Args:
        pair: the network (a) against the head (b).
        unchanged: no epoch of fine-tuning was better than the head that the network started from.
    """
    accuracy = _favours(*(-bound for bound in reversed(pair.accuracy_interval)))
    log_loss = _favours(*pair.log_loss_interval)
    if unchanged:
        return Verdict(Outcome.UNCHANGED, accuracy)
    if pair.effective < FEWEST:
        return Verdict(Outcome.TOO_FEW, accuracy)
    if log_loss is Favours.NETWORK:
        relevant = pair.log_loss_interval[0] <= -RELEVANT
        return Verdict(Outcome.NETWORK_WINS if relevant else Outcome.BELOW_RELEVANT, accuracy)
    if log_loss is Favours.HEAD:
        return Verdict(Outcome.HEAD_WINS, accuracy)
    needed = images_needed(*pair.counted, pair.independent) if accuracy is Favours.NEITHER else -math.inf
    return Verdict(Outcome.NO_DIFFERENCE, accuracy, needed if needed > pair.independent else None)


def _favours(low: float, high: float) -> Favours:
    """Return which model an interval favours, of a loss of the network minus that of the head."""
    if high < 0:
        return Favours.NETWORK
    return Favours.HEAD if low > 0 else Favours.NEITHER
