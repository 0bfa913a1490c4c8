"""The comparison: every method judged on the same images, every pair of them, and which one to use."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics import Metrics, confusion, losses, losses_otherwise, measure
from vggft.comparison import statistics, verdict
from vggft.comparison.candidates import Candidate, CandidatePredictions
from vggft.comparison.verdict import Pair, Verdict


@dataclass(frozen=True)
class Measured:
    """A candidate and how it did; `confusion` (classes, classes): a row a true class, a column a predicted one."""

    candidate: Candidate
    metrics: Metrics
    confusion: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The candidate's name."""
        return self.candidate.name

    def as_json(self) -> dict[str, Any]:
        """Return name, kind, metrics and confusion matrix."""
        return {
            "name": self.name,
            "kind": self.candidate.kind,
            **self.metrics.as_json(),
            "confusion": self.confusion.tolist(),
        }


@dataclass(frozen=True)
class Comparison:
    """What the evidence comes to.

    Attributes:
        rows: in order of log-loss.
        pairs: the best network against the best head, then all others.
        no_p_value: why there are no p-values; None where there are.
    """

    evidence: CandidatePredictions
    rows: Sequence[Measured]
    pairs: Sequence[Pair]
    verdict: Verdict
    no_p_value: str | None

    @property
    def contrast(self) -> Pair:
        """The best network against the best head: what was to be found out."""
        return self.pairs[0]

    def row(self, name: str) -> Measured:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)


def compare_candidates(evidence: CandidatePredictions, head: str, network: str, unchanged: bool) -> Comparison:
    """Judge all candidates and compare all pairs of them.

    Args:
        head, network: what the two that are compared first are called in the workspace.
        unchanged: that network is a head, to rounding: no epoch of fine-tuning was better.
    """
    rows = []
    for candidate in evidence.candidates:
        p = candidate.probabilities
        rows.append(Measured(candidate, measure(p, evidence.targets), confusion(p, evidence.targets)))
    rows.sort(key=lambda row: row.metrics.log_loss)
    no_p_value = None
    if not evidence.fair:
        no_p_value = "these images also chose the models"
    elif evidence.declared and evidence.grouped:
        no_p_value = "these images are in groups, and McNemar's test takes them for independent"
    pairs = _pairs(evidence, tested=no_p_value is None)
    proviso = {"validation": verdict.CAVEAT, "test": verdict.FAIR, "folds": verdict.FAIR_FOLDS}[evidence.source]
    if evidence.source == "folds":  # ways of choosing are compared, and not what they chose in the workspace
        said = verdict.decide(pairs[0], f"the {evidence.head}", f"the {evidence.network}", unchanged, proviso)
        use = network if said.use == f"the {evidence.network}" else head
        rest = said.sentence.removeprefix(f"Use {said.use}: ")
        said = replace(said, use=use, sentence=f"Use {said.use}, here {use}: {rest}")
    else:
        said = verdict.decide(pairs[0], head, network, unchanged, proviso)
    return Comparison(evidence, rows, pairs, said, no_p_value)


def _pairs(evidence: CandidatePredictions, tested: bool) -> list[Pair]:
    """Compare all pairs, the first one alone, the others with p-values corrected for their number."""
    by_loss = sorted(
        evidence.candidates, key=lambda candidate: float(losses(candidate.probabilities, evidence.targets).mean())
    )
    names = [candidate.name for candidate in by_loss]
    loss = np.stack([losses(candidate.probabilities, evidence.targets) for candidate in by_loss], axis=1)
    otherwise = np.stack([losses_otherwise(c.probabilities, evidence.targets) for c in by_loss], axis=1)
    right = np.stack([c.probabilities.argmax(axis=1) == evidence.targets for c in by_loss], axis=1)
    groups, apart = [sample.group for sample in evidence.samples], evidence.apart
    drawn = statistics.resample(loss, otherwise, right, groups)
    first = (names.index(evidence.network), names.index(evidence.head))
    others = [pair for pair in combinations(range(len(names)), 2) if set(pair) != set(first)]
    pairs = []
    for a, b in (first, *others):
        only_a, only_b = right[:, a] & ~right[:, b], right[:, b] & ~right[:, a]
        counted = int(only_a[apart].sum()), int(only_b[apart].sum())
        pairs.append(
            Pair(
                a=names[a],
                b=names[b],
                n=len(loss),
                accuracy_difference=float(np.mean(only_a) - np.mean(only_b)),
                accuracy_interval=drawn.accuracy_interval(a, b),
                log_loss_difference=float(np.mean(loss[:, a] - loss[:, b])),
                log_loss_interval=drawn.log_loss_interval(a, b),
                only_a=int(only_a.sum()),
                only_b=int(only_b.sum()),
                effective=statistics.effective(groups),
                independent=len(apart),
                counted=counted,
                p_value_uncorrected=statistics.mcnemar(*counted) if tested else None,
            )
        )
    return _corrected(pairs) if tested else pairs


def _corrected(pairs: Sequence[Pair]) -> list[Pair]:
    alone, *others = pairs
    raw = [pair.p_value_uncorrected or 0.0 for pair in others]
    corrected = [replace(pair, p_value=p) for pair, p in zip(others, statistics.holm(raw), strict=True)]
    return [replace(alone, p_value=alone.p_value_uncorrected), *corrected]
