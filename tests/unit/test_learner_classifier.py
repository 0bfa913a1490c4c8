"""When suggestions begin, what they learn from, and which pictures are shown next."""

import numpy as np
from small_features import maps

from heads.head import pool
from vggft.labelling import classifier, order
from vggft.labelling.suggestions import Suggestion


def sorted_pictures(*counts):
    """Return pooled features of pictures whose mean tells the class, and their labels: so many of a, b, …"""
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


def suggested(**files):
    return {file: Suggestion(label, p) for file, (label, p) in files.items()}


def test_a_grid_holds_the_surest_of_one_class():
    sure = order.SURE
    some = suggested(a=("x", sure), b=("x", 0.99), c=("y", 0.999), d=("x", sure - 0.01), e=("x", 0.95))
    assert order.surest(some, "x") == ["b", "e", "a"]
    assert order.surest(some, "z") == []
    many = {str(i): Suggestion("x", 0.9 + i / 1000) for i in range(50)}
    assert order.surest(many, "x") == [str(i) for i in range(49, 49 - order.GRID, -1)]


def test_classes_with_few_sure_pictures_have_no_grid():
    def grids(**counts):
        return order.classes(
            {f"{label}{i}": Suggestion(label, 0.99) for label, count in counts.items() for i in range(count)}
        )

    assert grids(x=order.FEWEST, y=order.FEWEST - 1, z=10) == ["z", "x"]
    assert order.classes({str(i): Suggestion("x", 0.5) for i in range(10)}) == []


def test_the_most_doubtful_come_first():
    assert order.doubtful(suggested(a=("x", 0.9), b=("y", 0.4), c=("x", 0.6))) == ["b", "c", "a"]
