"""The comparison: metrics of every candidate on the same images, every pair of them, and the verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics import Metrics, confusion, losses, losses_otherwise, measure
from vggft.comparison import statistics, verdict
from vggft.comparison.candidates import Candidate, CandidatePredictions
from vggft.comparison.verdict import Favours, Outcome, Pair, Verdict


class NoPValue(Enum):
    """Why p-values are not given."""

    SELECTED = "selected"  # the images selected the models
    GROUPED = "grouped"  # the images are in groups, and McNemar's test assumes that they are independent


@dataclass(frozen=True)
class Measured:
    """A candidate with its metrics; `confusion` (classes, classes): one row per true class, one column per predicted class."""

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
class Contrast:
    """The head and the network of the workspace that are compared first; no network where heads alone are compared.

    With nested cross-validation the first pair are ways of selecting a head and a network; these are what they select from the
    whole workspace.

    Attributes:
        head, network: their names.
        start: the head that the network started from; None where several networks stand for it, one per fold.
        unchanged: no epoch of fine-tuning was better than that head (in no fold, where there are folds).
    """

    head: str
    network: str | None = None
    start: str | None = None
    unchanged: bool = False


@dataclass(frozen=True)
class Comparison:
    """The result of comparing candidates.

    Attributes:
        rows: in order of log-loss.
        pairs: the pair that the verdict is about, then all others: the best network against the best head or, where there is
            no network, the best head against the best of the other kind (a dense head against a logistic regression), if
            there is one.
        no_p_value: why there are no p-values; None where there are.
    """

    predictions: CandidatePredictions
    contrast: Contrast
    rows: Sequence[Measured]
    pairs: Sequence[Pair]
    verdict: Verdict
    no_p_value: NoPValue | None

    @property
    def first(self) -> Pair | None:
        """The pair that the verdict is about; None where heads of one kind alone are compared."""
        return self.pairs[0] if _challenge(self.predictions) else None

    @property
    def difference(self) -> Pair | None:
        """The first pair, where its models differ; None where the network is, up to rounding, the head, and without a pair."""
        same = self.contrast.unchanged and self.contrast.start == self.contrast.head
        return None if same else self.first

    @property
    def use(self) -> str:
        """The name of the model to use."""
        network = self.contrast.network
        return network if network and self.verdict.use_network else self.contrast.head

    @property
    def in_workspace(self) -> Mapping[str, str]:
        """The best head and the best network among the candidates → their models in the workspace."""
        named = {self.predictions.head: self.contrast.head}
        if self.predictions.network and self.contrast.network:
            named[self.predictions.network] = self.contrast.network
        return named

    @property
    def in_focus(self) -> list[Measured]:
        """The candidates that are compared first, network before head, and the best logistic regression."""
        rows = {row.name: row for row in self.rows}
        names = dict.fromkeys((self.predictions.network, self.predictions.head, self.baseline))
        return [rows[name] for name in names if name]

    @property
    def baseline(self) -> str | None:
        """The best logistic regression, as the heads are ranked; None where there is none."""
        return next((one.name for one in self.predictions.candidates if one.kind == "logistic"), None)

    @property
    def used_row(self) -> Measured:
        """The metrics of the candidate that the verdict is for."""
        name = self.predictions.network if self.verdict.use_network else self.predictions.head
        return next(row for row in self.rows if row.name == name)


def compare_candidates(predictions: CandidatePredictions, contrast: Contrast) -> Comparison:
    """Measure all candidates, compare all pairs of them, and decide on the first pair."""
    rows = []
    for candidate in predictions.candidates:
        p = candidate.probabilities
        rows.append(Measured(candidate, measure(p, predictions.targets), confusion(p, predictions.targets)))
    rows.sort(key=lambda row: row.metrics.log_loss)
    no_p_value = None
    if not predictions.fair:
        no_p_value = NoPValue.SELECTED
    elif predictions.declared and predictions.grouped:
        no_p_value = NoPValue.GROUPED
    pairs = _pairs(predictions, tested=no_p_value is None)
    decision = (
        verdict.decide(pairs[0], contrast.unchanged)
        if predictions.network
        else Verdict(Outcome.HEADS_ONLY, Favours.NEITHER)
    )
    return Comparison(predictions, contrast, rows, pairs, decision, no_p_value)


def _challenge(predictions: CandidatePredictions) -> tuple[str, str] | None:
    """Return the names of the pair that is compared first; None where heads of one kind alone are compared."""
    if predictions.network:
        return predictions.network, predictions.head
    kinds = {candidate.name: candidate.kind for candidate in predictions.candidates}  # heads are ranked: the best first
    other = next((name for name, kind in kinds.items() if kind != kinds[predictions.head]), None)
    return (predictions.head, other) if other else None


def _pairs(predictions: CandidatePredictions, tested: bool) -> list[Pair]:
    """Compare all pairs: the first one alone, the others with p-values corrected for their number."""
    targets = predictions.targets
    by_loss = sorted(predictions.candidates, key=lambda c: float(losses(c.probabilities, targets).mean()))
    names = [candidate.name for candidate in by_loss]
    loss = np.stack([losses(candidate.probabilities, targets) for candidate in by_loss], axis=1)
    otherwise = np.stack([losses_otherwise(candidate.probabilities, targets) for candidate in by_loss], axis=1)
    right = np.stack([candidate.probabilities.argmax(axis=1) == targets for candidate in by_loss], axis=1)
    groups, apart = [sample.group for sample in predictions.samples], predictions.apart
    drawn = statistics.resample(loss, otherwise, right, groups)
    challenge = _challenge(predictions)
    first = [(names.index(challenge[0]), names.index(challenge[1]))] if challenge else []
    others = [pair for pair in combinations(range(len(names)), 2) if set(pair) not in map(set, first)]
    pairs = []
    for a, b in (*first, *others):
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
    return _corrected(pairs, len(first)) if tested else pairs


def _corrected(pairs: Sequence[Pair], planned: int) -> list[Pair]:
    """Return pairs with p-values: of the first `planned` as they are, of the others with Holm's correction."""
    raw = [pair.p_value_uncorrected or 0.0 for pair in pairs]
    return [
        replace(pair, p_value=p)
        for pair, p in zip(pairs, [*raw[:planned], *statistics.holm(raw[planned:])], strict=True)
    ]
