"""When suggestions begin, and what they learn from."""

import numpy as np
from small_features import maps

from heads.head import pool
from vggft.labelling import classifier


def sorted_pictures(*counts):
    """Return pooled features of pictures whose mean tells the class, and their labels; `counts`: pictures of class a, b, …"""
    values, targets = maps(60, 3)
    chosen = np.concatenate([np.flatnonzero(targets == c)[:count] for c, count in enumerate(counts)])
    return pool(values[chosen], classifier.POOLING), ["abc"[targets[i]] for i in chosen]


def test_two_classes_need_three_pictures_each():
    for counts in ((0,), (20,), (20, 2), (2, 2, 2)):
        assert classifier.train(*sorted_pictures(*counts)) is None, counts
    assert classifier.train(*sorted_pictures(3, 3)).classes == ("a", "b")


def test_a_new_class_is_learned_from_its_first_picture():
    head = classifier.train(*sorted_pictures(10, 10, 1))
    assert head.classes == ("a", "b", "c")
    pooled, labels = sorted_pictures(20, 20, 20)
    right = head.scores(pooled).argmax(axis=1) == ["abc".index(label) for label in labels]
    assert right[:40].mean() > 0.9


def test_probabilities_sum_to_one_and_are_right():
    head = classifier.train(*sorted_pictures(10, 10, 10))
    pooled, labels = sorted_pictures(20, 20, 20)
    p = head.scores(pooled)
    assert np.allclose(p.sum(axis=1), 1)
    assert (p.argmax(axis=1) == ["abc".index(label) for label in labels]).mean() > 0.9
