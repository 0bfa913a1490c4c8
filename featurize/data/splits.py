"""Assigning groups to splits, once, and setting aside copies that would leak between splits."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from featurize.data.assigned import Assigned, Memory, remember
from featurize.data.dataset import SPLITS, Sample
from featurize.data.shares import Shares
from featurize.errors import VggftError


def reserve_test(before: Sequence[Assigned], samples: Sequence[Sample], shares: Shares) -> list[Assigned]:
    """Move a share of each class from training to test, in hash order. Every class keeps at least one training group.

    Args:
        before: all earlier assignments, also of files that are gone or had another name or label.
        samples: of the scan; only those that were assigned before count towards the share, with the labels they have now.
        shares: the shares, of which `test` is used.
    """
    usable = [sample for sample in samples if sample.status != "rejected"]
    split_of = _earlier_splits(usable, before)
    existing = [sample for sample in usable if sample.group in split_of]
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in existing:
        if split_of[sample.group] == "train":
            groups[sample.group][sample.label] += 1
    sizes = Counter(sample.label for sample in existing)
    targets = {"test": {label: max(1, round(shares.test * size)) for label, size in sizes.items()}}
    train_groups = Counter(label for group in groups.values() for label in group)  # of each class
    counts: dict[str, Counter[str]] = {"test": Counter()}
    test_groups = set()
    for group in sorted(groups, key=lambda name: _order(name, shares.seed)):
        short = _first_short(groups[group], targets, counts) == "test"
        if short and all(train_groups[label] > 1 for label in groups[group]):
            test_groups.add(group)
            counts["test"].update(groups[group])
            train_groups.subtract(groups[group].keys())
    moved = [replace(e, split="test") if e.split == "train" and e.group in test_groups else e for e in before]
    return remember(moved, [replace(sample, split="test") for sample in existing if sample.group in test_groups])


def assign(
    samples: Sequence[Sample], shares: Shares, given: Iterable[str] = (), before: Sequence[Assigned] = ()
) -> list[Sample]:
    """Assign a split to every usable sample. Earlier assignments never change.

    Samples in split folders get that split. Without a validation folder (or a test folder, if `shares.test` is above 0), that
    split is drawn from the other samples: in hash order, each new group goes to validation, else to test, if its classes are
    short of their share there, and otherwise to training. A drawn validation split has at least one group of every class,
    where possible.

    Args:
        samples: with the splits of their folders; rejected samples are returned unchanged.
        shares: fractions of each class to hold back.
        given: splits that have folders.
        before: all earlier assignments.

    Raises:
        VggftError: a folder contradicts a split that was drawn earlier; or all usable images of a class are in one group, which
            cannot be in training and validation.
    """
    given = set(given)
    drawn = [split for split, share in (("validate", shares.validate), ("test", shares.test)) if share > 0]
    drawn = [split for split in drawn if split not in given]
    to_assign = [s for s in samples if s.status != "rejected" and (not s.split or (drawn and s.split == "train"))]
    to_assign_ids = {id(s) for s in to_assign}
    _check_contradictions([s for s in samples if id(s) not in to_assign_ids], before)
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in to_assign:
        groups[sample.group][sample.label] += 1
    _check_groups(groups)

    targets = _targets(groups, {split: getattr(shares, split) for split in drawn})
    earlier = _earlier_splits(to_assign, before)
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for group, split in earlier.items():
        counts[split].update(groups[group])
    split_of = dict(earlier)
    for group in sorted(groups.keys() - earlier.keys(), key=lambda name: _order(name, shares.seed)):
        split_of[group] = _first_short(groups[group], targets, counts)
        counts[split_of[group]].update(groups[group])
    _at_least_one(groups, split_of, earlier, [s for s in ("train", "validate") if s not in given or s == "train"])
    return [replace(s, split=split_of[s.group]) if id(s) in to_assign_ids else s for s in samples]


def _check_contradictions(samples: Sequence[Sample], before: Sequence[Assigned]) -> None:
    """Raise an error if a folder contradicts the split that was drawn for an image before the folder existed."""
    given = [sample for sample in samples if sample.split and sample.status != "rejected"]
    memory = Memory(entry for entry in before if entry.drawn) if given else Memory(())
    for sample in given:
        drawn = memory.splits(sample)
        if drawn and sample.split not in drawn:
            raise VggftError(
                f"{sample.path} is in the {sample.split} split now, but was assigned to {' and '.join(sorted(drawn))} earlier, "
                "and images keep their split. Use a new --workspace for the new splits; --cache shares the features."
            )


def _earlier_splits(samples: Sequence[Sample], before: Sequence[Assigned]) -> dict[str, str]:
    """Return the split of every group that has one; of two splits the earlier one in `SPLITS`, so training if possible.

    Raises:
        VggftError: a group, other than copies of one file, joins images that are in different splits.
    """
    memory = Memory(before)
    known: dict[str, frozenset[str]] = {}
    for sample in samples:
        found = memory.splits(sample)
        if not found <= known.setdefault(sample.group, found):
            known[sample.group] |= found
        if len(known[sample.group]) > 1 and sample.group != sample.digest:
            raise VggftError(
                f"group {sample.group!r} joins images that were assigned to {' and '.join(sorted(known[sample.group]))} earlier, "
                "and images keep their split. Use a new --workspace for other groups; --cache shares the features."
            )
    return {group: min(splits, key=SPLITS.index) for group, splits in known.items() if splits}


def _check_groups(groups: Mapping[str, Counter[str]]) -> None:
    sizes = Counter(label for counts in groups.values() for label in counts)
    for label, number in sorted(sizes.items()):
        if number == 1:
            raise VggftError(
                f"class {label!r} has only one group of usable images: one file, its copies, one group of --group-by or of the "
                "table, or the frames of one video. Expected at least two, for training and validation. Add other pictures or "
                "remove the class. --group-by '(.*)' makes each file a group; then frames of one video are in both splits, and "
                "the metrics are too good."
            )


def _targets(groups: Mapping[str, Counter[str]], shares: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """Return the number of samples of each class that each drawn split should have."""
    sizes: Counter[str] = Counter()
    for counts in groups.values():
        sizes.update(counts)
    return {
        split: {label: max(1, round(share * size)) for label, size in sizes.items()} for split, share in shares.items()
    }


def _order(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogateescape")).digest()


def _first_short(
    group: Counter[str], targets: Mapping[str, Mapping[str, int]], counts: Mapping[str, Counter[str]]
) -> str:
    """Return the first drawn split that needs at least half of this group to reach its targets, else "train"."""
    for split, target in targets.items():
        needed = sum(min(number, max(0, target[label] - counts[split][label])) for label, number in group.items())
        if 2 * needed >= group.total():
            return split
    return "train"


def _at_least_one(
    groups: Mapping[str, Counter[str]], split_of: dict[str, str], earlier: Mapping[str, str], required: Sequence[str]
) -> None:
    """Give each class a group in every required split: move its smallest new group, if that leaves one where it was."""
    for label in sorted({label for counts in groups.values() for label in counts}):
        of_class = sorted((g for g, counts in groups.items() if label in counts), key=lambda g: (groups[g].total(), g))
        for split in required:
            if any(split_of[group] == split for group in of_class):
                continue
            movable = [
                g
                for g in of_class
                if g not in earlier and sum(split_of[other] == split_of[g] for other in of_class) > 1
            ]
            if movable:
                split_of[movable[0]] = split


def set_aside_duplicates(samples: Sequence[Sample]) -> list[Sample]:
    """Mark validation and test samples as "duplicate" if their bytes also occur under another label or in another split.

    Copies in training are kept: without the others, validation and test share no image with training.
    """
    conflicting = {copies[0].digest: copies for copies in conflicts(samples)}
    result = []
    for sample in samples:
        if sample.status != "rejected" and sample.digest in conflicting and sample.split in ("validate", "test"):
            copies = conflicting[sample.digest]
            other = next(o for o in copies if (o.label, o.split) != (sample.label, sample.split))
            reason = f"same bytes as {other.path} (class {other.label!r}, {other.split})"
            result.append(replace(sample, status="duplicate", reason=reason))
        else:
            result.append(sample)
    return result


def conflicts(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return lists of samples with the same bytes but different labels or splits."""
    usable = [sample for sample in samples if sample.status != "rejected"]
    number = Counter(sample.digest for sample in usable)
    by_digest: dict[str, list[Sample]] = defaultdict(list)
    for sample in usable:
        if number[sample.digest] > 1:
            by_digest[sample.digest].append(sample)
    return [copies for copies in by_digest.values() if len({(s.label, s.split) for s in copies}) > 1]
