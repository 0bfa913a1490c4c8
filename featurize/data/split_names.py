"""The names that people give to splits: train, Training, training_set, train2017, seg_train, val_images, test1, …"""

import re
from collections.abc import Iterable
from pathlib import Path

from featurize.data.dataset import Split

_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("validate", "validation", "val", "valid", "dev"), "validate"),
    **dict.fromkeys(("test", "testing", "tst", "eval", "evaluation", "holdout"), "test"),
}

# Words beside that of the split which say nothing: train_images, test-set, valdata.
_EMPTY = frozenset(
    "set sets data dataset datasets image images img imgs picture pictures pic pics photo photos sample samples split "
    "folder dir files jpg jpeg png seg final".split()
)
_WORD_END = re.compile(r"(?<=[a-z])(?=[A-Z])|[\W\d_]+")


def parse(name: str) -> tuple[Split, tuple[str, ...]] | None:
    """Return the split that a name tells, and its other words, such as ("pets",) in pets_train; None for any other name.

    Digits and words such as "images" and "set" do not count. The name of a class may have a word of a split, too: test tube.
    """
    split: Split | None = None
    others = []
    for word in filter(None, map(str.lower, _WORD_END.split(name))):
        told = _split_word(word)
        if told and split:
            return None  # train_val: of both
        if told:
            split = told
        elif word not in _EMPTY:
            others.append(word)
    return (split, tuple(others)) if split else None


def _split_word(word: str) -> Split | None:
    """Return the split of train, trainset, testdata, …"""
    starts = (word, *(word.removesuffix(end) for end in _EMPTY if word.endswith(end)))
    return next((_WORDS[start] for start in starts if start in _WORDS), None)


def split_of(name: str) -> Split | None:
    """Return the split that a name tells, whatever its other words are."""
    parsed = parse(name)
    return parsed[0] if parsed else None


def families(folders: Iterable[Path]) -> dict[tuple[str, ...], list[tuple[Split, Path]]]:
    """Return the folders whose names tell a split, with it, by the other words of their names."""
    found: dict[tuple[str, ...], list[tuple[Split, Path]]] = {}
    for folder in folders:
        parsed = parse(folder.name)
        if parsed:
            found.setdefault(parsed[1], []).append((parsed[0], folder))
    return found
