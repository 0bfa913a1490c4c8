"""Dense heads trained together: the same result as alone, and the best epoch of each kept."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from small_features import features

from heads.metrics import measure
from heads.plan import Plan
from heads.population import train_together
from heads.specs import CLASSIC, DEFAULTS, POOLED_HEADS, DenseSpec

TRAIN, VALIDATION = features(61, 2), features(30, 2, seed=1, split="validate")
THREE, THREE_VALIDATION = features(61, 3), features(30, 3, seed=1, split="validate")
SPEC = DenseSpec("d", "avg", units=16, learning_rate=0.02, dropout=0.5)


def grown(specs, train=TRAIN, stopping=VALIDATION, plan=None, classes=2):
    names = [str(c) for c in range(classes)]
    return {one.spec.name: one for one in train_together(specs, names, train, plan or Plan(6, batch_size=16), stopping)}


def same(a, b, tolerance=0.0):
    return all(
        np.allclose(x.kernel, y.kernel, rtol=tolerance, atol=tolerance)
        and np.allclose(x.bias, y.bias, rtol=tolerance, atol=tolerance)
        for x, y in zip(a.head.layers, b.head.layers, strict=True)
    )


@pytest.mark.slow
def test_xla_changes_rounding_only(monkeypatch):
    from heads import batched

    specs = [SPEC, replace(SPEC, name="linear", units=0, dropout=0.0, l2=0.01)]
    plain = grown(specs)
    monkeypatch.setattr(batched, "_idle", {})
    monkeypatch.setattr(batched, "_MANY", 0)
    compiled = grown(specs)
    assert next(iter(batched._idle.values())).model.jit_compile
    for spec in specs:
        assert same(plain[spec.name], compiled[spec.name], 1e-4)


def test_the_default_population_covers_what_matters():
    assert len(POOLED_HEADS) == 12
    assert len({spec.name for spec in DEFAULTS}) == len(DEFAULTS) == 16
    assert {spec.pooling for spec in DEFAULTS} == {"flatten", "avg", "max", "avgmax"}
    assert {spec.units > 0 for spec in POOLED_HEADS} == {True, False}
    assert len({spec.learning_rate for spec in POOLED_HEADS}) >= 3
    assert {spec.dropout for spec in POOLED_HEADS} == {0, 0.5}
    assert len({spec.l2 for spec in POOLED_HEADS}) >= 3
    assert DenseSpec("flatten-256-classic", "flatten", 256, 1e-4, dropout=0.5, standardise=False) == CLASSIC
    assert CLASSIC in DEFAULTS


# Every two of the settings meet in the first four; all three of them with the slow tests.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "units", "l2"),
    [
        (2, 0, 0),
        (2, 16, 0.03),
        (3, 0, 0.03),
        (3, 16, 0),
        *(
            pytest.param(*values, marks=pytest.mark.slow)
            for values in ((2, 0, 0.03), (2, 16, 0), (3, 0, 0), (3, 16, 0.03))
        ),
    ],
)
def test_the_batched_program_does_what_keras_does(classes, units, l2):
    """The same steps by Keras's own Dense layers, loss, regulariser and Adam, from the same start and in the same order."""
    import keras

    spec = DenseSpec("d", "avg", units, 0.02, l2=l2)
    ours, theirs = (TRAIN, VALIDATION) if classes == 2 else (THREE, THREE_VALIDATION)
    plan = Plan(3, batch_size=16, patience=99)
    found = grown([replace(spec, name="other", learning_rate=0.5), spec], ours, theirs, plan, classes)["d"]

    x = ours.pooled["avg"]
    mean, deviation = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = np.maximum(deviation, 2.5 * np.median(deviation))
    scaled = ((x - mean) / scale).astype(np.float32)
    outputs = 1 if classes == 2 else classes
    widths = [8, *([units] if units else []), outputs]
    layers = [
        keras.layers.Dense(size, "relu" if i < len(widths) - 2 else None, kernel_regularizer=keras.regularizers.L2(l2))
        for i, size in enumerate(widths[1:])
    ]
    model = keras.Sequential([keras.Input((8,)), *layers])
    for layer, inputs, size in zip(layers, widths, widths[1:], strict=False):
        limit = np.sqrt(6 / (inputs + size))
        start = np.random.default_rng([0, inputs, size]).uniform(-limit, limit, (inputs, 1, size))[:, 0]
        layer.set_weights([start, np.zeros(size)])
    loss = keras.losses.BinaryCrossentropy if classes == 2 else keras.losses.SparseCategoricalCrossentropy
    model.compile(keras.optimizers.Adam(0.02), loss(from_logits=True), jit_compile=False)
    losses, kept = [], []
    for epoch in (1, 2, 3):
        order = np.random.default_rng([0, epoch]).permutation(61)
        for first in range(0, 61, 16):
            rows = order[first : first + 16]
            model.train_on_batch(scaled[rows], ours.targets[rows].reshape(-1, 1))
        logits = np.asarray(model(((theirs.pooled["avg"] - mean) / scale).astype(np.float32)), np.float64)
        logits = np.hstack([np.zeros_like(logits), logits]) if classes == 2 else logits
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        losses.append(measure(p, theirs.targets).log_loss)
        kept.append(p)
    assert [epoch.val_log_loss for epoch in found.history] == pytest.approx(losses, rel=1e-4)
    assert found.best == int(np.argmin(losses)) + 1
    assert np.abs(found.head.scores(theirs.pooled["avg"]) - kept[found.best - 1]).max() < 1e-4


def test_dropout_leaves_the_expectation_as_it_is():
    """Inverted dropout (Srivastava et al. 2014), per head: kept units are divided by the keep probability."""
    from featurize.backend import load_keras

    load_keras()
    from heads import batched

    rng = np.random.default_rng(0)
    specs = [DenseSpec(f"d{rate}", "avg", 16, 0.01, dropout=rate) for rate in (0.0, 0.25, 0.75)]
    taken = batched.take([("avg", specs)], {"avg": 8}, outputs=1)
    (block,) = taken.layers
    for variable in block.trainable_variables:
        variable.assign(rng.normal(size=variable.shape).astype(np.float32))
    x, noise = rng.random((5, 8), np.float32), rng.random((5, 16), np.float32)
    ones = np.ones((5, 1), np.float32)
    logits = taken.model({"x_avg": x, "noise_16": noise, "y": ones, "weight": ones, "real": ones})
    kernel1, bias1, kernel2, bias2 = (np.asarray(variable) for variable in block.trainable_variables)
    for h, rate in enumerate((0.0, 0.25, 0.75)):
        hidden = np.maximum(x @ kernel1[:, h] + bias1[h], 0) * (noise >= rate) / (1 - rate)
        assert np.asarray(logits).reshape(5, 3, 1)[:, h] == pytest.approx(hidden @ kernel2[:, h] + bias2[h], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_head_is_the_same_whoever_trains_beside_it(classes):
    ours, theirs = (TRAIN, VALIDATION) if classes == 2 else (THREE, THREE_VALIDATION)
    small = [replace(spec, units=min(spec.units, 8)) for spec in POOLED_HEADS]
    together = grown(small, ours, theirs, classes=classes)
    for spec in small[::3]:
        (alone,) = grown([spec], ours, theirs, classes=classes).values()
        assert same(alone, together[spec.name], 1e-5)
        assert alone.best == together[spec.name].best
        losses = [epoch.loss for epoch in together[spec.name].history]
        assert [epoch.loss for epoch in alone.history] == pytest.approx(losses, rel=1e-4)


def test_same_seed_same_head_to_the_bit():
    seeds = [grown([SPEC], plan=Plan(3, batch_size=16, seed=seed))["d"] for seed in (1, 1, 2)]
    assert same(seeds[0], seeds[1])
    assert not same(seeds[0], seeds[2], 1e-3)


def test_the_best_weights_are_kept_and_not_the_last():
    wild = DenseSpec("wild", "avg", units=16, learning_rate=5.0)  # far too fast: the validation loss jumps about
    found = grown([wild], plan=Plan(8, batch_size=16, patience=99))["wild"]
    losses = [epoch.val_log_loss for epoch in found.history]
    assert len(losses) == 8
    assert losses[-1] > min(losses)
    assert found.best == int(np.argmin(losses)) + 1
    kept = measure(found.head.scores(VALIDATION.pooled["avg"]), VALIDATION.targets)
    assert kept.log_loss == pytest.approx(min(losses), rel=1e-4)


def test_early_stopping_is_each_heads_own():
    fast, slow = DenseSpec("fast", "avg", 16, 1.0), DenseSpec("slow", "avg", 16, 1e-4)
    found = grown([fast, slow], plan=Plan(40, patience=3, batch_size=16))
    assert len(found["fast"].history) == found["fast"].best + 3
    assert len(found["slow"].history) == 40
    assert list(found) == ["fast", "slow"]  # yielded as soon as it has finished


def test_every_image_takes_part_in_every_epoch():
    """With a rate of 0 nothing moves: the training loss of the epoch is then the mean over all training images."""
    still = DenseSpec("still", "avg", units=8, learning_rate=1e-30)
    found = grown([still], stopping=TRAIN, plan=Plan(2, batch_size=16))["still"]
    for epoch in found.history:
        assert epoch.loss == pytest.approx(epoch.val_log_loss, rel=1e-5)
        assert epoch.accuracy == pytest.approx(epoch.val_accuracy)


def test_a_model_that_is_used_again_remembers_nothing(monkeypatch):
    """Neither its weights nor Adam's moments, which are NaN here after the second training."""
    from heads import batched

    plan = Plan(3, batch_size=16)
    spec = replace(SPEC, standardise=False)
    first = grown([spec], plan=plan)["d"]
    monkeypatch.setattr(batched, "_build", None)  # from here on, no model can be built
    broken = replace(TRAIN, pooled={"avg": TRAIN.pooled["avg"] * np.float32(np.nan)})
    assert grown([spec], broken, plan=plan)["d"].diverged
    assert same(grown([spec], plan=plan)["d"], first)


def test_a_head_that_diverges_harms_no_other():
    bad = DenseSpec("bad", "avg", units=16, learning_rate=1e30)
    found = grown([bad, SPEC])
    assert found["bad"].diverged
    assert found["bad"].head is None
    assert found["d"].diverged is None
    assert same(found["d"], grown([SPEC])["d"], 1e-5)


def test_without_validation_each_head_trains_as_long_as_it_is_told():
    other = replace(SPEC, name="other")
    found = grown([SPEC, other], stopping=[2, 5])
    assert (found["d"].best, found["other"].best) == (2, 5)
    assert found["d"].history == []
    assert not same(found["d"], found["other"], 1e-3)
    two = grown([SPEC], plan=Plan(2, batch_size=16, patience=99), stopping=TRAIN)["d"]
    assert two.best == 2
    assert same(two, found["d"], 1e-5)


def test_perturbed_validation_images_change_only_which_epoch_is_kept():
    others = replace(VALIDATION, targets=1 - VALIDATION.targets)
    a, b = (grown([SPEC], stopping=v, plan=Plan(5, patience=9, batch_size=16))["d"] for v in (VALIDATION, others))
    assert [epoch.loss for epoch in a.history] == [epoch.loss for epoch in b.history]
    assert a.best != b.best
    # The weights after epoch k are the same: made to stop there, both runs have them.
    for k in (a.best, b.best):
        c, d = (grown([SPEC], stopping=[k])["d"] for _ in range(2))
        assert same(c, d)
        assert same(c, a if k == a.best else b, 1e-6)


def test_class_weights():
    few = TRAIN.take(np.flatnonzero((TRAIN.targets == 0) | (np.arange(61) < 6)))
    plain, balanced = (grown([SPEC], few, plan=Plan(4, batch_size=16, class_weight=w))["d"] for w in (None, "balanced"))
    rare = VALIDATION.targets == 1
    p, q = (one.head.scores(VALIDATION.pooled["avg"])[rare, 1].mean() for one in (plain, balanced))
    assert q > p


@pytest.mark.slow
def test_a_class_without_images_and_one_class_alone():
    only = THREE.take(np.flatnonzero(THREE.targets != 1))
    found = grown([SPEC, replace(SPEC, name="linear", units=0, dropout=0)], only, THREE_VALIDATION, classes=3)
    assert all(one.head is not None for one in found.values())
    alone = TRAIN.take(np.flatnonzero(TRAIN.targets == 1))
    assert grown([SPEC], alone)["d"].head.scores(VALIDATION.pooled["avg"])[:, 1].mean() > 0.6


def test_nothing_is_warned_about_in_three_classes():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        grown([SPEC], THREE, THREE_VALIDATION, classes=3)
