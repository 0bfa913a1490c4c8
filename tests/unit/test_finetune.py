"""Fine-tuning: the parity gate, which layers change, and a network that plain Keras loads."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from small_tuning import examples, head, program, tune
from tiny import TINY, tiny_weights

from featurize.errors import VggftError
from featurize.pixels import images
from finetune import network as networks
from finetune import store
from finetune.plan import Plan
from finetune.train import Callbacks, train
from heads import predictions
from heads.head import Head, Layer, Scaler, folded, pool, probabilities, unfolded


def cached(features):
    """Return the top layer's outputs as the cache has them."""
    return features[TINY.top].astype(np.float16)


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max", "avgmax"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_gate_lets_the_right_head_pass(weights, small_pictures, small_features, pooling, classes):
    one = head(pooling, classes, dropout=0.5)
    network = networks.assemble(weights, "caffe", TINY.size, one)
    assert networks.check_parity(network, small_pictures, one, cached(small_features), TINY.top) < 1e-3


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max", "avgmax"])
@pytest.mark.parametrize(("classes", "scaler"), [(2, True), (3, False)])
def test_a_network_is_taken_apart_into_what_it_was_assembled_from(weights, small_features, pooling, classes, scaler):
    one = head(pooling, classes, dropout=0.5, scaler=scaler)
    network = networks.assemble(weights, "caffe", TINY.size, one)
    backbone, found = networks.disassemble(network, TINY, one.classes, Path("a/network.keras"))
    assert backbone.digest == weights.digest
    assert (found.pooling, found.classes, found.scaler, found.dropout) == (pooling, one.classes, None, 0)
    features = small_features[TINY.top]
    assert np.abs(found.predict(features) - one.predict(features)).max() < 1e-6
    assert np.ptp(found.predict(features)[:, 0]) > 1e-4


@pytest.mark.slow
def test_the_gate_refuses(weights, small_pictures, small_features):
    kernel = 20 * head().layers[0].kernel  # the few features of the tiny network decide what it predicts
    one = Head("h", "dense", "avg", head().classes, (Layer(kernel, head().layers[0].bias, "relu"), head().layers[1]))
    wrong_head = replace(one, layers=(Layer(1.5 * kernel, one.layers[0].bias, "relu"), one.layers[1]))
    last = one.layers[1]
    swapped = replace(
        one, layers=(one.layers[0], Layer(-last.kernel, -last.bias, last.activation))
    )  # order of the classes
    features = cached(small_features)
    for other in (wrong_head, swapped, replace(one, pooling="max")):
        network = networks.assemble(weights, "caffe", TINY.size, other)
        with pytest.raises(VggftError, match="parity gate: on the same features"):
            networks.check_parity(network, small_pictures, one, features, TINY.top)
    network = networks.assemble(weights, "caffe", TINY.size, one)
    raw = networks.assemble(weights, "raw", TINY.size, one)  # the preprocessing forgotten
    others = networks.assemble(tiny_weights(1), "caffe", TINY.size, one)
    for network_, pictures, stored in (
        (raw, small_pictures, features),
        (others, small_pictures, features),
        (network, small_pictures[:, :, :, ::-1], features),  # BGR for RGB
        (network, small_pictures[::-1], features),  # rows of other images
        (network, small_pictures, features * np.float16(1.01)),
        (network, small_pictures, np.full_like(features, np.nan)),
    ):
        with pytest.raises(VggftError, match="parity gate: computed from images, block3_pool differs"):
            networks.check_parity(network_, pictures, one, stored, TINY.top)


def test_the_gate_lets_a_head_pass_that_amplifies_what_engines_differ_by(weights, small_pictures, small_features):
    """As after training on few images: it weighs combinations of features that hardly vary among them."""
    stored = cached(small_features)
    inputs = pool(stored, "max").astype(np.float64)
    steady = np.linalg.svd(inputs - inputs.mean(axis=0))[2][-1:].T  # what is left of 16 features with 12 images
    scaler = Scaler(inputs.mean(axis=0), np.full(16, 1 / 50))
    trained = Layer(steady.astype(np.float32), np.zeros(1, np.float32), "sigmoid")
    one = Head("h", "dense", "max", ("a", "b"), (folded(trained, scaler),), scaler=scaler)
    network = networks.assemble(weights, "caffe", TINY.size, one)
    rng = np.random.default_rng(0)
    engine = (stored * (1 + rng.uniform(-1.5e-3, 1.5e-3, stored.shape))).astype(np.float16)
    assert networks.check_parity(network, small_pictures, one, engine, TINY.top) > 5e-3
    wrong = replace(one, pooling="avg")
    with pytest.raises(VggftError, match="on the same features"):
        networks.check_parity(network, small_pictures, wrong, engine, TINY.top)


def test_a_scaler_is_taken_out_of_the_first_layer_again(weights, small_features):
    rng = np.random.default_rng(1)
    scaler = Scaler(rng.random(16) * 20, rng.random(16) * 10 + 1)
    trained = Layer(rng.normal(0, 0.1, (16, 1)).astype(np.float32), np.ones(1, np.float32), "sigmoid")
    one = Head("h", "dense", "max", ("a", "b"), (folded(trained, scaler),), scaler=scaler)
    again = unfolded(one.layers[0], scaler)
    np.testing.assert_allclose(again.kernel, trained.kernel, rtol=1e-6)
    network = networks.assemble(weights, "caffe", TINY.size, one)
    np.testing.assert_array_equal(network.get_layer("logits").get_weights()[0], again.kernel)
    logits = networks.above(network, TINY, "block2_pool").predict_on_batch(small_features["block2_pool"])
    np.testing.assert_allclose(probabilities(logits), one.predict(small_features["block3_pool"]), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split_point", "first", "precision"),
    [
        ("block2_pool", "block3_conv1", "float32"),
        (None, "block1_conv1", "float32"),
        pytest.param("block3_conv1", "block3_conv2", "float32", marks=pytest.mark.slow),
        pytest.param("block1_pool", "block2_conv1", "float32", marks=pytest.mark.slow),
        pytest.param("block2_pool", "block3_conv1", "mixed_float16", marks=pytest.mark.slow),
    ],
)
def test_which_weights_move(weights, small_pictures, small_features, split_point, first, precision):
    names = [layer.name for layer in TINY.convolutions]
    tuned = names[names.index(first) :]
    network = networks.assemble(weights, "caffe", TINY.size, head(dropout=0.5, scaler=True))
    before = {layer.name: [w.copy() for w in layer.get_weights()] for layer in network.layers}
    data = examples(small_features[split_point] if split_point else small_pictures, np.arange(12) % 2)
    state = tune(network, split_point, (data, data), Plan(2, 5, learning_rate=1e-4, precision=precision), weights)
    changed = {
        layer.name
        for layer in network.layers
        if any(not np.array_equal(a, b) for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert state.kept_epoch(Plan()) > 0
    assert changed == {*tuned, "head_dense1", "logits"}
    assert networks.moved_layers(network, weights, split_point) == tuned
    assert networks.tuned_layers(TINY, split_point) == tuned
    for name in set(names) - set(tuned):
        for now, published in zip(network.get_layer(name).get_weights(), weights.arrays[name], strict=True):
            assert now.tobytes() == published.tobytes()


def test_parameters(weights):
    network = networks.assemble(weights, "caffe", TINY.size, head(scaler=True))
    own = 16 * 6 + 6 + 6 + 1
    for split_point, convolutions in (
        (None, 112 + 296 + 1168 + 2320),
        ("block2_pool", 1168 + 2320),
        ("block3_conv1", 2320),
    ):
        networks.freeze(network, TINY, split_point)
        assert networks.parameters(network) == convolutions + own


def test_a_frozen_layer_that_moved_is_noticed(weights):
    network = networks.assemble(weights, "caffe", TINY.size, head())
    layer = network.get_layer("block2_conv1")
    kernel, bias = layer.get_weights()
    kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], 1)  # the smallest step there is
    layer.set_weights([kernel, bias])
    with pytest.raises(VggftError, match="block2_conv1"):
        networks.moved_layers(network, weights, "block2_pool")


def test_epoch_zero_may_win_and_is_the_head(weights, small_features):
    one = head()
    network = networks.assemble(weights, "caffe", TINY.size, one)
    right = one.predict(small_features["block3_pool"]).argmax(axis=1)
    cached = small_features["block2_pool"]
    data = (examples(cached, 1 - right), examples(cached, right))  # learning the opposite can only make it worse
    state = tune(network, "block2_pool", data, Plan(2, 6, learning_rate=1e-2), weights)
    assert state.kept_epoch(Plan()) == 0
    assert state.start == state.validation
    assert state.ended(Plan(2)) == "epochs"
    assert networks.moved_layers(network, weights, "block2_pool") == []
    assert network.get_layer("logits").get_weights()[0].tolist() == one.layers[1].kernel.tolist()


def test_it_stops_where_nothing_gets_better(weights, small_features):
    one = head()
    right = one.predict(small_features["block3_pool"]).argmax(axis=1)
    cached = small_features["block2_pool"]
    data = (examples(cached, 1 - right), examples(cached, right))
    plan = Plan(9, 6, learning_rate=1e-2, patience=2)
    state = tune(networks.assemble(weights, "caffe", TINY.size, one), "block2_pool", data, plan, weights)
    assert (state.epoch, state.ended(plan)) == (2, "patience")


def test_a_loss_that_is_no_number_keeps_the_best_epoch(weights, small_features):
    network = networks.assemble(weights, "caffe", TINY.size, head())
    before = [w.copy() for w in network.get_weights()]
    data = examples(small_features["block2_pool"], np.arange(12) % 2)
    plan = Plan(3, 4, learning_rate=1e38)
    seen = []
    state = tune(network, "block2_pool", (data, data), plan, weights, callbacks=Callbacks(epoch=seen.append))
    assert state.ended(plan) == "diverged"
    assert state.diverged in ((1, 2), (1, 3))
    assert [now.diverged for now in seen] == [None, state.diverged]  # kept, too: who resumes does not train it again
    assert all(np.array_equal(a, b) for a, b in zip(before, network.get_weights(), strict=True))


@pytest.mark.parametrize("rate", [1e12, 1e18])
def test_weights_that_are_no_numbers_behind_a_finite_loss(weights, small_features, rate):
    """On CPUs TensorFlow's ReLU maps NaN to 0: losses look normal, and the network is dead."""
    network = networks.assemble(weights, "caffe", TINY.size, head("max"))
    data = examples(small_features["block2_pool"], np.arange(12) % 2)
    state = tune(network, "block2_pool", (data, data), Plan(4, 4, learning_rate=rate), weights)
    assert state.diverged
    assert all(np.isfinite(w).all() for w in network.get_weights())


def test_predictions_that_are_no_numbers_after_the_last_step(weights, small_features):
    network = networks.assemble(weights, "caffe", TINY.size, head())
    data = examples(small_features["block2_pool"], np.arange(12) % 2)
    one = program(network, "block2_pool", Plan(3, 5), data.targets, weights)
    answers = iter([one.predict(small_features["block2_pool"])] * 3 + [np.full((5, 2), np.nan)])
    one.predict = lambda inputs: next(answers)[: len(inputs)]
    state = train(one, (data, data), Plan(3, 5))
    assert state.diverged == (1, 3)
    assert [row.epoch for row in state.history] == [0]


def test_a_penalty_that_overflows_after_the_last_step(weights, small_features):
    network = networks.assemble(weights, "caffe", TINY.size, head())
    data = examples(small_features["block2_pool"], np.arange(12) % 2)
    one = program(network, "block2_pool", Plan(3, 12, l2_sp=1.0), data.targets, weights)
    answers = iter([0.7, np.inf])
    one.objective = lambda p, targets: next(answers)
    state = train(one, (data, data), Plan(3, 12, l2_sp=1.0))
    assert state.diverged == (1, 1)
    assert [row.val_loss for row in state.history] == [0.7]


def test_plain_keras_loads_the_network_and_gives_what_was_reported(trained):
    """From pixels, with nothing of vggft's: all its layers are Keras's own."""
    workspace, data, results = trained
    reported = results["finetune"]
    with zipfile.ZipFile(reported["network"]) as file:
        layers = json.loads(file.read("config.json"))["config"]["layers"]
    assert {layer["module"].split(".")[0] for layer in layers} == {"keras"}
    assert all(layer["registered_name"] is None for layer in layers)
    model = keras.saving.load_model(reported["network"], safe_mode=True)
    assert model.input_shape == (None, 32, 32, 3)
    samples = workspace.dataset.accepted("validate")
    pixels = np.stack([images.decode_resized((data / s.path).read_bytes(), TINY.size) for s in samples])
    scores = model.predict_on_batch(pixels.astype(np.float32))[:, 0]
    targets = np.array(workspace.dataset.targets(samples))
    assert np.mean((scores > 0.5) == targets) == reported["validation"]["accuracy"]
    loss = -np.mean(np.log(np.where(targets == 1, scores, 1 - scores)))
    assert loss == pytest.approx(reported["validation"]["log_loss"], abs=1e-3)


@pytest.mark.slow
def test_a_python_without_vggft_loads_the_network(trained):
    program = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "assert not {'vggft', 'featurize', 'heads', 'finetune'} & set(sys.modules)\n"
        "print(model.predict(np.full((1, 32, 32, 3), 99, np.float32), verbose=0).tolist())\n"
    )
    network = trained[2]["finetune"]["network"]
    done = subprocess.run([sys.executable, "-I", "-c", program, network], capture_output=True, text=True, check=True)
    expected = keras.saving.load_model(network)(np.full((1, 32, 32, 3), 99, np.float32))
    assert np.array(json.loads(done.stdout)) == pytest.approx(np.asarray(expected), abs=1e-6)


def test_what_a_run_keeps(trained):
    workspace, _, results = trained
    reported = results["finetune"]
    folder = workspace.finetune / reported["name"]
    kept = json.loads((folder / "run.json").read_text())
    assert kept["classes"] == ["birds", "fruit"]
    settings = kept["settings"]
    assert settings["split_point"] == reported["split_point"] == "block2_pool"
    plan = {
        "optimizer": "sgd",
        "learning_rate": 1e-3,
        "momentum": 0.9,
        "schedule": "cosine",
        "dropout": 0.5,
        "epochs": 2,
        "precision": "float32",
        "seed": 0,
    }
    assert settings["plan"].items() >= plan.items()
    assert settings["provenance"]["manifest"] == workspace.dataset.identity
    assert kept["start_provenance"]["recipe"]["name"] == reported["start"]
    assert kept["images"] == {"train": 26, "validate": 6}
    assert not (folder / "unfinished").exists()
    assert reported["start"].startswith("logistic")
    assert reported["parity"] <= 2e-3
    assert reported["validation"]["log_loss"] <= reported["start_validation"]["log_loss"]
    assert f">{reported['name']}</text>" in (folder / "network.svg").read_text()
    assert f">{kept['parameters']:,} of " in (folder / "network.svg").read_text()
    assert (folder / "network.png").read_bytes().startswith(b"\x89PNG")
    lines = (folder / "history.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,log_loss,accuracy,val_loss,val_log_loss,val_accuracy,temperature,seconds"
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "2"]


def test_a_run_is_not_finished_without_its_predictions(trained, tmp_path, monkeypatch):
    """`run.json` is written last, wherever a kill strikes."""
    workspace, _, results = trained
    (run,) = store.load_all(workspace.finetune)
    judged = predictions.read(workspace.finetune / run.name / predictions.FILE, run.classes)

    class Network:
        def save(self, path):
            path.write_bytes(b"weights")

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    begun, drawn = store.begin(tmp_path, run.settings, head("max")), dict.fromkeys(store.PICTURES, b"picture")
    with monkeypatch.context() as disturbed, pytest.raises(KeyboardInterrupt):
        disturbed.setattr(store.checked, "write_checked", stop)
        begun.finish(run, Network(), drawn, judged)
    assert [one.folder.name for one in store.unfinished(tmp_path)] == [results["finetune"]["name"]]
    begun.finish(run, Network(), drawn, judged)
    assert store.unfinished(tmp_path) == []
    folder = tmp_path / run.name
    assert {path.name for path in folder.iterdir()} == {
        "network.keras",
        *store.PICTURES,
        "predictions.csv",
        "history.csv",
        "run.json",
        "checksums.json",
    }
    kept = (workspace.finetune / run.name / predictions.FILE).read_bytes()
    assert (folder / predictions.FILE).read_bytes() == kept


def test_what_killed_processes_left_in_runs_is_swept_and_nothing_else(tmp_path):
    for folder in ("one", "one/unfinished", "two", "two/unfinished", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / ".checkpoint.bin.1.vggft.tmp").write_text("half")
        (tmp_path / folder / "mine.tmp").write_text("mine")
    (tmp_path / "two" / "run.json").write_text("{}")
    (tmp_path / "runs").mkdir()
    for name in ("one", "two"):
        (tmp_path / name).rename(tmp_path / "runs" / name)
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    store.sweep(tmp_path / "runs")
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == [
        "elsewhere/.checkpoint.bin.1.vggft.tmp",
        "elsewhere/mine.tmp",
        "runs/one/mine.tmp",
        "runs/one/unfinished/mine.tmp",
        "runs/two/mine.tmp",
        "runs/two/run.json",
        "runs/two/unfinished/mine.tmp",
    ]
