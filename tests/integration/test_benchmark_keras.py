"""The contenders of the benchmarks that use Keras: what they train, and that what they judge are their models' probabilities.

They run in this process, on pictures of 32 pixels, to take less time.
"""

import time

import numpy as np
import pytest
from PIL import Image

from benchmarks.contenders import keras_guide, keras_network, keras_npy, original, original_corrected
from benchmarks.contenders.entry import TRAIN, UNSEEN, VALIDATE, Entry, Task, listed
from benchmarks.weight_files import write_weights
from heads import specs
from heads.metrics import measure

# XLA takes longer to compile VGG16 than the few steps of these tests take; in one of them it does.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("untraced")]
SIDE = 32  # the smallest that Keras's VGG16 takes


class Recorded(Entry):
    """An entry that keeps its events in a list, and leaves the descriptors of pytest alone."""

    def __init__(self, task):
        self.task, self.events = task, []
        self._paused = self._judged = 0

    def say(self, event, **values):
        self.events.append({"event": event, **values})

    def count(self, event):
        return sum(each["event"] == event for each in self.events)

    def judged(self):
        """Return (name, split → probabilities) of each model."""
        found = []
        for event in self.events:
            if event["event"] == "judged":
                with np.load(event["file"]) as stored:
                    found.append((event["name"], {split: stored[split] for split in (VALIDATE, UNSEEN)}))
        return found


@pytest.fixture(scope="module")
def place(published, tmp_path_factory):
    """Weights, and drawn pictures of two and of three classes: 4 of each to train with, 2 to validate, 1 unseen."""
    place, rng = tmp_path_factory.mktemp("keras"), np.random.default_rng(0)
    for labels in ("ab", "abc"):
        for number, label in enumerate(labels):
            for folder, images in ((f"data/{TRAIN}", 4), (f"data/{VALIDATE}", 2), (UNSEEN, 1)):
                (place / labels / folder / label).mkdir(parents=True)
                for i in range(images):
                    pixels = rng.integers(0, 256, (SIDE, SIDE, 3)) // 2
                    pixels[:, :, number] += 100
                    Image.fromarray(pixels.astype(np.uint8)).save(place / labels / folder / label / f"{i}.png")
    write_weights(place / "weights")
    return place


three_classes = pytest.mark.parametrize("entry", ["abc"], indirect=True)


@pytest.fixture
def entry(request, place, tmp_path, monkeypatch):
    """Return a function from a task's fields to an entry, of two classes by default."""
    monkeypatch.setattr(keras_network, "SHAPE", (SIDE, SIDE, 3))
    root = place / getattr(request, "param", "ab")

    def make(**fields):
        return Recorded(
            Task("", root / "data", root / UNSEEN, place / "weights", tmp_path, **fields, began=time.time())
        )

    return make


def folders(entry):
    return dict(zip((VALIDATE, UNSEEN), (entry.task.data / VALIDATE, entry.task.unseen), strict=True))


def pixels(folder):
    return np.stack([np.asarray(Image.open(path)) for path in listed(folder)[0]]).astype(np.float32)


def agree(entry, recomputed):
    """Compare what was judged last with outputs of a model, one sigmoid unit or a column for each class."""
    _, judged = entry.judged()[-1]
    for split, folder in folders(entry).items():
        outputs = recomputed(folder)
        expected = np.hstack([1 - outputs, outputs]) if outputs.shape[1] == 1 else outputs
        np.testing.assert_allclose(judged[split], expected, atol=1e-5)
        np.testing.assert_allclose(judged[split].sum(axis=1), 1, rtol=1e-12)


def kept(module, monkeypatch):
    """Return a list that gets what a contender's `built` returns."""
    models, build = [], module.built
    monkeypatch.setattr(module, "built", lambda *arguments: models.append(build(*arguments)) or models[-1])
    return models


@three_classes
def test_the_original_sees_half_of_the_images_and_moves_two_convolutions(entry, monkeypatch):
    monkeypatch.setattr(original, "BATCH", 1)
    monkeypatch.setattr(original, "EPOCHS", 2)
    models, contender = kept(original, monkeypatch), entry()
    original.race(contender)
    (model,) = models
    assert int(model.optimizer.iterations) == 2 * (len(listed(contender.task.data / TRAIN)[0]) // 2)
    assert contender.count("epoch") == 2
    assert [name for name, _ in contender.judged()] == ["epoch 1", "epoch 2"]
    agree(contender, lambda folder: model.predict(pixels(folder), verbose=0))
    tuned, published = model.get_layer("vgg16"), keras_network.vgg16(contender.task)
    changed = {
        layer.name
        for layer, other in zip(tuned.layers, published.layers, strict=True)
        if layer.weights and np.any(layer.get_weights()[0] != other.get_weights()[0])
    }
    assert changed == {"block5_conv2", "block5_conv3"}


def test_the_corrected_original_keeps_its_best_epoch(entry, monkeypatch):
    import keras

    # Of the head: with more, probabilities are 0 or 1, and look alike whatever is wrong.
    monkeypatch.setattr(original_corrected, "HEAD_EPOCHS", 1)
    contender = entry(epochs=2)
    original_corrected.experiment(contender)
    assert contender.count("epoch") == 2
    assert contender.count("head epoch") == 1
    base = keras.applications.VGG16(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    head = keras_network.classic_head(len(listed(contender.task.unseen)[0]))
    model = keras_network.on_top(base, head)
    model.load_weights(contender.task.work / "best.weights.h5")

    def recomputed(folder):
        x = base.predict(keras.applications.vgg16.preprocess_input(pixels(folder)), verbose=0)
        for layer in head:
            x = np.asarray(layer(x))
        return x

    agree(contender, recomputed)


def test_epochs_of_fine_tuning(entry, traced):
    for module in (original_corrected, keras_guide):
        contender = entry(epochs=2)
        module.epoch(contender)
        assert [event["event"] for event in contender.events] == ["epoch"] * 2
        assert all(event["seconds"] > 0 for event in contender.events)


@three_classes
def test_the_race_of_the_guide(entry, monkeypatch):
    monkeypatch.setattr(keras_guide, "HEAD_EPOCHS", 1)
    monkeypatch.setattr(keras_guide, "EPOCHS", 2)
    models, contender = kept(keras_guide, monkeypatch), entry()
    keras_guide.race(contender)
    assert [name for name, _ in contender.judged()] == ["epoch 1", "epoch 2", "epoch 3"]
    base, model = models[0]
    first = keras_network.vgg16(contender.task).get_layer("block1_conv1").get_weights()[0]
    assert np.any(base.get_layer("block1_conv1").get_weights()[0] != first)

    def recomputed(folder):
        logits = model.predict(pixels(folder), verbose=0).astype(np.float64)
        scores = np.exp(logits)
        return scores / (1 + scores) if scores.shape[1] == 1 else scores / scores.sum(axis=1, keepdims=True)

    agree(contender, recomputed)


def test_the_race_of_the_corrected_original(entry, monkeypatch):
    monkeypatch.setattr(original_corrected, "HEAD_EPOCHS", 2)
    monkeypatch.setattr(original_corrected, "EPOCHS", 2)
    contender = entry()
    original_corrected.race(contender)
    assert [name for name, _ in contender.judged()] == ["head", "epoch 1", "epoch 2"]


def test_classic_heads(entry):
    for module in (original, keras_npy):
        contender = entry(epochs=3)
        module.classic(contender)
        assert contender.count("epoch") == 3


def test_the_race_on_stored_features(entry):
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.preprocessing import StandardScaler

    contender = entry()
    keras_npy.race(contender)
    assert [name for name, _ in contender.judged()] == ["logistic regression, avg", "logistic regression, flatten"]
    keras_npy.features(contender)
    (train, targets), (validate, _) = (keras_npy.stored(contender, split) for split in (TRAIN, VALIDATE))
    scaler = StandardScaler().fit(train.reshape(len(train), -1))
    model = LogisticRegressionCV(
        cv=4, scoring="neg_log_loss", l1_ratios=(0,), max_iter=1000, use_legacy_attributes=False
    )
    model.fit(scaler.transform(train.reshape(len(train), -1)), targets)
    expected = model.predict_proba(scaler.transform(validate.reshape(len(validate), -1)))
    np.testing.assert_allclose(contender.judged()[-1][1]["validate"], expected, atol=1e-4)


@three_classes
def test_the_population_on_stored_features(entry, monkeypatch):
    monkeypatch.setattr(keras_npy, "EPOCHS", 2)
    monkeypatch.setattr(keras_npy, "DENSE", keras_npy.DENSE[-2:])
    models, train = [], keras_npy.dense
    monkeypatch.setattr(keras_npy, "dense", lambda *arguments: models.append(train(*arguments)) or models[-1])
    contender = entry()
    keras_npy.population(contender)
    assert {"event": "population", "heads": 5} in contender.events
    validate, targets = keras_npy.stored(contender, VALIDATE)
    losses = []
    for spec, scores in zip(keras_npy.DENSE, models, strict=True):
        losses.append(measure(scores(keras_npy.pooled(validate, spec.pooling)), targets).log_loss)
    assert measure(contender.judged()[0][1]["validate"], targets).log_loss <= min(losses) + 1e-6


@pytest.mark.parametrize("module", [original, original_corrected, keras_guide, keras_npy])
def test_a_race_whose_time_is_up_ends_without_a_model(module, entry):
    contender = entry(seconds=-1)
    module.race(contender)
    assert not contender.judged()


def test_a_solver_is_interrupted(entry):
    contender = entry(seconds=1e-3)
    with pytest.raises(keras_network.TimeIsUpError), keras_npy.interrupted(contender):
        while True:
            pass


def test_the_default_heads_are_those_of_vggft():
    assert tuple(spec.pooling for spec in specs.BASELINES) == keras_npy.LOGISTIC
    written = [
        keras_npy.Dense(s.pooling, s.units, s.learning_rate, s.dropout, s.l2, s.standardise) for s in specs.POOLED_HEADS
    ]
    classic = specs.CLASSIC
    written.append(
        keras_npy.Dense(
            "flatten", classic.units, classic.learning_rate, classic.dropout, classic.l2, classic.standardise
        )
    )
    assert list(keras_npy.DENSE) == written
