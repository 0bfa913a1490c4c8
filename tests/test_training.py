"""Epochs of fine-tuning, on a small model: nothing left out, the best epoch kept, honest numbers."""

import numpy as np
import pytest
from small_features import features

from finetune.train import Examples, Plan, compile_for, fit
from heads.metrics import judge


def examples(n, seed=0):
    data = features(n, 2, seed)
    return Examples(data.pooled["avg"], data.targets)


def test_every_image_takes_part_in_every_epoch_and_the_best_weights_stay():
    import keras

    seen = []

    class Spy(keras.Sequential):
        def train_on_batch(self, x, y, **options):
            seen.append(x[:, 0])
            return super().train_on_batch(x, y, **options)

    keras.utils.set_random_seed(0)
    model = Spy([keras.Input((8,)), keras.layers.Dense(1, activation="sigmoid")])
    compile_for(model, keras.optimizers.SGD(5.0))  # far too fast: the validation loss jumps about
    ours, theirs = examples(37), examples(21, seed=2)
    reported = []
    fit(model, ours, theirs, Plan(6, 8, 0, from_epoch_zero=True), reported.append)
    assert [len(batch) for batch in seen[:5]] == [8, 8, 8, 8, 5]
    for epoch in range(6):
        assert sorted(np.concatenate(seen[5 * epoch : 5 * epoch + 5])) == sorted(ours.inputs[:, 0])
    assert not np.array_equal(np.concatenate(seen[:5]), np.concatenate(seen[5:10]))
    assert [e.epoch for e in reported] == list(range(7))
    assert reported[0].loss is None
    p = np.asarray(model.predict_on_batch(theirs.inputs))
    kept = judge(np.hstack([1 - p, p]), theirs.targets)
    assert kept.log_loss == pytest.approx(min(e.val_log_loss for e in reported), rel=1e-6)


def test_the_reported_training_loss_is_the_mean_over_the_epoch():
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, activation="sigmoid")])
    compile_for(model, keras.optimizers.SGD(0.0))  # nothing moves, so the mean can be computed afterwards
    data = examples(37)
    ours = Examples(data.inputs / 50, data.targets)
    trained = fit(model, ours, ours, Plan(1, 8, 0))
    assert trained.history[0].loss == pytest.approx(trained.history[0].val_log_loss, rel=1e-4)
    assert trained.history[0].accuracy == pytest.approx(trained.history[0].val_accuracy)
