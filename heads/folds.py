"""Cross-validation folds, stratified by class; no group is divided between folds."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]  # indices of training images, indices of held-out images


def max_folds(targets: NDArray[np.integer[Any]], groups: Sequence[str], limit: int) -> int:
    """Return the largest number of folds, up to `limit`, for which at least two classes have a group in every fold.

    Returns less than 2 if cross-validation is not possible. A class with fewer groups than that may be held out without being
    in the training images of that fold.
    """
    named = np.asarray(groups)
    numbers = sorted(len(set(named[targets == c].tolist())) for c in np.unique(targets))
    return min(limit, numbers[-2]) if len(numbers) > 1 else 0


def split(targets: NDArray[np.integer[Any]], groups: Sequence[str], folds: int, seed: int) -> list[Fold]:
    """Return the training and held-out indices of each fold; every image is held out exactly once.

    Args:
        targets: (n,), indices of the true classes.
        groups: n group names.
        folds: at least 2, at most the number of groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes that are not in every fold: see `max_folds`
        return list(splitter.split(np.zeros(len(targets)), targets, np.asarray(groups)))
