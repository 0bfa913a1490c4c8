"""How many keys it takes to sort a collection of pictures, with and without suggestions, and how honest suggestions are.

    vggft featurize FOLDER -w WORKSPACE
    python -m benchmarks.sorting_keys WORKSPACE [WORKSPACE ...] [--orders 5] [--policies] [--probabilities]

A simulated person who makes no mistakes sorts all pictures of each workspace into its classes, as the page of `vggft sort` shows
them. Counted are: one key a picture that is sorted by itself; in a grid of sure suggestions of one class, one key for each wrong
picture, which is taken out and sorted by itself later, and one key to confirm the rest; and one key each time the person goes
from single pictures to grids or back. As in the page, the classifier trains in the background: each training sees the decisions
of `BEHIND` keys ago. Copies of a picture count once.

--policies: other sizes of the grid, thresholds and orders, too.
--probabilities: of suggestions after 20, 50 and 200 pictures in random order, accuracy and mean probability of all suggestions
and of the sure ones, log-loss and calibration error.
--alternatives: the log-loss with other poolings and values of C.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from featurize.backbone.vgg16 import VGG16
from heads import features, logistic
from heads.features import Features
from heads.head import Head
from heads.metrics import calibration_error, losses
from heads.specs import LogisticSpec, Pooling
from vggft.labelling import classifier, queue
from vggft.labelling.suggestions import Suggestion
from vggft.workspace.workspace import Workspace

ALTERNATIVES: tuple[tuple[Pooling, float], ...] = (
    *((pooling, classifier.C) for pooling in ("avg", "max", "avgmax")),
    *((classifier.POOLING, C) for C in (0.01, 1.0)),
)
BEHIND = 5  # keys; with 1.5 keys a second, three seconds of training


@dataclass(frozen=True)
class Policy:
    """When a grid is shown, and what single pictures come first."""

    grid: int = queue.GRID
    sure: float = queue.SURE
    fewest: int = queue.FEWEST
    single: Literal["doubtful", "in order"] = "doubtful"
    taken_out: Literal["next", "by doubt"] = "next"  # when a picture that was taken out of a grid is shown by itself


@dataclass(frozen=True)
class Collection:
    """Distinct pictures with their features (n, inputs) and classes."""

    workspace: Path
    pooled: NDArray[np.float32]
    labels: Sequence[str]


@dataclass
class Result:
    """Keys by kind, pictures in grids, the wrong ones among them, and suggestions that were right where a picture was shown."""

    single: int = 0
    confirm: int = 0
    out: int = 0
    change: int = 0
    in_grids: int = 0
    suggested: int = 0
    right: int = 0

    @property
    def keys(self) -> int:
        """All keys."""
        return self.single + self.confirm + self.out + self.change


def main() -> None:
    """Sort and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path, nargs="+")
    parser.add_argument("--orders", type=int, default=5)
    parser.add_argument("--policies", action="store_true")
    parser.add_argument("--probabilities", action="store_true")
    parser.add_argument("--alternatives", action="store_true")
    options = parser.parse_args()
    with threadpool_limits(1):
        for collection in map(read, options.workspace):
            count = len(set(collection.labels))
            print(
                f"{collection.workspace.name}: {len(collection.labels)} different pictures in {count} classes",
                flush=True,
            )
            for name, policy in (variants() if options.policies else {"as in vggft sort": Policy()}).items():
                show(name, [sort(collection, policy, seed) for seed in range(options.orders)])
            for labels in (20, 50, 200) if options.probabilities else ():
                show_probabilities(collection, labels, options.orders)
            for pooling, C in ALTERNATIVES if options.alternatives else ():
                show_alternative(read(collection.workspace, pooling), pooling, C, options.orders)


def read(folder: Path, pooling: Pooling = classifier.POOLING) -> Collection:
    """Read the features of a workspace."""
    workspace = Workspace(folder, VGG16)
    distinct = {sample.digest: sample for sample in workspace.dataset.samples if sample.status != "rejected"}
    samples = list({digest: distinct[digest] for digest in sorted(distinct)}.values())
    pooled = features.read(workspace.cache(), samples, [0] * len(samples), [pooling])
    return Collection(folder, pooled.pooled[pooling], [sample.label for sample in samples])


def variants() -> dict[str, Policy]:
    """Return policies that differ from the page's in one thing."""
    page = Policy()
    return {
        "as in vggft sort": page,
        **{f"grid of {size}": replace(page, grid=size) for size in (12, 48)},
        **{f"sure from {sure}": replace(page, sure=sure) for sure in (0.6, 0.7, 0.8, 0.95)},
        **{f"grids of at least {fewest}": replace(page, fewest=fewest) for fewest in (2, 8)},
        "single pictures in order": replace(page, single="in order"),
        "taken out come by doubt": replace(page, taken_out="by doubt"),
    }


def sort(collection: Collection, policy: Policy, seed: int) -> Result:
    """Sort a collection in a random order of names."""
    waiting = [int(i) for i in np.random.default_rng(seed).permutation(len(collection.labels))]
    decided: list[int] = []
    result, head, trained_at, in_grid = Result(), None, 0, False
    taken_out: list[int] = []  # of grids, in which they are not shown again
    while waiting:
        if result.keys - trained_at >= BEHIND:
            trained_at, head = result.keys, train(collection, decided)
        suggestions = suggest(collection, head, waiting)
        corrects = taken_out and policy.taken_out == "next"
        grid = [] if corrects else next_grid({i: s for i, s in suggestions.items() if i not in taken_out}, policy)
        if bool(grid) != in_grid:
            in_grid = bool(grid)
            result.change += 1
        if grid:
            wrong = [i for i in grid if collection.labels[i] != suggestions[i].label]
            result.out += len(wrong)
            result.confirm += len(grid) > len(wrong)
            result.in_grids += len(grid)
            taken_out += wrong
            sorted_now = [i for i in grid if i not in wrong]
        else:
            by_doubt = sorted(suggestions, key=lambda i: suggestions[i].probability)
            first = by_doubt[0] if by_doubt and policy.single == "doubtful" else waiting[0]
            sorted_now = [taken_out.pop(0) if corrects else first]
            result.single += 1
        shown = [i for i in (grid or sorted_now) if i in suggestions]
        result.suggested += len(shown)
        result.right += sum(collection.labels[i] == suggestions[i].label for i in shown)
        decided += sorted_now
        waiting = [i for i in waiting if i not in set(sorted_now)]
    return result


def train(collection: Collection, decided: Sequence[int]) -> Head | None:
    """Train as the page does."""
    return classifier.train(collection.pooled[decided], [collection.labels[i] for i in decided]) if decided else None


def suggest(collection: Collection, head: Head | None, waiting: Sequence[int]) -> dict[int, Suggestion]:
    """Return the suggestions for some pictures."""
    if head is None:
        return {}
    p = head.scores(collection.pooled[waiting])
    best = p.argmax(axis=1)
    return {i: Suggestion(head.classes[k], float(row[k])) for i, k, row in zip(waiting, best, p, strict=True)}


def next_grid(suggestions: Mapping[int, Suggestion], policy: Policy) -> list[int]:
    """Return the pictures of the next grid: of the class with most sure suggestions, the surest; none where they are few."""
    by_class: dict[str, list[int]] = {}
    for i, suggestion in suggestions.items():
        if suggestion.probability >= policy.sure:
            by_class.setdefault(suggestion.label, []).append(i)
    largest = max(by_class.values(), key=len, default=[])
    if len(largest) < policy.fewest:
        return []
    return sorted(largest, key=lambda i: -suggestions[i].probability)[: policy.grid]


def show(name: str, results: Sequence[Result]) -> None:
    """Print means over orders, and the least and the most keys."""
    keys = [result.keys for result in results]
    means = {key: np.mean([getattr(result, key) for result in results]) for key in vars(results[0])}
    print(
        f"  {name:26} keys {np.mean(keys):5.0f} ({min(keys)}–{max(keys)}): single {means['single']:.0f}, confirmed "
        f"{means['confirm']:.0f}, taken out {means['out']:.0f}, changes {means['change']:.0f}; in grids {means['in_grids']:.0f}, "
        f"right there {1 - means['out'] / max(1, means['in_grids']):.1%}; right of all shown "
        f"{means['right'] / max(1, means['suggested']):.1%}",
        flush=True,
    )


def show_probabilities(collection: Collection, labels: int, orders: int) -> None:
    """Print how right suggestions are, and how sure, for the pictures that are not sorted yet."""
    rows = []
    names = sorted(set(collection.labels))
    targets = np.array([names.index(label) for label in collection.labels])
    for seed in range(orders):
        shuffled = np.random.default_rng(seed).permutation(len(targets))
        head = train(collection, shuffled[:labels].tolist())
        if head is None:
            continue
        rest = shuffled[labels:]
        p = np.full((len(rest), len(names)), 1e-6)  # classes without labels
        p[:, [names.index(name) for name in head.classes]] = head.scores(collection.pooled[rest])
        right, confidence = p.argmax(axis=1) == targets[rest], p.max(axis=1)
        sure = confidence >= queue.SURE
        log_loss = losses(p, targets[rest]).mean()
        calibration = calibration_error(p, targets[rest])
        rows.append(
            (
                right.mean(),
                confidence.mean(),
                log_loss,
                calibration,
                sure.mean(),
                right[sure].mean(),
                confidence[sure].mean(),
            )
        )
    right, confidence, log_loss, calibration, share, sure_right, sure_confidence = np.mean(rows, axis=0)
    print(
        f"  {labels:3} labels: right {right:.1%}, mean probability {confidence:.1%}, log-loss {log_loss:.3f}, calibration error "
        f"{calibration:.3f}; sure {share:.1%} of them: right {sure_right:.1%}, mean probability {sure_confidence:.1%}",
        flush=True,
    )


def show_alternative(collection: Collection, pooling: Pooling, C: float, orders: int) -> None:
    """Print log-losses after 20, 50 and 200 labels; pictures of classes without labels do not count."""
    names = sorted(set(collection.labels))
    targets = np.array([names.index(label) for label in collection.labels])
    means = {}
    for labels in (20, 50, 200):
        values = []
        for seed in range(orders):
            shuffled = np.random.default_rng(seed).permutation(len(targets))
            known, position = np.unique(targets[shuffled[:labels]], return_inverse=True)
            images = Features({pooling: collection.pooled[shuffled[:labels]]}, position.astype(np.int64), ())
            head = logistic.train(LogisticSpec("sorting", pooling), [names[k] for k in known], images, seed=0, C=C).head
            rest = shuffled[labels:][np.isin(targets[shuffled[labels:]], known)]
            values.append(losses(head.scores(collection.pooled[rest]), np.searchsorted(known, targets[rest])).mean())
        means[labels] = f"{np.mean(values):.3f}"
    print(f"  {pooling}, C = {C}: log-loss with 20, 50 and 200 labels {', '.join(means.values())}", flush=True)


if __name__ == "__main__":
    main()
