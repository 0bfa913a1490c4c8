"""The names that people give to splits: train, Training, training_set, train2017, seg_train, val_images, test1, …"""

import re
from collections.abc import Iterable
from pathlib import Path

from featurize.data.dataset import Split

_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validate", "validation", "val", "valid", "dev"), "validate"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout", "heldout"), "test"),
}

# Words that say nothing beside that of a split: train_images, test-set, valdata.
FILLERS = frozenset(
    "set sets data dataset datasets image images img imgs picture pictures pic pics photo photos sample samples split "
    "folder dir files jpg jpeg png seg final".split()
)
_WORD_END = re.compile(r"(?<=[a-z])(?=[A-Z])|[\W\d_]+")

Family = list[tuple[Split, Path]]


def words(name: str) -> list[str]:
    """Return the words of a name in lower case, without digits and punctuation: trainImages_2 → train, images."""
    return [word.lower() for word in _WORD_END.split(name) if word]


def parse(name: str) -> tuple[Split, tuple[str, ...]] | None:
    """Return the split that a name tells, and its other words, such as ("pets",) in pets_train; None for any other name.

    The name of a class may have a word of a split, too: test tube.
    """
    split: Split | None = None
    others = []
    for word in words(name):
        found = _split_word(word)
        if found and split:
            return None  # train_val: of both
        if found:
            split = found
        elif word not in FILLERS:
            others.append(word)
    return (split, tuple(others)) if split else None


def _split_word(word: str) -> Split | None:
    """Return the split of train, trainset, testdata, …"""
    starts = (word, *(word.removesuffix(end) for end in FILLERS if word.endswith(end)))
    return next((_WORDS[start] for start in starts if start in _WORDS), None)


def split_of(name: str) -> Split | None:
    """Return the split that a name tells, whatever its other words are."""
    parsed = parse(name)
    return parsed[0] if parsed else None


def families(folders: Iterable[Path]) -> dict[tuple[str, ...], Family]:
    """Return the folders whose names tell a split, with it, by the other words of their names."""
    found: dict[tuple[str, ...], Family] = {}
    for folder in folders:
        parsed = parse(folder.name)
        if parsed:
            found.setdefault(parsed[1], []).append((parsed[0], folder))
    return found


def is_complete(family: Family) -> bool:
    """Return whether folders whose names have the same other words are of more than one split."""
    return len({split for split, _ in family}) > 1
