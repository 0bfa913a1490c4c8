"""Which method to use, and how sure that is: one table on the same images, and a sentence derived from stated rules."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.errors import VggftError
from heads.metrics import Metrics, judge, losses
from vggft import methods
from vggft.methods import Method
from vggft.workspace import Workspace

# Said wherever the numbers come from images that took part in choosing heads, epochs or rates.
CAVEAT = "these images also chose the models, so differences between methods are optimistic and no p-value is given"

# Said where they come from a test split.
FAIR = "best head and best network were chosen on validation, these images chose nothing"

_DRAWS = 10_000
_SEED = 0


@dataclass(frozen=True)
class Judged:
    """A method on the compared images: its metrics and its probabilities (n, classes)."""

    method: Method
    metrics: Metrics
    probabilities: NDArray[np.float64]

    def as_json(self) -> dict[str, Any]:
        """Return the row of the table."""
        m = self.metrics
        return {
            "name": self.method.name,
            "kind": self.method.kind,
            "seconds": self.method.seconds,
            "n": m.n,
            "accuracy": m.accuracy,
            "accuracy_interval": list(m.accuracy_interval),
            "log_loss": m.log_loss,
            "auc": m.auc,
        }


@dataclass(frozen=True)
class Contrast:
    """The best tuned network against the best head, both chosen on validation.

    `difference`: mean log-loss of the network minus that of the head; `interval`: its 95% bootstrap interval;
    `unchanged`: no epoch of fine-tuning was better than the head it came from.
    """

    head: str
    tuned: str
    unchanged: bool
    difference: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """All fresh methods on the same images, in order of log-loss."""

    measured_on: str
    paths: Sequence[str]
    targets: NDArray[np.int64]
    rows: Sequence[Judged]
    contrast: Contrast
    recommendation: str
    stale: Sequence[str]


def compare(workspace: Workspace) -> Comparison:
    """Judge every fresh method on the test split, or on validation where there is none.

    Raises:
        VggftError: nothing to compare yet.
    """
    found = methods.load(workspace)
    if not found.heads:
        methods.fresh_heads(workspace)  # raises, and says which step is missing
    if not found.networks:
        stale = any(method.tuned for method in found.stale)
        why = "the tuned networks here are stale" if stale else "no tuned network here yet"
        raise VggftError(f"{workspace.root}: nothing to compare the heads with: {why}. Run first: vggft finetune")
    dataset = workspace.dataset
    measured_on = "test" if dataset.accepted("test") else "validation"
    samples = dataset.accepted("test" if measured_on == "test" else "validate")
    targets = np.asarray(dataset.targets(samples), np.int64)
    cache = workspace.cache()
    rows = []
    for method in found.fresh:
        p = method.judge(workspace, cache, samples)
        rows.append(Judged(method, judge(p, targets), p))
    by_name = {row.method.name: row for row in rows}
    head, tuned = by_name[found.heads[0].name], by_name[found.networks[0].name]
    contrast = _contrast(head, tuned, targets)
    rows.sort(key=lambda row: row.metrics.log_loss)
    return Comparison(
        measured_on,
        [s.path for s in samples],
        targets,
        rows,
        contrast,
        _recommend(contrast, len(samples), measured_on),
        [method.name for method in found.stale],
    )


def _contrast(head: Judged, tuned: Judged, targets: NDArray[np.int64]) -> Contrast:
    difference = losses(tuned.probabilities, targets) - losses(head.probabilities, targets)
    low, high = bootstrap_interval(difference)
    return Contrast(head.method.name, tuned.method.name, tuned.method.unchanged, float(difference.mean()), (low, high))


def bootstrap_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95% percentile-bootstrap interval of a mean (Efron & Tibshirani 1993, chapter 13): 10,000 seeded draws."""
    rng = np.random.default_rng(_SEED)
    at_once = max(1, 1_000_000 // len(values))  # some megabytes at a time
    means = [
        values[rng.integers(0, len(values), (min(at_once, _DRAWS - first), len(values)))].mean(axis=1)
        for first in range(0, _DRAWS, at_once)
    ]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def _recommend(contrast: Contrast, n: int, measured_on: str) -> str:
    """One sentence: the interval of the log-loss difference decides; where it holds 0, the cheaper method."""
    low, high = contrast.interval
    by = f"log-loss {abs(contrast.difference):.4f} {{}}, 95% interval of the difference {low:+.4f} to {high:+.4f}"
    if contrast.unchanged:
        sentence = f"Use {contrast.head}: no epoch of fine-tuning was better than the head it started from"
    elif high < 0:
        sentence = f"Use {contrast.tuned}: fine-tuning beats {contrast.head} ({by.format('lower')})"
    elif low > 0:
        sentence = f"Use {contrast.head}: fine-tuning made it worse ({by.format('higher')})"
    else:
        sentence = (
            f"Use {contrast.head}: no difference to {contrast.tuned} that these {n} images can show, and it is cheaper"
        )
    return f"{sentence}; {CAVEAT if measured_on == 'validation' else FAIR}."
