"""Sharing images out over folds, stratified by class, no group parted."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]  # positions to learn from, positions held out


def most(targets: NDArray[np.integer[Any]], groups: Sequence[str], wanted: int) -> int:
    """Return the number of folds, `wanted` at most, for which at least two classes have a group in every fold.

    Less than 2 where there is no such number. Rarer classes will be held out in some folds without having been learnt.
    """
    named = np.asarray(groups)
    numbers = sorted(len(set(named[targets == c].tolist())) for c in np.unique(targets))
    return min(wanted, numbers[-2]) if len(numbers) > 1 else 0


def share_out(targets: NDArray[np.integer[Any]], groups: Sequence[str], folds: int, seed: int) -> list[Fold]:
    """Return for each fold what is learnt from and what is held out; every image is held out once.

    Args:
        targets: (n,), positions of the true classes.
        groups: n names.
        folds: 2 or more, and not more than there are groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class is in fewer folds than there are: as `most` says
        return list(splitter.split(np.zeros(len(targets)), targets, np.asarray(groups)))
