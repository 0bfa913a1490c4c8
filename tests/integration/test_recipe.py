"""`vggft finetune --recipe original`: the layers that Keras's `layers[:16]` froze, the settings, and what contradicts them."""

import json
import shlex
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import blank_figures, drawings, eager, refused, snapshot, vggft
from PIL import Image
from tiny import random_weights, write_keras_file

from featurize.backbone.architecture import Architecture, KerasFile, chain
from featurize.backbone.vgg16 import VGG16
from featurize.disk import forms
from finetune import store
from finetune.plan import Plan
from finetune.recipes import RECIPES
from finetune.train import best
from vggft.comparison.plots import curves
from vggft.prediction import models
from vggft.steps import compare, featurize, finetune, fold_trainers, head, new_run, starts
from vggft.steps.options import CompareOptions, FeaturizeOptions, FinetuneOptions, HeadOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

# Five blocks, named as those of VGG16, with a few filters.
FIVE = Architecture(
    name="FIVE",
    layers=chain(((2, 4), (2, 4), (3, 8), (3, 8), (3, 16))),
    size=32,
    means=(110.0, 120.0, 130.0),
    cached=("block4_pool", "block5_pool"),
    unfreeze="block5",
    digest="",
    keras_file=KerasFile("tests:/five.h5", ""),
)
CLASSES = ("bugs", "flowers", "fruit")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """18 drawings in three classes, and workspaces on their raw and their preprocessed pixels."""
    folder, ui = tmp_path_factory.mktemp("recipe"), Ui(quiet=True)
    data = drawings(folder / "data", 6, *CLASSES)
    weights = write_keras_file(folder / "five.h5", random_weights(FIVE))
    for preprocess in ("raw", "caffe"):
        options = FeaturizeOptions(data, preprocess=preprocess, weights=weights, test=0.2, validation=0.25, seed=3)
        featurize.run(Workspace(folder / preprocess, FIVE), options, ui)
    return folder


@pytest.fixture(scope="module")
def tuned(base):
    """What the command says of a run of two epochs, and its folder."""
    workspace = Workspace(base / "raw", FIVE)
    found = finetune.run(workspace, FinetuneOptions.of(recipe="original", epochs=2), Ui(quiet=True))
    return found, workspace.finetune / found["name"]


@pytest.fixture
def raw(base, tmp_path):
    shutil.copytree(base / "raw", tmp_path / "raw")
    return Workspace(tmp_path / "raw", FIVE)


def frozen_and_trained(size):
    """Return the convolutions that the script froze, and those that it trained, as Keras itself lists them."""
    import keras

    layers = keras.applications.VGG16(include_top=False, weights=None, input_shape=(size, size, 3)).layers
    return tuple([layer.name for layer in part if layer.weights] for part in (layers[:16], layers[16:]))


def trained_layers(network):
    return [layer.name for layer in network.layers if layer.weights and layer.trainable]


def changed_layers(network, pretrained):
    return [
        name
        for name, arrays in pretrained.items()
        if any(not np.array_equal(a, b) for a, b in zip(network.get_layer(name).get_weights(), arrays, strict=True))
    ]


def test_frozen_and_trained_layers_are_those_of_keras(tuned):
    import keras

    found, folder = tuned
    frozen, trained = frozen_and_trained(32)
    network = keras.saving.load_model(folder / "network.keras")
    assert trained == ["block5_conv2", "block5_conv3"]
    assert trained_layers(network) == [*trained, "head_dense1", "logits"]
    assert changed_layers(network, random_weights(FIVE).arrays) == trained
    assert [name for name in random_weights(FIVE).arrays if name not in trained] == frozen
    assert found["moved"] == trained
    assert found["split_point"] == "block5_conv1"


def test_head_of_three_classes(tuned):
    import keras

    network = keras.saving.load_model(tuned[1] / "network.keras")
    names = [layer.name for layer in network.layers]
    assert names[names.index("block5_pool") + 1 :] == [
        "pool_flatten",
        "head_dense1",
        "head_dropout",
        "logits",
        "scores",
    ]
    assert "preprocess" not in names  # raw pixels
    assert network.get_layer("head_dense1").get_config()["activation"] == "relu"
    assert network.get_layer("head_dense1").kernel.shape == (16, 256)
    assert network.get_layer("head_dropout").rate == 0.5
    assert network.get_layer("logits").kernel.shape == (256, 3)
    assert network.get_layer("scores").get_config()["activation"] == "softmax"


def test_values_and_record(tuned):
    found, folder = tuned
    assert found["name"] == "original-epochs2"
    settings = json.loads((folder / "run.json").read_text())["settings"]
    expected = Plan(2, 64, learning_rate=1e-4, momentum=0.9, schedule="constant", patience=20, keep="last")
    assert settings["plan"] == {**vars(expected), "optimizer": "sgd", "dropout": 0.5, "precision": "float32"}
    assert (settings["recipe"], settings["unfreeze"], settings["start"]) == ("original", "block5_conv2", "scratch")
    plan = FinetuneOptions.of(recipe="original").plan
    assert (plan.epochs, plan.l2_sp, plan.class_weight, plan.clip, plan.label_smoothing) == (20, 0, None, None, 0)


@pytest.mark.slow
def test_the_last_epoch_is_kept_as_it_is(raw, ui):
    """Also where validation gets worse: no temperature, no best epoch."""
    found = finetune.run(raw, FinetuneOptions.of(recipe="original", epochs=3, lr=0.5, clip=1), ui)
    (run,) = (run for run in store.load_all(raw.finetune) if run.name == found["name"])
    assert run.name == "original-lr0.5-clip1-epochs3"
    assert best(run.history).epoch < 3
    assert (run.best_epoch, run.ended, found["best_epoch"]) == (3, "epochs", 3)
    last = run.history[-1]
    assert last.temperature == 1
    assert run.validation.log_loss == last.val_log_loss == pytest.approx(last.val_loss)
    model = models.load(raw).named(run.name)
    assert model.kept_epoch == last
    assert model.validation_predictions().probabilities.shape == (run.validation.n, 3)


def test_the_initial_head_is_keras_default(raw):
    """Glorot uniform and zeros, on features that are not scaled; another head with another seed."""
    heads = [starts.scratch(raw, raw.cache(), seed, RECIPES["original"].head) for seed in (0, 1)]
    for layer, inputs in zip(heads[0].layers, (16, 256), strict=True):
        limit = np.sqrt(6 / sum(layer.kernel.shape))
        assert len(layer.kernel) == inputs
        assert 0.9 * limit < np.abs(layer.kernel).max() <= limit
        assert layer.kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)
        assert not layer.bias.any()
    assert heads[0].scaler is None
    assert heads[0].digest != heads[1].digest


def test_learning_curves_are_two_pictures(tuned):
    found, folder = tuned
    (run,) = (run for run in store.load_all(folder.parent) if run.name == found["name"])
    for plot, quantity in zip(curves.draw_run(run), ("loss", "accuracy"), strict=True):
        assert plot.name == quantity
        svg = (folder / f"{quantity}.svg").read_text()
        assert svg == plot.svg
        for text in ("validation", "training, with dropout", "epoch 2, kept", found["name"]):
            assert f">{text}</text>" in svg
        with Image.open(folder / f"{quantity}.png") as picture:
            assert picture.size == (660, 440)
        assert f"{getattr(run.history[2], f'val_{quantity}'):.4f} in epoch 2" in plot.alt
    assert {name for name in store.PICTURES if not (folder / name).exists()} == set()


def test_runs_of_before_without_curves_and_recipe(raw, tuned):
    """They load, and a person's own loss.png among them is not deleted."""
    folder = raw.finetune / tuned[0]["name"]
    record = json.loads((folder / "run.json").read_text())
    del record["settings"]["recipe"], record["settings"]["plan"]["keep"]
    (folder / "checksums.json").unlink()
    (folder / "run.json").write_text(json.dumps(record))
    (run,) = store.load_all(raw.finetune)
    assert (run.settings.recipe, run.settings.plan.keep) == (None, "best")
    done = vggft("runs", "--remove", folder.name, "--yes", "-w", raw.root, network=FIVE)
    assert "loss.png" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == sorted(store.PICTURES)


def test_a_workspace_on_preprocessed_pixels_names_the_commands(base):
    said = refused("finetune", "--recipe", "original", "-w", base / "caffe", network=FIVE)
    other = f"{base / 'caffe'}-original"
    assert f"--recipe original: the features in {base / 'caffe'} are those of caffe pixels, expected raw." in said
    options = f"--preprocess raw --validation 0.25 --test 0.2 --seed 3 --weights {base / 'five.h5'} -w {other}"
    begin = f"mkdir {other} && cp {base / 'caffe' / 'splits.csv'} {other}/"
    assert (
        f"{begin} && vggft featurize {base / 'data'} {options} && vggft finetune --recipe original -w {other}" in said
    )


def test_the_named_commands_keep_table_layout_groups_and_splits(base, tmp_path, ui):
    files = sorted(path.relative_to(base / "data").as_posix() for path in (base / "data").rglob("*.png"))
    forms.write_csv(tmp_path / "labels.csv", ("file", "label"), [(file, file.split("/")[0]) for file in files[:12]])
    work, other = Workspace(tmp_path / "work", FIVE), Workspace(tmp_path / "work-original", FIVE)
    options = FeaturizeOptions(
        base / "data", labels=tmp_path / "labels.csv", group_by=r"(\w+)\.png", weights=base / "five.h5", validation=0.3
    )
    featurize.run(work, options, ui)
    forms.write_csv(tmp_path / "labels.csv", ("file", "label"), [(file, file.split("/")[0]) for file in files])
    featurize.run(work, options, ui)  # images that came later were drawn beside the others
    said = refused("finetune", "--recipe", "original", "-w", work.root, network=FIVE)
    *_, copying, featurizing, _ = said.strip().split(": ")[-1].split(" && ")
    assert copying == f"cp {work.splits} {other.root}/"
    other.root.mkdir()
    shutil.copy(work.splits, other.root)
    done = vggft(*shlex.split(featurizing)[1:], network=FIVE)
    assert done.returncode == 0, done.stderr
    assert {s.path: (s.split, s.group) for s in other.dataset.samples} == {
        s.path: (s.split, s.group) for s in work.dataset.samples
    }


def test_contradictions_change_nothing(raw):
    before = snapshot(raw.root)
    cases = {
        ("--recipe", "keras"): "--recipe 'keras': expected original.",
        (
            "--recipe",
            "original",
            "--from",
            "best",
        ): "--recipe original with --from best: the recipe starts from a head with",
        (
            "--recipe",
            "original",
            "--unfreeze",
            "block5",
        ): "with --unfreeze block5: the recipe tunes block5_conv2 and all",
        ("--recipe", "original", "--patience", "3"): "with --patience: the recipe trains all epochs and keeps the last",
        ("--recipe", "original", "--resume"): "--resume with --recipe: a resumed run keeps its settings",
        ("--recipe", "original", "--sweep", "from=best,scratch"): "--recipe original with --from best",
    }
    for arguments, message in cases.items():
        assert message in refused("finetune", *arguments, "-w", raw.root, network=FIVE), arguments
        assert snapshot(raw.root) == before
    same = FinetuneOptions.of(recipe="original", start="scratch", unfreeze="block5_conv2")
    new_run.check(raw, same)
    assert same == FinetuneOptions.of(recipe="original", unfreeze="block5_conv2")


@pytest.mark.slow
def test_sweep_comparison_and_folds(raw, ui):
    """A sweep varies what the recipe leaves open; heads and recipes of one workspace are compared; a fold repeats the head."""
    head.run(raw, HeadOptions.of(head=["logistic-avg"]), ui)
    with blank_figures(), eager():
        swept = finetune.run(raw, FinetuneOptions.of(recipe="original", epochs=1, sweep="lr=1e-4,1e-3"), ui)
    names = {"original-epochs1", "original-lr0.001-epochs1"}
    assert {run["name"] for run in swept["sweep"]} == names
    with blank_figures():
        compared = compare.run(raw, CompareOptions(quick=True), ui)
    assert names < {method["name"] for method in compared["methods"]}
    (run,) = (run for run in store.load_all(raw.finetune) if run.name == "original-epochs1")
    shutil.rmtree(raw.finetune / run.name)
    with blank_figures(), eager():
        fold_trainers.StepTrainers().tune(raw, run, ui)
    (again,) = (again for again in store.load_all(raw.finetune) if again.name == run.name)
    assert again.settings.recipe == "original"
    assert again.start_digest == run.start_digest
    assert again.validation == run.validation


@pytest.mark.slow
def test_the_real_network_with_two_classes(tmp_path, published):
    import keras

    drawings(tmp_path / "data", 5, "birds", "fruit")
    work, small = ("-w", tmp_path / "work"), replace(VGG16, size=64)
    assert vggft("featurize", tmp_path / "data", "--preprocess", "raw", *work, network=small).returncode == 0
    with blank_figures(), eager():
        done = vggft("finetune", "--recipe", "original", "--epochs", "1", *work, network=small)
    assert done.returncode == 0, done.stderr
    network = keras.saving.load_model(tmp_path / "work" / "finetune" / "original-epochs1" / "network.keras")
    frozen, trained = frozen_and_trained(64)
    assert trained_layers(network) == [*trained, "head_dense1", "logits"]
    assert changed_layers(network, published.arrays) == trained
    assert [name for name in published.arrays if name not in trained] == frozen
    assert network.get_layer("head_dense1").kernel.shape == (2 * 2 * 512, 256)
    assert network.get_layer("logits").kernel.shape == (256, 1)
    assert network.get_layer("scores").get_config()["activation"] == "sigmoid"
