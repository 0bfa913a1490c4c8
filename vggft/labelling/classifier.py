"""The classifier behind suggestions: logistic regression on the pooled features of the pictures that are sorted so far.

Measured on photographs and drawings with `benchmarks/sorting_keys.py`; the tables are in docs/sorting.md.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heads import logistic
from heads.features import Features
from heads.head import Head
from heads.specs import LogisticSpec, Pooling

# Averages and maxima together have a lower log-loss than either alone.
POOLING: Pooling = "avgmax"

# Inverse regularisation strength. It is not searched: with a few labels of a class, some folds lack it. With 0.1, sure
# suggestions (`vggft.labelling.queue.SURE`) are right at least as often as their probability says, so probabilities are not
# tempered.
C = 0.1

# Labels that two classes need before there are suggestions: one picture says nothing of how its class varies.
FEW = 3


def train(pooled: NDArray[np.float32], labels: Sequence[str]) -> Head | None:
    """Train on sorted pictures; None as long as fewer than two classes have `FEW` of them.

    Args:
        pooled: features (n, inputs), pooled with `POOLING`.
        labels: their n classes.
    """
    counts = Counter(labels)
    if sum(count >= FEW for count in counts.values()) < 2:
        return None
    classes = sorted(counts)
    position = {name: i for i, name in enumerate(classes)}
    images = Features({POOLING: pooled}, np.array([position[label] for label in labels], np.int64), ())
    return logistic.train(LogisticSpec("sorting", POOLING), classes, images, seed=0, C=C).head
