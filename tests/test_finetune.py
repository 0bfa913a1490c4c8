"""Fine-tuning: the gate, what moves and what does not, and a network that plain Keras can use."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import PICTURES

from featurize import engines, images
from featurize.errors import VggftError
from featurize.fingerprint import Fingerprint
from featurize.layers import CONVOLUTIONS
from finetune import network as networks
from finetune.train import Examples, Plan, Sgd, train
from heads.head import Head, Layer

SIZE = 64  # the network takes any size; small pictures make the tests quick


@pytest.fixture(scope="module")
def pictures():
    return np.stack([images.decode_resized(p.read_bytes(), SIZE) for p in sorted(PICTURES.glob("fruit/*.png"))[:12]])


@pytest.fixture(scope="module")
def features(weights, pictures):
    engine = engines.KerasEngine(weights, Fingerprint(size=SIZE), 12)
    return [f.astype(np.float16) for f in engine(pictures, ["block3_pool", "block4_pool", "block5_pool"])]


def head(pooling="avg", classes=2, seed=0, dropout=0.0) -> Head:
    rng = np.random.default_rng(seed)
    inputs = {"flatten": 4 * 512, "avg": 512, "max": 512, "avgmax": 1024}[pooling]
    units = 1 if classes == 2 else classes
    layers = (
        Layer(rng.normal(0, 0.02, (inputs, 6)).astype(np.float32), np.ones(6, np.float32), "relu"),
        Layer(
            rng.normal(0, 0.2, (6, units)).astype(np.float32),
            np.zeros(units, np.float32),
            "sigmoid" if units == 1 else "softmax",
        ),
    )
    return Head("h", "dense", pooling, tuple(str(c) for c in range(classes)), layers, dropout)


@pytest.mark.parametrize("pooling", ["flatten", "avg", "max", "avgmax"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_gate_lets_the_right_head_pass(weights, pictures, features, pooling, classes):
    one = head(pooling, classes, dropout=0.5)
    network = networks.assemble(weights, "caffe", SIZE, one)
    assert networks.check_parity(network, pictures, one.predict(features[2])) < 1e-3


def test_the_gate_refuses(weights, pictures, features):
    one = head()
    expected = one.predict(features[2])
    kernel = one.layers[0].kernel.copy()
    kernel[:, 0] *= 1.5
    wrong_head = Head("w", "dense", "avg", one.classes, (Layer(kernel, one.layers[0].bias, "relu"), one.layers[1]))
    for network in (
        networks.assemble(weights, "caffe", SIZE, wrong_head),
        networks.assemble(weights, "caffe", SIZE, Head("w", "dense", "max", one.classes, one.layers)),
        networks.assemble(weights, "raw", SIZE, one),  # the preprocessing forgotten
    ):
        with pytest.raises(VggftError, match="parity gate"):
            networks.check_parity(network, pictures, expected)
    network = networks.assemble(weights, "caffe", SIZE, one)
    with pytest.raises(VggftError, match="parity gate"):
        networks.check_parity(network, pictures[:, :, :, ::-1], expected)  # BGR for RGB
    with pytest.raises(VggftError, match="parity gate"):
        networks.check_parity(network, pictures[::-1], expected)  # rows of other images
    with pytest.raises(VggftError, match="parity gate"):
        networks.check_parity(network, pictures, np.full_like(expected, np.nan))


@pytest.mark.parametrize(
    ("split_point", "feature", "tuned"),
    [("block4_pool", 1, ["block5_conv1", "block5_conv2", "block5_conv3"]), ("block3_pool", 0, None)],
)
def test_which_weights_move(weights, features, split_point, feature, tuned):
    network = networks.assemble(weights, "caffe", SIZE, head(dropout=0.5))
    before = {layer.name: [w.copy() for w in layer.get_weights()] for layer in network.layers}
    data = Examples(features[feature], np.arange(12) % 2)
    train(network, split_point, (data, data), Plan(2, 5, 0), Sgd(1e-2))
    tuned = tuned or [n for n in CONVOLUTIONS if n.startswith(("block4", "block5"))]
    changed = {
        layer.name
        for layer in network.layers
        if any(not np.array_equal(a, b) for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }
    assert changed == {*tuned, "head_dense1", "scores"}
    assert networks.moved_layers(network, weights, split_point) == tuned
    assert networks.tuned_layers(split_point) == tuned


def test_a_frozen_layer_that_moved_is_noticed(weights):
    network = networks.assemble(weights, "caffe", SIZE, head())
    layer = network.get_layer("block2_conv1")
    kernel, bias = layer.get_weights()
    kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], 1)  # the smallest step there is
    layer.set_weights([kernel, bias])
    with pytest.raises(VggftError, match="block2_conv1"):
        networks.moved_layers(network, weights, "block4_pool")


def test_epoch_zero_may_win_and_is_the_head(weights, features):
    one = head()
    network = networks.assemble(weights, "caffe", SIZE, one)
    right = one.predict(features[2]).argmax(axis=1)
    data = (
        Examples(features[1], 1 - right),
        Examples(features[1], right),
    )  # learning the opposite can only make it worse
    trained = train(network, "block4_pool", data, Plan(2, 6, 0, from_epoch_zero=True), Sgd(1e-2))
    assert trained.best.epoch == 0
    assert trained.start == trained.validation
    assert networks.moved_layers(network, weights, "block4_pool") == []
    assert network.get_layer("scores").get_weights()[0].tolist() == one.layers[1].kernel.tolist()


def test_a_loss_that_is_no_number(weights, features):
    network = networks.assemble(weights, "caffe", SIZE, head())
    data = Examples(features[1], np.arange(12) % 2)
    with pytest.raises(VggftError, match="Try a tenth of it: --lr 1e"):
        train(network, "block4_pool", (data, data), Plan(3, 4, 0), Sgd(1e38))


def test_the_same_run_twice_gives_the_same_weights(weights, features):
    def run():
        network = networks.assemble(weights, "caffe", SIZE, head(dropout=0.5))
        data = Examples(features[1], np.arange(12) % 2)
        train(network, "block4_pool", (data, data), Plan(2, 5, 7), Sgd(1e-3))
        return network.get_layer("block5_conv1").get_weights()[0]

    assert np.array_equal(run(), run())


def test_plain_keras_loads_the_network_and_gives_what_was_reported(trained):
    """In a process that has never heard of vggft, from nothing but pixels."""
    workspace, data, results = trained
    reported = results["finetune"]
    samples = workspace.dataset.accepted("validate")
    pixels = np.stack([images.decode_resized((data / s.path).read_bytes(), 224) for s in samples])
    np.save(workspace.root / "pixels.npy", pixels)
    program = (
        "import sys, keras, numpy as np\n"
        "model = keras.saving.load_model(sys.argv[1], safe_mode=True)\n"
        "assert not {'vggft', 'featurize', 'heads', 'finetune'} & set(sys.modules)\n"
        "print(model.input_shape, model.predict(np.load(sys.argv[2]).astype('float32'), verbose=0)[:, 0].tolist())\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, reported["network"], str(workspace.root / "pixels.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("(None, 224, 224, 3) ")
    scores = np.array(json.loads(done.stdout.split(") ", 1)[1]))
    targets = np.array(workspace.dataset.targets(samples))
    assert np.mean((scores > 0.5) == targets) == reported["validation"]["accuracy"]
    loss = -np.mean(np.log(np.where(targets == 1, scores, 1 - scores)))
    assert loss == pytest.approx(reported["validation"]["log_loss"], abs=1e-3)


def test_what_a_run_keeps(trained):
    workspace, _, results = trained
    reported = results["finetune"]
    folder = workspace.finetune / reported["name"]
    kept = json.loads((folder / "run.json").read_text())
    assert kept["classes"] == ["birds", "fruit"]
    assert kept["split_point"] == reported["split_point"] == "block4_pool"
    assert kept["provenance"]["sgd"] == {"learning_rate": 1e-4, "momentum": 0.9}
    assert reported["start"] == results["head"]["best"]
    assert reported["parity"] <= 2e-3
    assert reported["validation"]["log_loss"] <= reported["start_validation"]["log_loss"]
    lines = (folder / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1", "2"]
