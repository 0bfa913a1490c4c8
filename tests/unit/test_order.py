"""How sure the order of models is: against cases whose answer is known."""

import numpy as np

from vggft.comparison.order import certainty


def probabilities(quality, n=200, seed=0):
    """Return predictions of two classes that are the better, the larger `quality`, and the true classes."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    logit = (2 * targets - 1) * quality + rng.normal(0, 1, n)
    right = 1 / (1 + np.exp(-logit))
    return np.stack([1 - right, right], axis=1), targets


def test_a_much_better_model_is_surely_the_best():
    good, targets = probabilities(2)
    bad, _ = probabilities(0, seed=1)
    found = certainty([good, bad], targets, [str(i) for i in range(200)])
    assert found.first > 0.999
    assert found.alike == ()


def test_two_models_of_the_same_quality_are_alike():
    models = [probabilities(1, seed=seed) for seed in range(3)]
    targets = models[0][1]
    models = sorted((p for p, _ in models), key=lambda p: -np.log(p[np.arange(200), targets]).mean())
    found = certainty(models, targets, [str(i) for i in range(200)])
    assert found.alike == (1, 2)
    assert 0.3 < found.first < 0.99


def test_images_of_one_group_count_as_one():
    good, targets = probabilities(1.2, 40)
    worse, _ = probabilities(0.6, 40, seed=1)
    alone = certainty([good, worse], targets, [str(i) for i in range(40)])
    grouped = certainty([good, worse], targets, [str(i // 10) for i in range(40)])
    assert alone.first > grouped.first
    assert grouped.alike == (1,)
