"""The command line: every command and every exit code."""

import csv
import os
import shutil
import subprocess
import sys

import pytest
from conftest import drawings, paint, refused, rewrite, snapshot, strict_json, vggft
from processes import vggft_apart
from tiny import TINY

from featurize.backbone.vgg16 import VGG16
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered")

HEAD_KEYS = {"name", "kind", "pooling", "parameters", "seconds", "validation"}


def test_help_answers_at_once():
    def seconds():
        """Return the processor time, which is the waiting time on an idle machine."""
        before = os.times()
        done = vggft_apart("--help", network=VGG16)
        assert done.returncode == 0
        assert "featurize" in done.stdout
        now = os.times()
        return now.children_user + now.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5


def test_help_names_the_defaults():
    for command in ("featurize", "head", "finetune", "compare", "predict", "evaluate", "explain", "doctor", "demo"):
        assert "default" in vggft(command, "--help", network=VGG16).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion(shell, monkeypatch):
    """Commands, options and the values of options; it is installed by --install-completion."""
    for line, word in {
        "vggft fi": "finetune",
        "vggft featurize --engine m": "mnn",
        "vggft runs --rem": "--remove",
    }.items():
        environment = {
            "_VGGFT_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - 1),
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_WORD_TO_COMPLETE": line.split()[-1],
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        done = vggft(network=VGG16)
        assert word in done.stdout, (line, done.stdout, done.stderr)


def test_help_imports_nothing_heavy():
    heavy = ("keras", "tensorflow", "numpy", "sklearn", "h5py", "PIL")
    program = f"import sys, vggft.cli.app; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_demo_leaves_a_persons_workspace_alone():
    assert "VGGFT_WORKSPACE" not in vggft("demo", "--help", network=VGG16).stdout
    assert "VGGFT_WORKSPACE" in vggft("head", "--help", network=VGG16).stdout


def test_steps_out_of_order(tmp_path, copied):
    for command in (["head"], ["finetune"], ["compare"], ["predict", copied / "data"]):
        assert "vggft featurize" in refused(*command, "-w", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    before = snapshot(copied / "work")
    for command in (["finetune"], ["compare"], ["predict", copied / "data"]):
        assert "vggft head" in refused(*command, "-w", copied / "work")
    assert "--epochs 0" in refused("head", "--epochs", "0", "-w", copied / "work")
    for unfreeze in ("block9", "block3_pool", "vgg16"):
        assert f"--unfreeze {unfreeze}" in refused("finetune", "--unfreeze", unfreeze, "-w", copied / "work").replace(
            "'", ""
        )
    assert snapshot(copied / "work") == before


def test_errors_as_json(tmp_path):
    done = vggft("head", "-w", tmp_path / "none", "--json")
    assert done.returncode == 1
    assert set(strict_json(done.stdout)) == {"error"}
    for arguments in (
        ["head", "--seed", "-1", "--json"],
        ["head", "--epochs", "abc", "--json"],
        ["featurize", "--json"],
        ["nonsense", "--json"],
    ):
        done = vggft(*arguments)
        assert done.returncode == 1
        assert set(strict_json(done.stdout)) == {"error"}
    assert vggft("--version", network=VGG16).stdout.startswith("vggft ")
    assert vggft(network=VGG16).stdout == vggft("--help", network=VGG16).stdout


@pytest.mark.slow
def test_a_backend_that_is_not_there(copied):
    message = refused("head", "-w", copied / "work", run=vggft_apart, env={"KERAS_BACKEND": "jaxx"})
    assert "KERAS_BACKEND" in message


def test_damage_in_the_workspace_is_said(copied):
    (copied / "work" / "workspace.json").write_text("{")
    assert "damaged" in refused("head", "-w", copied / "work")
    rewrite(copied / "work" / "workspace.json", {"schema": 99})
    assert "schema 99" in refused("head", "-w", copied / "work")


def test_a_second_writer_is_refused_and_told_who_writes(copied):
    with Workspace(copied / "work", TINY).writing():
        for command in (["featurize", copied / "data"], ["head"]):
            assert f"process {os.getpid()} on " in refused(*command, "-w", copied / "work")
    assert vggft("featurize", copied / "data", "-w", copied / "work").returncode == 0


@pytest.mark.slow
def test_heads_leaderboard_and_stale_heads(copied):
    work = ["-w", copied / "work"]
    names = {"logistic-avg", "avg-256", "max-256", "flatten-256-classic"}
    picked = [word for name in names for word in ("--head", name)]
    done = vggft("head", "--epochs", "2", "--cv", "0", *picked, *work, "--json")
    found = strict_json(done.stdout)
    assert set(found["heads"][0]) >= HEAD_KEYS
    assert {h["name"] for h in found["heads"]} == names
    assert {h["kind"] for h in found["heads"]} == {"logistic", "dense"}
    assert found["best"] == min(found["heads"], key=lambda h: h["validation"]["log_loss"])["name"]
    assert all(h["validation"]["n"] == 4 for h in found["heads"])
    shapes = {h.head.name: [x.bias.size for x in h.head.layers] for h in _heads(copied)}
    assert shapes["flatten-256-classic"] == [256, 1]
    assert "vggft finetune" in refused("compare", "--cv", 2, *work)

    (copied / "work" / "heads" / "max-256" / "weights.npz").write_bytes(b"damaged")
    done = vggft("finetune", "--from", "max-256", *work)
    assert done.returncode == 1
    assert "left out" in done.stderr
    assert "Train it again: vggft head" in done.stderr
    assert vggft("head", "--head", "max-256", "--head", "avg-256", "--epochs", "1", "--cv", "0", *work).returncode == 0

    predicted = strict_json(vggft("predict", copied / "data" / "bugs", "--model", "avg-256", *work, "--json").stdout)
    assert predicted["model"] == "avg-256"
    assert "no model 'nope'" in refused("predict", copied / "data", "--model", "nope", *work)

    paint(copied / "data" / "bugs" / "new.png", (9, 9, 9))
    assert vggft("featurize", copied / "data", *work).returncode == 0
    for command in (["finetune"], ["compare"]):
        assert "stale" in refused(*command, *work)


def _heads(base):
    from heads import store

    return store.load_all(base / "work" / "heads")


@pytest.mark.slow
def test_three_classes_have_a_softmax(tmp_path):
    drawings(tmp_path / "data", 6, "bugs", "flowers", "fruit")
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 0
    picked = [
        word for name in ("logistic-max", "avg-linear", "max-256", "flatten-256-classic") for word in ("--head", name)
    ]
    found = strict_json(vggft("head", "--epochs", "1", "--cv", "0", *picked, "-w", tmp_path / "work", "--json").stdout)
    assert all(h["validation"]["auc"] is not None for h in found["heads"])
    for result in _heads_of(tmp_path):
        assert (result.head.layers[-1].bias.size, result.head.layers[-1].activation) == (3, "softmax")


def _heads_of(folder):
    from heads import store

    return store.load_all(folder / "work" / "heads")


def test_predict(trained, tmp_path):
    workspace, data, results = trained
    folder = tmp_path / "some folder"
    folder.mkdir()
    for i, name in enumerate(("a b.png", "ü\n.png")):
        shutil.copy(sorted((data / "fruit").iterdir())[i], folder / name)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    single = sorted((data / "birds").iterdir())[0]
    done = vggft("predict", single, folder, "-w", workspace.root, "--json")
    found = strict_json(done.stdout)
    assert done.returncode == 3
    assert found["model"] == results["compare"]["use"]
    assert [p["path"] for p in found["predictions"]] == [str(single), str(folder / "a b.png"), str(folder / "ü\n.png")]
    for prediction in found["predictions"]:
        assert set(prediction["probabilities"]) == {"birds", "fruit"}
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
        assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)
        assert prediction["probabilities"][prediction["label"]] == prediction["score"]
    assert [r["path"] for r in found["rejected"]] == [str(folder / "broken.jpg")]
    assert "no such file" in refused("predict", tmp_path / "nowhere.jpg", "-w", workspace.root)
    (tmp_path / "empty").mkdir()
    assert "no files there" in refused("predict", tmp_path / "empty", "-w", workspace.root)


def test_head_and_network_predict_alike_from_pixels(trained):
    """An image's scores by `predict` are those that `compare` measured from the cache."""
    workspace, data, results = trained
    with (workspace.report / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for model in (results["head"]["best"], results["finetune"]["name"]):
        own = {str(data / row["path"]): float(row["p_fruit"]) for row in rows if row["method"] == model}
        found = strict_json(vggft("predict", *own, "--model", model, "-w", workspace.root, "--json").stdout)
        assert found["model"] == model
        for prediction in found["predictions"]:
            assert prediction["probabilities"]["fruit"] == pytest.approx(own[prediction["path"]], abs=2e-3)


def test_doctor(trained, tmp_path, monkeypatch):
    done = vggft("doctor", "-w", trained[0].root, "--json")
    found = strict_json(done.stdout)
    assert done.returncode == 0
    assert {c["name"] for c in found["checks"]} == {
        "versions",
        "backend",
        "device",
        "engine",
        "weights",
        "disk",
        "workspace",
    }
    assert all(c["status"] == "ok" for c in found["checks"])
    monkeypatch.setenv("KERAS_HOME", str(_bad_keras_home(tmp_path)))
    broken = vggft("doctor", "-w", tmp_path, network=VGG16)
    assert broken.returncode == 1
    assert "✗ weights" in broken.stdout
    assert "→" in broken.stdout


def _bad_keras_home(folder):
    models = folder / "keras" / "models"
    models.mkdir(parents=True)
    (models / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"cut short")
    return folder / "keras"
