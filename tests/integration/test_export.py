"""`vggft export`: every format predicts what vggft predicts, describes itself, and never replaces anything."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import refused, rewrite, snapshot, strict_json, vggft
from PIL import Image
from tiny import TINY

from featurize.disk import durable
from featurize.errors import VggftError
from featurize.pixels import images
from vggft import Experiment
from vggft.export import card, formats, network, staging
from vggft.export.formats import FORMATS
from vggft.prediction import models, selection
from vggft.prediction.model import CachedImages
from vggft.workspace.workspace import Workspace

OUT = {"keras": "m.keras", "onnx": "m.onnx", "openvino": "m.xml", "litert": "m.tflite", "saved_model": "m"}
PAGE = Path(__file__).parent.parent.parent / "docs" / "export.md"


@pytest.fixture
def work(trained):
    workspace, data, _ = trained
    return Experiment(workspace.root, TINY), data


@pytest.fixture
def tuned(trained):
    """Name of the tuned network."""
    return trained[2]["finetune"]["name"]


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory):
    """The command's JSON for an ONNX file of a logistic regression, and its folder; tests only read it."""
    folder = tmp_path_factory.mktemp("exported")
    done = vggft("export", folder / "m.onnx", "--model", "logistic-avg", "-w", trained[0].root, "--json")
    assert done.returncode == 0, done.stderr
    return strict_json(done.stdout), folder, done.stderr


def pictures(data):
    """Return paths of six drawings and their pixels, as the network reads them."""
    paths = sorted(data.glob("*/*.png"))[::6]
    return paths, np.stack([images.decode_resized(path.read_bytes(), TINY.size) for path in paths]).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"),
    [
        *((name, "tuned") for name in OUT),
        *((name, "flatten-256-classic") for name in ("onnx", "keras")),  # the others: network/test_export_vgg16.py
    ],
)
def test_every_format_predicts_what_vggft_predicts(name, model, work, tuned, tmp_path):
    experiment, data = work
    model = tuned if model == "tuned" else model
    result = experiment.export(tmp_path / OUT[name], format=name, model=model)
    paths, pixels = pictures(data)
    p, expected = FORMATS[name].predict(tmp_path / OUT[name], pixels), experiment.model(model).predict(paths)
    assert p.shape == (6, 2)
    assert np.ptp(expected[:, 0]) > 0.05  # else swapped rows would pass
    assert np.abs(p - expected).max() < 1e-3
    assert (result["model"], result["format"], result["checked"]["images"]) == (model, name, 6)
    assert result["checked"]["largest_difference"] < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "precision", "size"),
    [
        ("m.xml", "float16", 0.55),
        pytest.param("m.tflite", "float16", 0.75, marks=pytest.mark.slow),
        ("m.tflite", "int8", 0.75),
    ],
)
def test_weights_in_a_lower_precision(out, precision, size, work, tmp_path):
    experiment, data = work
    full = experiment.export(tmp_path / f"full-{out}", model="flatten-256-classic")
    result = experiment.export(tmp_path / out, model="flatten-256-classic", precision=precision)
    stored, in_full = (tmp_path / name.replace(".xml", ".bin") for name in (out, f"full-{out}"))
    assert stored.stat().st_size < size * in_full.stat().st_size
    checked = result["checked"]
    assert full["checked"]["largest_difference"] < checked["largest_difference"] < checked["allowed"]
    _, pixels = pictures(data)
    name = {".xml": "openvino", ".tflite": "litert"}[Path(out).suffix]
    p = FORMATS[name].predict(tmp_path / out, pixels)
    assert 1e-6 < np.abs(p - FORMATS[name].predict(tmp_path / f"full-{out}", pixels)).max() < checked["allowed"]
    text = (tmp_path / f"{out}.md").read_text()
    assert f"stored as {precision}: on these images its accuracy is {checked['accuracy']:.4f}" in text


def test_precisions_that_a_format_has_not(work, tmp_path):
    with pytest.raises(
        VggftError,
        match=r"onnx --precision int8: expected float32\. .* openvino \(float16\) and litert \(float16, int8",
    ):
        work[0].export(tmp_path / "m.onnx", precision="int8")


@pytest.mark.parametrize("model", ["logistic-max", "avg-256", "max-linear"])
def test_networks_of_all_poolings_are_theirs(model, trained, small_pictures, small_features):
    workspace, _, _ = trained
    head = models.load(workspace).named(model)
    p = network.assembled(workspace, head).predict_on_batch(small_pictures.astype(np.float32))
    assert np.abs(p - head.head.predict(small_features[TINY.top])).max() < 1e-5


@pytest.mark.slow
def test_a_pipeline_for_scikit_learn(trained, work, tmp_path):
    import skops.io

    experiment, _ = work
    result = experiment.export(tmp_path / "m.skops", model="logistic-max")
    pipeline = skops.io.load(tmp_path / "m.skops", trusted=[])
    workspace, head = trained[0], models.load(trained[0]).named("logistic-max")
    samples = workspace.dataset.accepted("train")
    pooled = CachedImages(workspace, workspace.cache(), samples, ["max"]).pooled["max"]
    p = pipeline.predict_proba(pooled)
    assert np.abs(p - head.head.scores(pooled)).max() < 1e-6
    assert (pipeline.classes_ == ["birds", "fruit"]).all()
    assert (pipeline.predict(pooled) == np.array(["birds", "fruit"])[p.argmax(axis=1)]).all()
    import joblib

    trained_one = joblib.load(head.folder / "pipeline.joblib")
    assert np.abs(p - trained_one.predict_proba(pooled)).max() < 1e-6
    assert (result["layer"], result["pooling"]) == (TINY.top, "max")
    with pytest.raises(VggftError, match="max-linear is not a logistic regression"):
        experiment.export(tmp_path / "n.skops", model="max-linear")


def test_the_description_beside_and_inside(exported, trained):
    import onnx

    result, folder, messages = exported
    assert sorted(path.name for path in folder.iterdir()) == ["m.onnx", "m.onnx.json", "m.onnx.md"]
    stored = strict_json((folder / "m.onnx.json").read_text())
    assert stored.items() <= result.items()
    assert stored["files"] == {"m.onnx": durable.sha256(folder / "m.onnx")}
    assert (stored["classes"], stored["size"], stored["resize"]) == (["birds", "fruit"], 32, "bilinear")
    predicted = strict_json(
        vggft("predict", trained[1] / "birds", "-w", trained[0].root, "--json", "--model", "logistic-avg").stdout
    )
    assert stored["unsure_below"] == predicted["unsure_below"]
    assert stored["unsure_band"] == predicted["unsure_band"]
    inside = {entry.key: entry.value for entry in onnx.load(folder / "m.onnx").metadata_props}
    assert json.loads(inside["classes"]) == stored["classes"]
    assert float(inside["unsure_below"]) == stored["unsure_below"]
    assert inside["input"] == stored["input"]
    assert "tf2onnx" in stored["versions"]
    assert "Warning" not in messages
    assert "warning" not in messages


def test_openvino_has_two_files_and_the_description_inside(work, tmp_path):
    experiment, _ = work
    result = experiment.export(tmp_path / "m.xml", model="logistic-avg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.bin", "m.xml", "m.xml.json", "m.xml.md"]
    assert result["files"].keys() == {"m.bin", "m.xml"}
    model = formats.load_openvino().Core().read_model(tmp_path / "m.xml")
    assert json.loads(model.get_rt_info(["vggft", "classes"]).astype(str)) == ["birds", "fruit"]
    assert model.output(0).get_names() == {"probabilities"}


def test_the_model_card(exported):
    result, folder, _ = exported
    text = (folder / "m.onnx.md").read_text()
    _, front, body = text.split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["license"], about["library_name"]) == ("unknown", "onnx")
    assert about["pipeline_tag"] == "image-classification"
    (measured,) = about["model-index"][0]["results"]
    assert measured["dataset"]["split"] == "validation"
    accuracy = {metric["type"]: metric["value"] for metric in measured["metrics"]}["accuracy"]
    assert f"| validation | 6 | {accuracy:.4f} |" in body
    assert "| birds | 13 | 3 |" in body
    assert "| rotate10 |" in body
    assert "Use logistic-avg: no epoch of fine-tuning was better" in body
    assert result["files"]["m.onnx"] in body
    assert not re.search(r"\n\n\n|[ \t]\n", body)


def test_the_card_of_a_model_with_test_images_and_odd_names(trained, exported):
    workspace, _, compared = trained
    model = models.load(workspace).named("logistic-avg")
    described = {**exported[0], "weights": {"digest": "d", "published": True}}
    report = {**compared["compare"], "measured_on": "test"}
    named = Workspace(workspace.root, replace(TINY, license="CC-BY-4.0", credit="somebody (CC BY 4.0)"))
    facts = card.facts(named, model, described, report)
    assert facts["test"]["accuracy"] == next(row for row in report["methods"] if row["name"] == model.name)["accuracy"]
    text = card.text({**facts, "classes": ["a|b", "*c*\n# d"], "counts": {"train": {"a|b": 1, "*c*\n# d": 2}}})
    about = yaml.safe_load(text.split("---\n")[1])
    assert [result["dataset"]["split"] for result in about["model-index"][0]["results"]] == ["validation", "test"]
    assert about["license"] == "cc-by-4.0"
    assert "somebody (CC BY 4.0)." in text
    assert r"| a\|b | 1 |" in text
    assert r"| \*c\*\\n\# d | 2 |" in text
    assert "The test images selected nothing." in text
    assert "an earlier state of the folder data" in card.text({**facts, "counts": None})


def test_a_report_of_other_models_is_not_in_the_card(again):
    present = models.load(again)
    assert selection.current_report(again, present) is not None
    shutil.rmtree(again.heads / "avg-256")
    assert selection.current_report(again, models.load(again)) is None


def test_an_export_that_predicts_something_else_is_refused(work, tmp_path, monkeypatch):
    assembled = network.assembled

    def other(*arguments):
        changed = assembled(*arguments)
        logits = changed.get_layer("logits")
        kernel, bias = logits.get_weights()
        logits.set_weights([kernel * 1.05, bias])
        return changed

    monkeypatch.setattr(network, "assembled", other)
    with pytest.raises(
        VggftError, match=r"m.keras was not written: in its own runtime it differs from vggft predict by 0.0"
    ):
        work[0].export(tmp_path / "m.keras", model="logistic-avg")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("p", [np.full((6, 1), 0.5), np.full((6, 2), np.nan)], ids=["shape", "nan"])
def test_an_export_without_probabilities_is_refused(p, work, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "keras", replace(FORMATS["keras"], load=lambda path: lambda pixels: p[: len(pixels)]))
    with pytest.raises(VggftError, match="was not written"):
        work[0].export(tmp_path / "m.keras", model="logistic-avg")
    assert list(tmp_path.iterdir()) == []


def test_the_workspace_is_not_changed(trained, exported, tmp_path):
    before = snapshot(trained[0].root)
    assert vggft("export", tmp_path / "m.keras", "--model", "logistic-avg", "-w", trained[0].root).returncode == 0
    assert snapshot(trained[0].root) == before


def test_names_and_formats_that_do_not_fit(trained, tmp_path):
    def said(*arguments):
        return refused("export", *arguments, "-w", trained[0].root)

    every = "keras, onnx, openvino, litert, saved_model or skops"
    assert f"--format tf: expected {every}" in said(tmp_path / "m", "--format", "tf").replace("'", "")
    suffixes = ".keras (keras), .onnx (onnx), .xml (openvino), .tflite (litert), .skops (skops)"
    for name in ("m", "m.h5"):
        assert f"{name}: the name does not tell the format. Expected a name that ends in {suffixes}" in said(
            tmp_path / name
        )
    assert "m.tf: expected a name that ends in .onnx" in said(tmp_path / "m.tf", "--format", "onnx")
    assert "m.onnx: expected the name of a folder" in said(tmp_path / "m.onnx", "--format", "saved_model")
    assert "no model 'mine' here" in said(tmp_path / "m.onnx", "--model", "mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("taken", ["m.xml", "m.bin", "m.xml.json", "m.xml.md"])
def test_nothing_is_overwritten(taken, trained, tmp_path):
    (tmp_path / taken).write_text("mine")
    assert f"{taken}: exists, and vggft overwrites nothing." in refused(
        "export", tmp_path / "m.xml", "-w", trained[0].root
    )
    assert snapshot(tmp_path) == {taken: b"mine"}


def test_what_appears_meanwhile_is_not_overwritten(tmp_path):
    targets = [tmp_path / "m.json", tmp_path / "m"]
    with pytest.raises(VggftError, match=r"m\.json: exists"), staging.staged(targets) as folder:
        for target in targets:
            (folder / target.name).write_text("new")
        targets[0].write_text("mine")
    assert snapshot(tmp_path) == {"m.json": b"mine"}


def test_what_killed_exports_left_is_deleted(tmp_path):
    process = subprocess.Popen(["true"])
    process.wait()
    left, mixed, others = (tmp_path / f".{name}.vggft.tmp" for name in (f"m.{process.pid}", f"m.{process.pid}0", "n.1"))
    for folder in (left, mixed, others):
        (folder / "m" / "variables").mkdir(parents=True)
        (folder / "m" / "variables" / "a").write_text("half")
    mixed = mixed.rename(tmp_path / f".m.{10**30}.vggft.tmp")  # no process has this number
    (mixed / "mine").write_text("mine")
    with staging.staged([tmp_path / "m.json", tmp_path / "m"]) as folder:
        for name in ("m.json", "m"):
            (folder / name).write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["m", "m.json", mixed.name, others.name])
    assert [path.name for path in mixed.iterdir()] == ["mine"]
    assert (others / "m" / "variables" / "a").exists()


def test_folders_that_cannot_be_written(trained, tmp_path):
    def said(path):
        return refused("export", path, "-w", trained[0].root)

    assert f"no such folder: {tmp_path}/a. Create it" in said(tmp_path / "a" / "m.onnx")
    if Path("/proc").is_dir():
        assert "/proc/m.onnx: cannot be written" in said("/proc/m.onnx")


def test_without_models(featurized, tmp_path):
    assert "no heads here yet. Run first: vggft head" in refused(
        "export", tmp_path / "m.onnx", "-w", featurized[0] / "work"
    )
    assert "Run first: vggft featurize" in refused("export", tmp_path / "m.onnx", "-w", tmp_path / "none")


def test_a_damaged_head_is_reported_once(again, tmp_path):
    (again.heads / "avg-256" / "weights.npz").write_bytes(b"damaged")
    done = vggft("export", tmp_path / "m.keras", "--model", "logistic-avg", "-w", again.root)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: left out: ") == 1


def test_a_missing_package_names_the_extra(work, tmp_path, monkeypatch):
    find = formats.extras.importlib.util.find_spec
    monkeypatch.setattr(
        formats.extras.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name)
    )
    with pytest.raises(
        VggftError, match=r"--format onnx needs .* not installed: onnxruntime. Run: pip install 'vggft\[export\]'"
    ):
        work[0].export(tmp_path / "m.onnx")


def test_formats_that_only_tensorflow_writes(work, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "load_keras", lambda: SimpleNamespace(backend=SimpleNamespace(backend=lambda: "jax")))
    with pytest.raises(VggftError, match=r"--format litert with KERAS_BACKEND=jax: .* Set KERAS_BACKEND=tensorflow"):
        work[0].export(tmp_path / "m.tflite")
    FORMATS["keras"].require()


def test_images_that_are_gone(again, trained, tmp_path):
    settings = again.root / "workspace.json"
    shutil.copytree(trained[1], tmp_path / "data")
    text = settings.read_text()
    rewrite(settings, text.replace(str(trained[1]), str(tmp_path / "data")))
    (tmp_path / "data").rename(tmp_path / "moved")
    said = refused("export", tmp_path / "m.keras", "-w", again.root)
    assert "none of 6 validation images is there as featurize read it" in said


WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("vggft", "featurize", "heads", "finetune", "keras", "tensorflow", "onnx", "sklearn"):
            raise ImportError(f"{name} is not to be used here")

sys.meta_path.insert(0, Refuse())
"""


def test_the_example_of_the_documentation_needs_no_vggft(exported, work, tmp_path):
    experiment, data = work
    code = re.search(
        r"^<!-- test: without vggft -->\n```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )[1]
    assert "m.onnx" not in code
    shutil.copy(exported[1] / "m.onnx", tmp_path / "model.onnx")
    for path in sorted(data.glob("*/*.png"))[::15]:
        assert Image.open(path).mode == "RGBA"
        shutil.copy(path, tmp_path / "holiday.jpg")
        done = subprocess.run(
            [sys.executable, "-I", "-c", WITHOUT + code],
            cwd=tmp_path,
            env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        label, p, *unsure = done.stdout.split()
        expected = experiment.model("logistic-avg").predict(tmp_path / "holiday.jpg")[0]
        assert label == ("birds", "fruit")[expected.argmax()]
        assert float(p) == pytest.approx(expected.max(), abs=1e-3)
        assert unsure == (["unsure"] if expected.max() < exported[0]["unsure_below"] else [])


APART = """
import sys
from pathlib import Path
from vggft.export.formats import FORMATS, load_openvino
load_openvino().Core()
FORMATS["onnx"].load(Path(sys.argv[1]))
print(any(name.startswith("openvino_telemetry") for name in sys.modules), "openvino.tools.ovc" in sys.modules)
"""


def test_runtimes_report_nothing(exported, tmp_path):
    unwanted = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "XDG_CACHE_HOME"}
    env = {name: value for name, value in os.environ.items() if name not in unwanted} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", APART, exported[1] / "m.onnx"], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "True"]
    assert list(tmp_path.iterdir()) == []  # both would keep a number there by which they know the user
