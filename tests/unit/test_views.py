"""Views: what happens to a picture, and that training sees one of each image in an epoch."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import PICTURES
from small_features import features, no_progress
from small_tuning import source
from test_population import grown

from featurize.backbone.vgg16 import VGG16
from featurize.cache.fingerprint import Fingerprint
from featurize.errors import VggftError
from featurize.pixels import images, views
from finetune import train as training
from finetune.examples import Examples, Rows, joined
from finetune.plan import Plan
from finetune.program import Means
from heads import logistic, population, search
from heads.specs import DenseSpec, LogisticSpec

FILES = sorted(PICTURES.glob("*/*.png"))[:20]
TRAIN, VALIDATION = features(61, 2), features(30, 2, seed=1, split="validate")


def test_a_picture_always_has_the_same_views_and_no_two_are_alike():
    data = [path.read_bytes() for path in FILES]
    drawn = [[views.View.of(one, number) for number in range(1, 9)] for one in data]
    assert drawn == [[views.View.of(one, number) for number in range(1, 9)] for one in data]
    everything = [view for of_one in drawn for view in of_one]
    assert len({view.degrees for view in everything}) == len(everything) == 160
    assert 0.35 < np.mean([view.flip for view in everything]) < 0.65
    assert 0.02 < np.mean([view.grey for view in everything]) < 0.2
    for view in everything:
        left, upper, right, lower = view.part
        assert 0 <= left < right <= 1 + 1e-9
        assert 0 <= upper < lower <= 1 + 1e-9
        assert 0.69 <= (right - left) * (lower - upper) <= 1 + 1e-9
        assert abs(view.degrees) <= 10
        assert all(0.8 <= factor <= 1.2 for factor in (view.brightness, view.contrast, view.colour))


def test_a_view_is_the_picture_changed_a_little():
    likeness = []
    for path in FILES:
        data = path.read_bytes()
        plain = images.decode_resized(data, 64)
        changed = [images.decode_resized(data, 64, perturbation=views.name(number)) for number in (1, 2)]
        for view in changed:
            assert view.shape == plain.shape
            assert view.dtype == np.uint8
            assert not np.array_equal(view, plain)
            found = [np.corrcoef(view.ravel(), other.ravel())[0, 1] for other in (plain, plain[:, ::-1])]
            likeness.append(max(found))
        assert not np.array_equal(*changed)
        again = images.decode_resized(data, 64, perturbation=views.name(1))
        assert np.array_equal(again, changed[0])
    assert min(likeness) > 0.25  # of line drawings
    assert np.mean(likeness) > 0.6


def test_only_the_part_that_is_kept_is_resized():
    view = replace(views.View.of(b"x", 1), part=(0.25, 0.5, 0.75, 1.0))
    assert view.within((10.0, 20.0, 110.0, 220.0)) == (35.0, 120.0, 85.0, 220.0)


@pytest.mark.parametrize("name", ["view-0", "view-33", "view-", "view-01", "view-1x", "grey-1"])
def test_other_names_are_no_views(name):
    assert views.number(name) is None
    with pytest.raises(VggftError, match="expected one of"):
        replace(Fingerprint.of(VGG16), probe=name)


def test_names_are_numbers():
    assert [views.number(views.name(k)) for k in (1, 9, 10, 32)] == [1, 9, 10, 32]
    assert replace(Fingerprint.of(VGG16), probe=views.name(3)).key != Fingerprint.of(VGG16).key


def with_copies(images, number):
    return replace(images, views=(images.pooled,) * number)


@pytest.mark.slow
def test_views_that_are_copies_change_nothing():
    """Each image counts once, whatever its number of views; the order of images and the dropout masks stay."""
    specs = [DenseSpec("line", "avg", units=0, learning_rate=0.01), DenseSpec("net", "max", 8, 0.01, dropout=0.5)]
    plain, copied = grown(specs, TRAIN, VALIDATION), grown(specs, with_copies(TRAIN, 3), VALIDATION)
    for name, one in plain.items():
        for a, b in zip(one.head.layers, copied[name].head.layers, strict=True):
            assert np.allclose(a.kernel, b.kernel, rtol=1e-3, atol=1e-5)
    spec = LogisticSpec("l", "avg")
    a, b = (logistic.train(spec, ["0", "1"], images, 0) for images in (TRAIN, with_copies(TRAIN, 3)))
    assert a.C == b.C
    assert np.allclose(a.head.layers[0].kernel, b.head.layers[0].kernel, rtol=1e-2, atol=1e-4)


def test_an_epoch_has_one_view_of_each_image(monkeypatch):
    marked = [{name: np.full_like(x, number) for name, x in TRAIN.pooled.items()} for number in (1, 2)]
    images = replace(TRAIN, views=tuple(marked))
    seen = []
    rows = population._Source.rows

    def watch(self, features, chosen, views=None):
        found = rows(self, features, chosen, views)
        if views is not None:
            seen.append((chosen, views, features.pooled["avg"][chosen, 0], found[:, 0]))
        return found

    monkeypatch.setattr(population._Source, "rows", watch)
    spec = DenseSpec("line", "avg", units=0, learning_rate=0.01, standardise=False)
    grown([spec], images, VALIDATION)
    steps = -(-61 // 16)
    of_epochs = [np.concatenate([views for _, views, *_ in seen[first : first + steps]]) for first in (0, steps)]
    assert not np.array_equal(*of_epochs)
    for chosen, views_, original, inputs in seen:
        assert set(views_) <= {0, 1, 2}
        assert len(chosen) == 16
        assert np.array_equal(inputs, np.where(views_ == 0, original.astype(np.float32), views_))
    counts = np.bincount(np.concatenate([views for _, views, *_ in seen]), minlength=3)
    assert counts.min() > 0.2 * counts.sum()


@pytest.mark.slow
def test_regression_sees_all_views_and_folds_hold_them_out_together(monkeypatch):
    rng = np.random.default_rng(0)
    noisy = {name: (x + rng.normal(0, 1, x.shape)).astype(x.dtype) for name, x in TRAIN.pooled.items()}
    images = replace(TRAIN, views=(noisy,))
    seen = []
    fit = logistic._fit

    def watch(given, pooling, C, class_weight):
        seen.append([s.path for s in given.samples])
        assert len(given.views[0]["avg"]) == len(given)
        return fit(given, pooling, C, class_weight)

    spec = LogisticSpec("l", "avg")
    with monkeypatch.context() as patch:
        patch.setattr(logistic, "_fit", watch)
        with_views = logistic.train(spec, ["0", "1"], images, 0)
    assert len(seen) == 66
    assert {len(paths) for paths in seen[:-1]} <= {48, 49}
    plain = logistic.train(spec, ["0", "1"], TRAIN, 0, C=with_views.C)
    assert not np.allclose(with_views.head.layers[0].kernel, plain.head.layers[0].kernel, rtol=1e-3)
    setting = search.Setting(["0", "1"], search.Plan(epochs=2, views=1), no_progress)
    (result,) = search.train_all([spec], setting, images, VALIDATION)
    assert result.head.provenance["recipe"]["views"] == 1
    assert search.of_recipe("l", result.head.provenance["recipe"])[1].views == 1
    (folded,) = search.cross_validate([(spec, result)], setting, images, VALIDATION, 3)
    assert folded.folds.n == 91


def test_recipes_without_views_are_those_of_earlier_versions():
    for spec in (LogisticSpec("l", "avg"), DenseSpec("d", "avg", 0, 0.1)):
        assert "views" not in search.recipe(spec, search.Plan())
        assert search.recipe(spec, search.Plan(views=2))["views"] == 2


def test_sources_are_joined_image_by_image():
    plain = np.arange(5)[:, None]
    rows = Rows(joined([source(plain + 100 * k) for k in range(3)]))
    assert rows.bytes == 15 * plain.itemsize
    order = np.array([0, 14, 7, 3, 11])
    assert np.concatenate(list(rows.batches(order, 2))).ravel().tolist() == [0, 204, 102, 3, 201]
    streamed = Rows(joined([source(plain + 100 * k) for k in range(3)]), 2)
    assert np.concatenate(list(streamed.batches(order, 2))).ravel().tolist() == [0, 204, 102, 3, 201]


def test_fine_tuning_takes_one_view_of_each_image_in_an_epoch():
    plain = np.arange(40)[:, None]
    data = Examples(Rows(joined([source(plain + 100 * k) for k in range(3)])), np.arange(40) % 2, views=2)
    seen = []

    class program:
        def step(inputs, targets, epoch, number):
            seen.append((epoch, inputs.ravel(), targets))
            return Means(0.0, 0.0, 0.0)

    for epoch in (1, 2, 1):
        training._train_epoch(program, data, Plan(batch_size=16), epoch, training.Callbacks())
    first, second, again = (np.concatenate([x for _, x, _ in seen[k : k + 3]]) for k in (0, 3, 6))
    assert np.array_equal(first, again)
    for inputs in (first, second):
        assert sorted(inputs % 100) == list(range(40))
        assert set(inputs // 100) == {0, 1, 2}
    assert dict(zip(first % 100, first // 100, strict=True)) != dict(zip(second % 100, second // 100, strict=True))
    assert all(np.array_equal(inputs % 2, targets) for _, inputs, targets in seen)
    without = Examples(Rows(source(plain)), np.arange(40) % 2)
    seen.clear()
    training._train_epoch(program, without, Plan(batch_size=16), 1, training.Callbacks())
    assert np.array_equal(np.concatenate([x for _, x, _ in seen]), first % 100)  # in the same order
