"""Who learns and who judges: sharing groups out over splits, once, and setting leaking copies aside."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace

from featurize.data.assigned import Assigned, Memory
from featurize.data.dataset import SPLITS, Sample
from featurize.data.shares import Shares
from featurize.errors import VggftError


def reserve_test(before: Sequence[Assigned], present: Set[str], shares: Shares) -> list[Assigned]:
    """Turn a share of each class from training to test, in hash order; nothing else moves, and a class keeps one group.

    Args:
        before: what was ever assigned.
        present: digests of the images there are now; only these are counted and taken.
        shares: of which `test` is to be reserved.
    """
    here = [entry for entry in before if entry.digest in present]
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in here:
        if entry.split == "train":
            groups[entry.group][entry.label] += 1
    sizes = Counter(entry.label for entry in here)
    targets = {"test": {label: max(1, round(shares.test * size)) for label, size in sizes.items()}}
    left = Counter(label for counts in groups.values() for label in counts)
    have: dict[str, Counter[str]] = {"test": Counter()}
    chosen = set()
    for group in sorted(groups, key=lambda name: _order(name, shares.seed)):
        if _shortest(groups[group], targets, have) == "test" and all(left[label] > 1 for label in groups[group]):
            chosen.add(group)
            have["test"].update(groups[group])
            left.subtract(groups[group].keys())
    return [replace(e, split="test") if e.split == "train" and e.group in chosen else e for e in before]


def assign(
    samples: Sequence[Sample], shares: Shares, given: Iterable[str] = (), before: Sequence[Assigned] = ()
) -> list[Sample]:
    """Give every usable sample a split; no sample seen before is moved.

    Folders decide where they can. Without a validation folder (or a test folder, if a test share is asked for) that
    split is drawn from the rest: in hash order, new groups go where a class is short of its share, first to
    validation, then to test, else to training. A class with two groups or more gets at least one for validation.

    Args:
        samples: with the splits that the folders give; rejected ones are passed through.
        shares: the parts to hold back, of each class.
        given: the splits that have folders of their own.
        before: what was ever assigned, and stands.

    Raises:
        VggftError: folders that newly contradict a split that was drawn; or a class whose usable images
            are all one group, so that it cannot be both learnt and judged.
    """
    given = set(given)
    drawn = [split for split, share in (("validate", shares.validate), ("test", shares.test)) if share > 0]
    drawn = [split for split in drawn if split not in given]
    undecided = [s for s in samples if s.status != "rejected" and (not s.split or (drawn and s.split == "train"))]
    open_ids = {id(s) for s in undecided}
    _check_contradictions([s for s in samples if id(s) not in open_ids], before)
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in undecided:
        groups[sample.group][sample.label] += 1
    _check_groups(groups)

    targets = _targets(groups, {split: getattr(shares, split) for split in drawn})
    held = _held(undecided, before)
    have: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for group, split in held.items():
        have[split].update(groups[group])
    chosen = dict(held)
    for group in sorted(groups.keys() - held.keys(), key=lambda name: _order(name, shares.seed)):
        chosen[group] = _shortest(groups[group], targets, have)
        have[chosen[group]].update(groups[group])
    _at_least_one(groups, chosen, held, [s for s in ("train", "validate") if s not in given or s == "train"])
    return [replace(s, split=chosen[s.group]) if id(s) in open_ids else s for s in samples]


def _check_contradictions(samples: Sequence[Sample], before: Sequence[Assigned]) -> None:
    """Refuse folders that say otherwise of an image than what was drawn for it before there were such folders."""
    remembered = Memory(entry for entry in before if entry.drawn)
    for sample in samples:
        drawn = remembered.splits(sample) if sample.split and sample.status != "rejected" else set()
        if drawn and sample.split not in drawn:
            raise VggftError(
                f"{sample.path} was drawn for {' and '.join(sorted(drawn))} before a folder said {sample.split}, and samples are "
                "never moved. Use a new --workspace for the new folders."
            )


def _held(samples: Sequence[Sample], before: Sequence[Assigned]) -> dict[str, str]:
    """Return the split of every group that was decided before; where two stand, training (it judges nothing)."""
    remembered = Memory(before)
    found: dict[str, set[str]] = defaultdict(set)
    for sample in samples:
        found[sample.group] |= remembered.splits(sample)
    return {group: min(splits, key=SPLITS.index) for group, splits in found.items() if splits}


def _check_groups(groups: Mapping[str, Counter[str]]) -> None:
    sizes = Counter(label for counts in groups.values() for label in counts)
    for label, number in sorted(sizes.items()):
        if number == 1:
            raise VggftError(
                f"class {label!r} has one group of usable images (one file, copies of it, or one --group-by group); "
                "expected two or more, one to learn from and one to validate on. Add other pictures or remove the folder."
            )


def _targets(groups: Mapping[str, Counter[str]], shares: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """How many samples of each class every drawn split should hold."""
    sizes: Counter[str] = sum(groups.values(), Counter())
    return {
        split: {label: max(1, round(share * size)) for label, size in sizes.items()} for split, share in shares.items()
    }


def _order(group: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{group}".encode("utf-8", "surrogateescape")).digest()


def _shortest(counts: Counter[str], targets: Mapping[str, Mapping[str, int]], have: Mapping[str, Counter[str]]) -> str:
    """Return the first held-back split that is short by at least half of this group, else "train"."""
    for split, target in targets.items():
        room = sum(min(number, max(0, target[label] - have[split][label])) for label, number in counts.items())
        if 2 * room >= counts.total():
            return split
    return "train"


def _at_least_one(
    groups: Mapping[str, Counter[str]], chosen: dict[str, str], held: Mapping[str, str], needed: Sequence[str]
) -> None:
    """See that every class is learnt, and judged where validation is drawn; move the smallest new group if need be."""
    for label in sorted({label for counts in groups.values() for label in counts}):
        own = sorted((g for g, counts in groups.items() if label in counts), key=lambda g: (groups[g].total(), g))
        for split in needed:
            if any(chosen[group] == split for group in own):
                continue
            spare = [g for g in own if g not in held and sum(chosen[o] == chosen[g] for o in own) > 1]
            if spare:
                chosen[spare[0]] = split


def set_aside_duplicates(samples: Sequence[Sample]) -> list[Sample]:
    """Give status "duplicate" to copies, in validation and test, of bytes also found under another label or split.

    Copies on the training side stay: the person is told of them, and the images that judge are clean.
    """
    mixed = {own[0].digest: own for own in conflicts(samples)}
    result = []
    for sample in samples:
        if sample.status != "rejected" and sample.digest in mixed and sample.split in ("validate", "test"):
            own = mixed[sample.digest]
            other = next(o for o in own if (o.label, o.split) != (sample.label, sample.split))
            reason = f"same bytes as {other.path} (class {other.label!r}, {other.split})"
            result.append(replace(sample, status="duplicate", reason=reason))
        else:
            result.append(sample)
    return result


def conflicts(samples: Sequence[Sample]) -> list[list[Sample]]:
    """Return, for each content that occurs under two labels or in two splits, the samples that hold it."""
    places: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.status != "rejected":
            places[sample.digest].append(sample)
    return [own for own in places.values() if len({(s.label, s.split) for s in own}) > 1]
