"""The command line as a person and a program meet it: every command, every exit code, from a clean process."""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import PICTURES, drawings, make_classes, paint, strict_json, vggft

from featurize import images
from featurize.layers import NAMES
from vggft.workspace import Workspace

HEAD_KEYS = {"name", "kind", "pooling", "parameters", "seconds", "validation"}


@pytest.fixture(scope="module")
def featurized(tmp_path_factory):
    """12 drawings each of bugs and flowers, and their workspace; tests that change it copy it first."""
    base = tmp_path_factory.mktemp("cli")
    drawings(base / "data", 12, "bugs", "flowers")
    done = vggft("featurize", base / "data", "-w", base / "work", "--json")
    assert done.returncode == 0, done.stderr
    return base, strict_json(done.stdout)


@pytest.fixture
def copied(featurized, tmp_path):
    shutil.copytree(featurized[0], tmp_path / "copy")
    return tmp_path / "copy"


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def refused(*arguments, cwd=None, **options):
    """Run a command that must fail: exit 1, one error of a line or two, nothing on standard output. Return the message."""
    done = vggft(*arguments, cwd=cwd, **options)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    messages = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(messages) == 1
    return messages[0]


def test_help_answers_at_once():
    def seconds():
        began = time.perf_counter()
        done = vggft("--help")
        assert done.returncode == 0
        assert "featurize" in done.stdout
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 0.5
    for command in ("featurize", "head", "finetune", "compare", "predict", "doctor", "demo"):
        assert "default" in vggft(command, "--help").stdout


def test_help_imports_nothing_heavy():
    heavy = ("keras", "tensorflow", "numpy", "sklearn", "h5py", "PIL")
    program = f"import sys, vggft.cli; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_featurize_and_again(featurized):
    base, first = featurized
    assert first["images"] == first["computed"] == 24
    assert first["reused"] == first["duplicates"] == first["rejected"] == 0
    assert first["classes"] == ["bugs", "flowers"]
    assert first["splits"] == {"train": 20, "validate": 4, "test": 0}
    assert first["layers"] == ["block4_pool", "block5_pool"]
    assert first["images_per_second"] > 0
    before = snapshot(base / "work" / "cache")
    again = vggft("featurize", base / "data", "-w", base / "work", "--json")
    found = strict_json(again.stdout)
    assert (again.returncode, found["computed"], found["reused"], found["engine"]) == (0, 0, 24, None)
    assert snapshot(base / "work" / "cache") == before
    said = vggft("featurize", base / "data", "-w", base / "work")
    assert "nothing to compute" in said.stdout


def test_every_file_resolves_to_the_row_of_its_digest_with_its_own_label(featurized, weights):
    """Features against an independent way: Keras's own VGG16 and preprocessing, on the decoder's pixels."""
    import keras

    base, _ = featurized
    workspace = Workspace(base / "work")
    with (base / "work" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"path", "label", "split", "group", "digest", "status", "reason"} <= set(rows[0])
    assert len(rows) == 24
    for row in rows:
        data = (base / "data" / row["path"]).read_bytes()
        assert row["digest"] == hashlib.sha256(data).hexdigest()
        assert row["label"] == row["path"].split("/")[0]
    model = keras.applications.VGG16(include_top=False, weights=None, input_shape=(224, 224, 3))
    for name, (kernel, bias) in weights.arrays.items():
        model.get_layer(name).set_weights([kernel, bias])
    pixels = np.stack([images.decode_resized((base / "data" / r["path"]).read_bytes(), 224) for r in rows])
    expected = model.predict(keras.applications.vgg16.preprocess_input(pixels.astype("float32")), verbose=0)
    found = workspace.cache().read("block5_pool", [r["digest"] for r in rows]).astype(np.float64)
    difference = np.linalg.norm((found - expected).reshape(24, -1), axis=1)
    assert (difference / np.linalg.norm(expected.reshape(24, -1), axis=1)).max() <= 1e-3


def test_names_with_everything_in_them(tmp_path):
    odd = ["a b", "Ünï 日本", "new\nline", "-dash", os.fsdecode(b"not\xffutf8"), "[bold]x[/bold]"]
    for label in ("one [red]", "two\nlines"):
        for i, name in enumerate(odd):
            paint(
                tmp_path / "data" / label / f"{name}.png",
                (0, 20 * i, 50 + len(label)) if label[0] == "o" else (0, 20 * i, 1),
            )
    (tmp_path / "data" / "one [red]" / "bad\n[x]name.jpg").write_text("text")
    done = vggft("featurize", tmp_path / "data", "-w", tmp_path / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["images"], found["rejected"]) == (3, 12, 1)
    json.dumps(found, ensure_ascii=False).encode("utf-8")  # text, no lone surrogates
    assert found["classes"] == ["one [red]", "two\nlines"]
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 3


def test_rejected_files_are_listed_and_looked_at_again(copied):
    (copied / "data" / "bugs" / "empty.png").write_bytes(b"")
    (copied / "data" / "bugs" / "text.jpg").write_text("not a picture")
    done = vggft("featurize", copied / "data", "-w", copied / "work", "--json")
    found = strict_json(done.stdout)
    assert (done.returncode, found["images"], found["computed"], found["rejected"]) == (3, 24, 0, 2)
    rows = {s.path: s for s in Workspace(copied / "work").dataset.samples}
    assert rows["bugs/empty.png"].reason == "empty file (0 bytes)"
    assert rows["bugs/text.jpg"].status == "rejected"
    shutil.copy(PICTURES / "bugs" / "spider.png", copied / "data" / "bugs" / "text.jpg")
    (copied / "data" / "bugs" / "empty.png").unlink()
    mended = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--json").stdout)
    assert (mended["images"], mended["rejected"]) == (25, 0)


def test_renamed_moved_and_edited_files(copied):
    before = {s.digest: s.split for s in Workspace(copied / "work").dataset.samples}
    files = sorted((copied / "data" / "bugs").iterdir())
    files[0].rename(files[0].with_name("renamed.png"))
    files[1].rename(copied / "data" / "flowers" / files[1].name)  # re-labelled
    paint(files[2], (1, 2, 3))  # edited
    (copied / "data").rename(copied / "moved")
    found = strict_json(vggft("featurize", copied / "moved", "-w", copied / "work", "--json").stdout)
    assert (found["computed"], found["reused"], found["images"]) == (1, 23, 24)
    found = strict_json(vggft("featurize", copied / "moved", "-w", copied / "work", "--json", "--rehash").stdout)
    assert (found["computed"], found["reused"]) == (0, 24)
    workspace = Workspace(copied / "work")
    after = {s.digest: s.split for s in workspace.dataset.samples}
    assert all(after[d] == split for d, split in before.items() if d in after)
    assert workspace.dataset.root == copied / "moved"


def test_a_lost_or_edited_manifest_is_made_again_with_the_same_split(copied):
    work = copied / "work"
    before = {s.path: s.split for s in Workspace(work).dataset.samples}
    for damage in (
        (work / "manifest.csv").unlink,
        lambda: (work / "manifest.csv").write_text("path,label\nx,y\n"),
        (work / "workspace.json").unlink,
    ):
        damage()
        assert "vggft featurize" in refused("head", "-w", work)
        done = vggft("featurize", copied / "data", "-w", work, "--json")
        assert (done.returncode, strict_json(done.stdout)["computed"]) == (0, 0), done.stderr
        assert {s.path: s.split for s in Workspace(work).dataset.samples} == before


def test_other_data_do_not_take_over_a_workspace(copied, tmp_path):
    other = make_classes(tmp_path / "other", dogs=3, cats=3)
    before = snapshot(copied / "work")
    assert "--workspace for other data" in refused("featurize", other, "-w", copied / "work")
    assert snapshot(copied / "work") == before


def test_the_demo_leaves_a_persons_workspace_alone():
    assert "VGGFT_WORKSPACE" not in vggft("demo", "--help").stdout
    assert "VGGFT_WORKSPACE" in vggft("head", "--help").stdout


def test_copies_under_two_labels(copied):
    sample = Workspace(copied / "work").dataset.accepted("validate")[0]
    other = "flowers" if sample.label == "bugs" else "bugs"
    shutil.copy(copied / "data" / sample.path, copied / "data" / other / "copy.png")
    done = vggft("featurize", copied / "data", "-w", copied / "work", "--json")
    found = strict_json(done.stdout)
    assert (found["computed"], found["duplicates"], found["images"]) == (0, 2, 23)
    assert "same bytes under two labels" in done.stderr
    assert [sorted(paths) for paths in found["conflicts"]] == [sorted([sample.path, f"{other}/copy.png"])]


def test_a_test_split_can_be_reserved_later_and_then_stays(copied):
    before = {s.path: s.split for s in Workspace(copied / "work").dataset.samples}
    found = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--test", "0.25", "--json").stdout)
    assert found["splits"] == {"train": 14, "validate": 4, "test": 6}
    after = {s.path: s.split for s in Workspace(copied / "work").dataset.samples}
    assert all(after[p] == "validate" for p, split in before.items() if split == "validate")
    again = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--json").stdout)
    assert again["splits"] == found["splits"]
    assert "test" not in {before[p] for p in before}
    assert all(before[p] == "train" for p, split in after.items() if split == "test")
    assert {s.path: s.split for s in Workspace(copied / "work").dataset.samples} == after
    for option, value in (("--test", "0.1"), ("--validation", "0.5"), ("--seed", "3"), ("--group-by", "(x)")):
        assert "stays" in refused("featurize", copied / "data", "-w", copied / "work", option, value)


def test_other_layers_and_preprocessing(copied):
    for arguments, computed in ((["--layers", "block3_pool"], 24), (["--preprocess", "raw"], 24), ([], 0)):
        found = strict_json(vggft("featurize", copied / "data", "-w", copied / "work", "--json", *arguments).stdout)
        assert found["computed"] == computed
    assert Workspace(copied / "work").settings.fingerprint.preprocess == "raw"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: None, ["expected a folder of class folders"]),
        (lambda p: p.mkdir(), ["no class folders"]),
        (lambda p: make_classes(p, only=3), ["only one class", "'only'"]),
        (lambda p: make_classes(p, a=3, b=1), ["class 'b' has one image", "two or more"]),
    ],
)
def test_bad_folders_change_nothing(tmp_path, make, words):
    make(tmp_path / "data")
    message = refused("featurize", tmp_path / "data", "-w", tmp_path / "work")
    assert all(word in message for word in words)
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layers", "fc1"], ["unknown layer 'fc1'", *NAMES]),
        (["--shard", "0"], ["--shard 0"]),
        (["--validation", "1.5"], ["--validation 1.5", "expected"]),
        (["--preprocess", "torch"], ["caffe or raw"]),
        (["--engine", "tpu"], ["auto, keras, ncnn"]),
        (["--nonsense"], ["--nonsense", "vggft --help"]),
        (["--seed", "x"], ["--seed"]),
        (["--test", "0.4"], ["no training image left", "--test"]),
        (["--weights", "nowhere.h5"], ["no such file"]),
        (["--group-by", "x"], ["captures nothing"]),
    ],
)
def test_bad_options_change_nothing(tmp_path, arguments, words):
    make_classes(tmp_path / "data", a=2, b=3)
    message = refused("featurize", tmp_path / "data", "-w", tmp_path / "work", *arguments)
    assert all(word in message for word in words)
    assert not (tmp_path / "work").exists()


def test_steps_out_of_order(tmp_path, copied):
    for command in (["head"], ["finetune"], ["compare"], ["predict", copied / "data"]):
        assert "vggft featurize" in refused(*command, "-w", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    before = snapshot(copied / "work")
    for command in (["finetune"], ["compare"], ["predict", copied / "data"]):
        assert "vggft head" in refused(*command, "-w", copied / "work")
    assert "--epochs 0" in refused("head", "--epochs", "0", "-w", copied / "work")
    for unfreeze in ("block9", "block5_pool", "block1"):
        assert f"--unfreeze {unfreeze}" in refused("finetune", "--unfreeze", unfreeze, "-w", copied / "work").replace(
            "'", ""
        )
    assert snapshot(copied / "work") == before


def test_errors_as_json(tmp_path):
    done = vggft("head", "-w", tmp_path / "none", "--json")
    assert done.returncode == 1
    assert set(strict_json(done.stdout)) == {"error"}
    for arguments in (["head", "--epochs", "abc", "--json"], ["featurize", "--json"], ["nonsense", "--json"]):
        done = vggft(*arguments)
        assert done.returncode == 1
        assert set(strict_json(done.stdout)) == {"error"}
    assert vggft("--version").stdout.startswith("vggft ")
    assert vggft().stdout == vggft("--help").stdout


def test_a_backend_that_is_not_there(copied):
    for backend in ("jaxx", "mxnet"):
        assert "KERAS_BACKEND" in refused("head", "-w", copied / "work", env={"KERAS_BACKEND": backend})


def test_damage_in_the_workspace_is_said(copied):
    (copied / "work" / "workspace.json").write_text("{")
    assert "damaged" in refused("head", "-w", copied / "work")
    (copied / "work" / "workspace.json").write_text('{"schema": 99}')
    assert "schema 99" in refused("head", "-w", copied / "work")


def test_a_second_writer_is_refused_and_told_who_writes(copied):
    with Workspace(copied / "work").writing():
        for command in (["featurize", copied / "data"], ["head"]):
            assert f"process {os.getpid()} on " in refused(*command, "-w", copied / "work")
    assert vggft("featurize", copied / "data", "-w", copied / "work").returncode == 0


def test_heads_leaderboard_and_stale_heads(copied):
    work = ["-w", copied / "work"]
    done = vggft("head", "--epochs", "2", *work, "--json")
    found = strict_json(done.stdout)
    assert set(found["heads"][0]) >= HEAD_KEYS
    assert {"logistic-avg", "avg-256", "flatten-256-classic"} <= {h["name"] for h in found["heads"]}
    assert {h["kind"] for h in found["heads"]} == {"logistic", "dense"}
    assert found["best"] == min(found["heads"], key=lambda h: h["validation"]["log_loss"])["name"]
    assert all(h["validation"]["n"] == 4 for h in found["heads"])
    shapes = {h.head.name: [x.bias.size for x in h.head.layers] for h in _heads(copied)}
    assert shapes["flatten-256-classic"] == [256, 1]
    assert "vggft finetune" in refused("compare", *work)

    predicted = strict_json(vggft("predict", copied / "data" / "bugs", "--model", "avg-256", *work, "--json").stdout)
    assert predicted["model"] == "avg-256"
    assert "no model 'nope'" in refused("predict", copied / "data", "--model", "nope", *work)

    paint(copied / "data" / "bugs" / "new.png", (9, 9, 9))
    assert vggft("featurize", copied / "data", *work).returncode == 0
    for command in (["finetune"], ["compare"], ["predict", copied / "data"]):
        assert "stale" in refused(*command, *work)
    assert "stale" in refused("predict", copied / "data", "--model", "avg-256", *work)


def _heads(base):
    from heads import store

    return store.load_all(base / "work" / "heads")


def test_three_classes_have_a_softmax(tmp_path):
    drawings(tmp_path / "data", 6, "bugs", "flowers", "fruit")
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 0
    found = strict_json(vggft("head", "--epochs", "1", "-w", tmp_path / "work", "--json").stdout)
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
    tuned, head = results["finetune"], results["head"]["best"]
    assert found["model"] == (tuned["name"] if tuned["best_epoch"] else head)
    assert [p["path"] for p in found["predictions"]] == [str(single), str(folder / "a b.png"), str(folder / "ü\n.png")]
    for prediction in found["predictions"]:
        assert set(prediction["probabilities"]) == {"birds", "fruit"}
        assert sum(prediction["probabilities"].values()) == pytest.approx(1)
        assert prediction["score"] == max(prediction["probabilities"].values())
        assert prediction["probabilities"][prediction["label"]] == prediction["score"]
    assert [p["label"] for p in found["predictions"]] == ["birds", "fruit", "fruit"]
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
        own = {str(data / row["path"]): float(row["fruit"]) for row in rows if row["method"] == model}
        found = strict_json(vggft("predict", *own, "--model", model, "-w", workspace.root, "--json").stdout)
        assert found["model"] == model
        for prediction in found["predictions"]:
            assert prediction["probabilities"]["fruit"] == pytest.approx(own[prediction["path"]], abs=2e-3)


def test_doctor(trained, tmp_path):
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
    broken = vggft("doctor", "-w", tmp_path, env={"KERAS_HOME": str(_bad_keras_home(tmp_path))})
    assert broken.returncode == 1
    assert "✗ weights" in broken.stdout
    assert "→" in broken.stdout


def _bad_keras_home(folder):
    models = folder / "keras" / "models"
    models.mkdir(parents=True)
    (models / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").write_bytes(b"cut short")
    return folder / "keras"


def start(*arguments) -> subprocess.Popen:
    command = [sys.executable, "-m", "vggft", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shards(work) -> dict:
    return {p.name: p.read_bytes() for p in (work / "cache").glob("*/shards/*.h5")}


def wait_for_shards(work, number, process):
    deadline = time.monotonic() + 120
    while len(list((work / "cache").glob("*/shards/[0-9a-f]*.h5"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_interrupted_by_a_person(tmp_path):
    data = drawings(tmp_path / "data", 24, "bugs", "flowers")
    process = start("featurize", data, "-w", tmp_path / "work", "--shard", "8", "--json")
    wait_for_shards(tmp_path / "work", 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "kept" in err
    assert "Traceback" not in err
    assert "error" in strict_json(out)
    kept = shards(tmp_path / "work")
    found = strict_json(vggft("featurize", data, "-w", tmp_path / "work", "--json").stdout)
    assert found["computed"] + found["reused"] == 48
    assert found["reused"] >= 8
    assert kept.items() <= shards(tmp_path / "work").items()


def kill_at_random(tmp_path, data, kills, rng):
    """Kill -9 `kills` times at random moments, then finish; return what the undisturbed and the killed cache hold."""
    work = tmp_path / "killed"
    for _ in range(kills):
        before = shards(work)
        process = start("featurize", data, "-w", work, "--shard", "8", "--json")
        with_shards = len(before) + 1
        if len(before) < 4 and rng.random() < 0.7:
            wait_for_shards(work, with_shards, process)
        time.sleep(rng.random() * 1.5)
        process.kill()
        process.communicate()
        after = shards(work)
        assert before.items() <= after.items()
    done = vggft("featurize", data, "-w", work, "--shard", "8", "--json")
    assert done.returncode == 0, done.stderr
    assert vggft("featurize", data, "-w", tmp_path / "undisturbed", "--shard", "8").returncode == 0
    killed, undisturbed = Workspace(work), Workspace(tmp_path / "undisturbed")
    assert killed.dataset.identity == undisturbed.dataset.identity
    digests = sorted({s.digest for s in undisturbed.dataset.accepted()})
    for layer in ("block4_pool", "block5_pool"):
        assert np.array_equal(killed.cache().read(layer, digests), undisturbed.cache().read(layer, digests))


def test_killed_and_run_again(tmp_path):
    kill_at_random(tmp_path, drawings(tmp_path / "data", 20, "bugs", "flowers"), 2, random.Random(0))


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    kill_at_random(
        tmp_path, drawings(tmp_path / "data", 33, *("birds", "bugs", "flowers", "fruit")), 20, random.Random(1)
    )


@pytest.mark.slow
def test_the_promises_on_photographs(hymenoptera, tmp_path):
    """Ants and bees: 397 photographs, the accuracies that were promised, and a network that plain Keras can use."""
    work = ["-w", tmp_path / "work", "--json"]
    featurized = strict_json(vggft("featurize", hymenoptera, *work).stdout)
    assert (featurized["images"], featurized["splits"]["train"], featurized["splits"]["validate"]) == (397, 244, 153)
    heads = strict_json(vggft("head", "--epochs", "50", *work).stdout)
    best = heads["heads"][0]
    assert best["name"] == heads["best"]
    assert best["validation"]["accuracy"] >= 0.90
    assert max(h["validation"]["accuracy"] for h in heads["heads"] if h["kind"] == "logistic") >= 0.90
    tuned = strict_json(vggft("finetune", "--unfreeze", "block5", "--epochs", "3", *work, timeout=600).stdout)
    assert tuned["parity"] <= 2e-3
    assert tuned["validation"]["log_loss"] <= tuned["start_validation"]["log_loss"]
    assert tuned["start_validation"]["log_loss"] == pytest.approx(best["validation"]["log_loss"], abs=1e-4)
    compared = strict_json(vggft("compare", *work).stdout)
    assert compared["measured_on"] == "validation"
    assert "also chose the models" in compared["recommendation"] or tuned["best_epoch"] == 0
    names = {json.dumps(m["name"]) for m in compared["methods"]}
    assert len(names) == len(heads["heads"]) + 1
