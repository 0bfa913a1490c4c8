"""What to do next, as data; `vggft.comparison.report.sentences` words it."""

from collections.abc import Sequence
from dataclasses import dataclass

from vggft.comparison.comparison import Comparison


@dataclass(frozen=True)
class CrossValidate:
    """The images selected the models, or are too few: nested cross-validation gives a verdict on more of them.

    Attributes:
        command: to run.
        seconds: that it takes, roughly.
    """

    command: str
    seconds: float


@dataclass(frozen=True)
class ReserveTest:
    """The same, by reserving a test split; `command`: to run, before training again."""

    command: str


@dataclass(frozen=True)
class SelectionUnreliable:
    """In nested cross-validation the head and the network of the workspace differ clearly: selecting matters.

    Attributes:
        better, worse: their names.
        log_loss: the difference.
    """

    better: str
    worse: str
    log_loss: float


@dataclass(frozen=True)
class Tune:
    """Heads alone were compared: whether fine-tuning would be better is open; `command`: to run."""

    command: str


@dataclass(frozen=True)
class TuneAgain:
    """Fine-tuning wins, but the network of the workspace kept epoch 0, and so is still a head."""

    network: str


Advice = CrossValidate | ReserveTest | SelectionUnreliable | Tune | TuneAgain


def selection_unreliable(comparison: Comparison) -> Sequence[SelectionUnreliable]:
    """Return whether the head and the network of the workspace clearly differ from each other out of fold."""
    names = {comparison.contrast.head, comparison.contrast.network}
    for pair in comparison.pairs:
        low, high = pair.log_loss_interval
        if {pair.a, pair.b} == names and not low <= 0 <= high:
            better, worse = (pair.a, pair.b) if high < 0 else (pair.b, pair.a)
            return [SelectionUnreliable(better, worse, abs(pair.log_loss_difference))]
    return []
