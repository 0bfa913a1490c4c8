"""`vggft compare` in real workspaces: which models are compared or left out, costs, and advice."""

import csv
import html
import json
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import drawings, rewrite, snapshot, vggft
from small_compare import (
    compared,
    predictions,
    recompute,
)
from tiny import TINY

from featurize.backend import load_keras
from featurize.cache import timings
from featurize.errors import VggftError
from finetune.plan import Plan
from finetune.store import Run, Settings
from heads.head import Head
from heads.metrics import measure
from heads.search import Result
from vggft.comparison import costs
from vggft.comparison.advice import ReserveTest
from vggft.comparison.candidates import on_split
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.report import sentences
from vggft.prediction import inference, models, selection
from vggft.prediction.head_model import HeadModel
from vggft.prediction.network_model import NetworkModel
from vggft.steps import compare as command
from vggft.steps.options import CompareOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered")


def metrics(log_loss):
    p = np.exp(-log_loss)
    return measure(np.array([[p, 1 - p], [1 - p, p]]), np.array([0, 1]))


def head_model(name, loss):
    return HeadModel(Path(name), Result(Head(name, "dense", "avg", ("a", "b"), ()), 1.0, metrics(loss)), "top")


def network_model(name, loss, best_epoch=3):
    settings = Settings(name, "block3", "block2_pool", Plan(), 1, "best", {})
    end, start = metrics(loss), metrics(0.2)
    run = Run(settings, "h", "0", {}, ("a", "b"), 1, {}, best_epoch, "epochs", None, 0.0, 1.0, end, start, ())
    return NetworkModel(Path(name), run, start_present=True)


def test_an_unchanged_network_is_never_the_best():
    present = [network_model("copy", 0.2 - 1e-7, 0), head_model("head", 0.2), network_model("better", 0.1)]
    assert [m.name for m in sorted(present, key=lambda model: model.rank)] == ["better", "head", "copy"]


def test_what_is_compared_was_chosen_before_these_images_were_looked_at(trained, ui, monkeypatch):
    """The first head and the first network are the best on validation; on these images they are the worst of all."""
    workspace = trained[0]
    heads = tuple(head_model(name, 0.1 * i) for i, name in enumerate(["chosen head", "h2", "h3"], start=1))
    networks = tuple(network_model(name, 0.1 * i) for i, name in enumerate(["chosen network", "n2", "n3"], start=1))

    def fake(part, workspace, cache, samples):
        right = np.eye(2)[workspace.dataset.targets(samples)]
        bad = {model.name: model.name.startswith("chosen") for model in part}
        return {name: 0.1 + 0.8 * (1 - right if worst else right) for name, worst in bad.items()}

    monkeypatch.setattr(inference, "from_cache", fake)
    said = on_split(workspace, models.Models(heads, networks, ()), "validation", ui.warn, ui)
    assert (said.head, said.network) == ("chosen head", "chosen network")
    found = compared(said, "chosen head", "chosen network")
    assert (found.first.b, found.first.a) == ("chosen head", "chosen network")
    assert {row.name for row in found.rows[-2:]} == {"chosen head", "chosen network"}


def gallery_of(workspace):
    page = (workspace.report / "report.html").read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


@pytest.mark.slow
def test_a_network_that_fine_tuning_has_changed_has_heat_maps_of_its_own(again, monkeypatch):
    monkeypatch.setattr(NetworkModel, "unchanged", property(lambda self: False))
    monkeypatch.setattr(costs, "BATCHES", (1, 8))  # latency of 32 pictures takes a while
    contrast = command.run(again, CompareOptions(), Ui(quiet=True))["contrast"]
    heat = gallery_of(again)["heat"]
    assert [each["title"] for each in heat] == [contrast["tuned"], contrast["head"]]
    assert all(all(each["maps"]) for each in heat)


def test_the_table_of_the_command_can_be_recomputed(trained):
    workspace, _, results = trained
    result = results["compare"]
    assert result["measured_on"] == "validation"
    assert sentences.PROVISOS["validation"] in result["recommendation"]
    assert all(one["p_value"] is None for one in result["pairs"])
    assert "--cv 5" in result["offers"][0]
    assert "--test 0.2" in result["offers"][1]
    recompute(workspace.report, result)
    reported = {head["name"]: head["validation"] for head in results["head"]["heads"]}
    reported[results["finetune"]["name"]] = results["finetune"]["validation"]
    for method in result["methods"]:
        assert method["log_loss"] == pytest.approx(reported[method["name"]]["log_loss"], abs=1e-6)
    page = (workspace.report / "report.html").read_text()
    assert re.search(r'<p class="verdict">(.*?)</p>', page).group(1) == html.escape(result["recommendation"])
    data = gallery_of(workspace)
    assert len(data["paths"]) == result["images"] == sum(map(bool, data["thumbnails"]))
    assert [heat["title"] for heat in data["heat"]] == [
        result["contrast"]["head"]
    ]  # the tuned network is the same model
    assert all(all(heat["maps"]) for heat in data["heat"])
    assert json.loads((workspace.report / "compare.json").read_text()) == json.loads(
        json.dumps({key: value for key, value in result.items() if key not in ("report", "page")})
    )


def test_costs(trained):
    workspace, _, results = trained
    result = results["compare"]
    costs = {method["name"]: method["cost"] for method in result["methods"]}
    tuned = result["contrast"]["tuned"]
    start = results["finetune"]["start"]
    shared = result["featurize_seconds"]
    recorded = timings.read(workspace.cache().folder)
    assert sum(one.images for one in recorded) == 32  # all of them: no --test
    assert shared == pytest.approx(sum(one.seconds for one in recorded))
    assert costs[start]["total_seconds"] == pytest.approx(shared + costs[start]["training_seconds"])
    own = costs[tuned]
    expected = costs[start]["total_seconds"] + own["training_seconds"]
    assert own["total_seconds"] == pytest.approx(expected)
    assert own["bytes"] == Path(results["finetune"]["network"]).stat().st_size
    assert own["parameters"] > 1168 + 2320  # both convolutions of block3, and the head
    for cost in costs.values():
        assert set(cost["latency_ms"]) == {"1", "8"}
        assert all(milliseconds > 0 for milliseconds in cost["latency_ms"].values())


def test_latencies_are_medians_of_calls_in_turn(ui, monkeypatch):
    assert costs.BATCHES == (1, 32)
    monkeypatch.setattr(costs, "BATCHES", (1, 2))
    clock, called = [0.0], []
    took = {"a": iter([9.0, 9.0, 1.0, 2.0, 3.0, 5.0, 2.0, 8.0]), "b": iter([9.0] * 8)}  # the first round warms up

    def call(name, inputs):
        called.append((name, len(inputs)))
        clock[0] += next(took[name])

    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    found = costs._in_turn({name: (partial(call, name), np.zeros(4)) for name in "ab"}, ui)
    assert called == [("a", 1), ("a", 2), ("b", 1), ("b", 2)] * 4
    assert found == {"a": {1: 2000.0, 2: 5000.0}, "b": {1: 9000.0, 2: 9000.0}}


def test_networks_of_other_features_are_refused_and_named(again, ui):
    (path,) = again.finetune.glob("*/run.json")
    run = json.loads(path.read_text())
    run["settings"]["provenance"]["fingerprint"] = "0123456789abcdef"
    rewrite(path, run)
    before = snapshot(again.report)
    now = again.settings.fingerprint.key
    why = "it was trained on features of fingerprint 0123456789abcdef; the current ones are"
    with pytest.raises(VggftError, match=rf"{path.parent.name}: {why} {now}\. Train"):
        command.run(again, CompareOptions(cv=2), ui)
    run["settings"]["provenance"] |= {"fingerprint": now, "manifest": "0" * 64}
    rewrite(path, run)
    why = r"images, labels or splits have changed since it was trained\. Train again: vggft finetune"
    with pytest.raises(VggftError, match=f"{path.parent.name}: {why}"):
        command.run(again, CompareOptions(cv=2), ui)
    assert snapshot(again.report) == before
    with pytest.raises(VggftError, match="--cv 1: expected a whole number, 2 or more"):
        command.run(again, CompareOptions(cv=1), ui)


@pytest.mark.slow
def test_heads_alone_are_compared_and_the_best_one_predicts(again, ui, capsys):
    shutil.rmtree(again.finetune)
    found = command.run(again, CompareOptions(), Ui())
    assert (found["outcome"], found["contrast"]["tuned"]) == ("heads_only", None)
    assert found["use"] == models.load(again).heads[0].name
    tune, reserve = found["offers"]
    assert tune.endswith(f"and compare again: vggft finetune -w {again.root}")
    assert "--test 0.2" in reserve
    assert found["use"] in found["probes"]["methods"]
    assert tune in capsys.readouterr().out
    choice = selection.choose(again, None)
    assert (choice.model.name, choice.reason) == (found["use"], "recommended by vggft compare")
    recompute(again.report, found)
    with pytest.raises(VggftError, match=r"no tuned network here yet\. Run first: vggft finetune"):
        command.run(again, CompareOptions(cv=2), ui)


@pytest.mark.slow
def test_images_that_are_gone_leave_gaps_in_the_page(again, capsys):
    settings = json.loads((again.root / "workspace.json").read_text())
    rewrite(again.root / "workspace.json", {**settings, "data": str(again.root / "nowhere")})
    found = command.run(again, CompareOptions(), Ui())
    note = f"{found['images']} images without a thumbnail: the files are missing, have changed or cannot be read."
    assert note in (again.report / "report.html").read_text()
    assert f"warning: {note}" in " ".join(capsys.readouterr().err.split())


def test_a_picture_of_the_network_that_was_damaged_is_left_out_of_the_page(again, ui):
    page = again.report / "report.html"
    assert "data:image/svg+xml" in page.read_text()
    (drawn,) = again.finetune.glob("*/network.svg")
    drawn.write_bytes(b"\xff\xfe")
    command.run(again, CompareOptions(quick=True), ui)
    assert "data:image/svg+xml" not in page.read_text()


@pytest.mark.slow
def test_a_missing_image_takes_no_heat_maps_from_the_others(tmp_path, ui):
    """The cache has the top layer alone, so heat maps are computed from the files."""
    data, work = drawings(tmp_path / "data", 8, "bugs", "flowers"), tmp_path / "work"
    for command_line in (
        ("featurize", data, "--layers", TINY.top),
        ("head", "--head", "logistic-avg", "--head", "avg-linear", "--epochs", 2, "--cv", 0),
    ):
        done = vggft(*command_line, "-w", work)
        assert done.returncode == 0, done.stderr
    workspace = Workspace(work, TINY)
    samples = workspace.dataset.accepted("validate")
    (data / samples[0].path).unlink()
    command.run(workspace, CompareOptions(), ui)
    text = (workspace.report / "report.html").read_text()
    shown = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))
    (heat,) = shown["heat"]
    lacking = {path for path, encoded in zip(shown["paths"], heat["maps"], strict=True) if not encoded}
    assert lacking == {samples[0].path}
    assert len(shown["paths"]) == len(samples) > 1


@pytest.mark.slow
def test_the_page_is_opened_on_request(again, ui, monkeypatch, capsys):
    asked = []
    for opened, said in ((True, ""), (False, "no browser could be started")):
        monkeypatch.setattr("webbrowser.open", lambda address, opened=opened: asked.append(address) or opened)
        command.run(again, CompareOptions(quick=True, open=True), ui)
        assert asked.pop() == (again.report / "report.html").absolute().as_uri()
        assert said in capsys.readouterr().err
    command.run(again, CompareOptions(quick=True), ui)
    assert asked == []


def test_stale_networks_leave_the_heads_to_be_compared(again, capsys):
    (path,) = again.finetune.glob("*/run.json")
    run = json.loads(path.read_text())
    run["settings"]["provenance"]["manifest"] = "0" * 64
    rewrite(path, run)
    found = command.run(again, CompareOptions(quick=True), Ui())
    assert found["outcome"] == "heads_only"
    assert found["stale"] == [path.parent.name]
    why = f"every tuned network here is stale, made from an earlier state of the data. {path.parent.name}: images"
    assert why in " ".join(capsys.readouterr().err.split())


def test_a_damaged_head_is_left_out_and_a_stale_one_named(again, ui, capsys):
    damaged, stale = again.heads / "avg-256", again.heads / "max-linear" / "head.json"
    (damaged / "weights.npz").write_bytes(b"")
    head = json.loads(stale.read_text())
    head["provenance"]["manifest"] = "0" * 64
    rewrite(stale, head)
    found = command.run(again, CompareOptions(quick=True), Ui())
    out, said = capsys.readouterr()
    assert out.startswith(f"{found['recommendation']}\n")  # before any table
    (left_out,) = found["left_out"]
    assert f"left out: {left_out}" in said
    assert "avg-256" in left_out
    assert "stale, not compared (made from an earlier state of the data): max-linear" in said
    assert found["stale"] == ["max-linear"]
    assert {"avg-256", "max-linear"}.isdisjoint(method["name"] for method in found["methods"])
    assert found["probes"] is None
    assert not (again.report / "probes.csv").exists()  # that of the comparison before does not belong to this one
    recompute(again.report, found)


def test_a_report_folder_that_cannot_be_is_said_before_anything_is_computed(again, ui, monkeypatch):
    shutil.rmtree(again.report)
    again.report.write_text("mine")
    monkeypatch.setattr(inference, "from_cache", None)
    with pytest.raises(VggftError, match=r"report: cannot be written \(File exists\)"):
        command.run(again, CompareOptions(), ui)
    assert again.report.read_text() == "mine"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:300] + bytes([b[300] ^ 255]) + b[301:], lambda b: b[: len(b) // 2], lambda b: b""]
)
def test_a_damaged_network_is_said_to_be_one(again, damage):
    (model,) = models.load(again).networks
    model.network.write_bytes(damage(model.network.read_bytes()))
    with pytest.raises(
        VggftError, match=r"network\.keras: not the file that training wrote. Tune again: vggft finetune"
    ):
        model.predictor()
    unknown = replace(model, run=replace(model.run, network_sha256=""))  # a run from before it was kept
    with pytest.raises(VggftError, match=r"network\.keras: Keras cannot load it .* Tune again: vggft finetune"):
        unknown.predictor()


def test_a_network_that_kept_epoch_0_is_named_after_the_head_it_started_from(again, ui):
    present = models.load(again)
    best, other = present.heads[:2]
    path = present.networks[0].folder / "run.json"
    run = {**json.loads(path.read_text()), "best_epoch": 0, "start": other.name, "start_digest": other.head.digest}
    rewrite(path, run)
    found = command.run(again, CompareOptions(quick=True), ui)
    assert (found["outcome"], found["use"]) == ("unchanged", best.name)
    assert f"no epoch of fine-tuning was better than {other.name}, the head that " in found["recommendation"]
    assert f"which the leaderboard ranks below {best.name};" in found["recommendation"]


@pytest.mark.slow
def test_a_network_that_was_exchanged_is_left_out(again, ui, capsys):
    """It loads and predicts, but it is not the network that run.json names."""
    (run,) = again.finetune.iterdir()
    other = again.finetune / "other"
    shutil.copytree(run, other)
    kept = json.loads((other / "run.json").read_text())
    kept["settings"]["name"] = "other"
    rewrite(other / "run.json", kept)
    network = load_keras().saving.load_model(other / "network.keras", compile=False)
    network.save(other / "network.keras")
    found = command.run(again, CompareOptions(quick=True), ui)
    assert "other" not in {method["name"] for method in found["methods"]}
    (said,) = found["left_out"]
    assert re.fullmatch(r"other: .*other/network\.keras: not the file that training wrote.*", said)
    assert f"left out: {said}" in capsys.readouterr().err


@pytest.mark.slow
def test_the_test_split_is_used_where_there_is_one_and_near_duplicates_belong_together(again, ui, monkeypatch):
    """Half of the training images become the test split, all that was made is taken along; one of them is there twice."""
    dataset = again.dataset
    test = {sample.path for sample in dataset.accepted("train")[::2]}
    samples = [replace(s, split="test") if s.path in test else s for s in dataset.samples]
    twin = next(s for s in samples if s.split == "test")
    again.settle(
        replace(dataset, samples=(*samples, replace(twin, path="birds/twin.png", group="twin"))), again.settings, ()
    )
    identity = again.dataset.identity
    monkeypatch.setattr(costs, "BATCHES", (1, 2))  # latency of 32 pictures takes a while
    for path in (*again.heads.glob("*/head.json"), *again.finetune.glob("*/run.json")):
        kept = json.loads(path.read_text())
        (kept["provenance"] if "provenance" in kept else kept["settings"]["provenance"])["manifest"] = identity
        rewrite(path, kept)
    found = command.run(again, CompareOptions(), ui)
    assert found["measured_on"] == found["probes"]["measured_on"] == "test"
    with (again.report / "predictions.csv").open(newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == test | {"birds/twin.png"}
    assert found["images"] == len(test) + 1
    assert found["groups"] <= len(test)  # the twins have one vector of features
    assert found["no_p_value"] is None
    assert all(0 < one["p_value"] <= 1 for one in found["pairs"])
    assert found["offers"] == []
    recompute(again.report, found)


def test_a_network_that_needs_files_which_are_gone_is_left_out(again, trained, ui, capsys):
    (run,) = again.finetune.iterdir()
    shutil.copytree(run, again.finetune / "whole")
    path = again.finetune / "whole" / "run.json"
    kept = json.loads(path.read_text())
    kept["settings"] |= {"name": "whole", "unfreeze": "all", "split_point": None}
    rewrite(path, kept)
    settings = json.loads((again.root / "workspace.json").read_text())
    rewrite(again.root / "workspace.json", {**settings, "data": str(again.root / "nowhere")})
    found = command.run(again, CompareOptions(quick=True), ui)
    assert found["contrast"]["tuned"] == run.name
    assert "left out: whole: " in capsys.readouterr().err
    assert "whole" not in {method["name"] for method in found["methods"]}


@pytest.mark.parametrize(("kept", "use"), [((True, False), "net"), ((True, True), "head")])
def test_folds_say_whether_fine_tuning_was_of_use_and_not_the_run_of_the_workspace(again, ui, monkeypatch, kept, use):
    class Folds:
        network = models.load(again).networks[0]

        def __init__(self, *arguments):
            pass

        def predict(self, elsewhere):
            merged = replace(predictions(2.0), source="folds", fold=np.arange(300) % 2)
            return merged, [FoldResult({}, "head", "net", unchanged, 1.0) for unchanged in kept]

    monkeypatch.setattr(command, "NestedCrossValidation", Folds)
    found = command.run(again, CompareOptions(cv=2, quick=True), ui)
    names = found["contrast"]["in_workspace"]
    assert found["use"] == names[use]
    assert ("in no fold was an epoch" in found["recommendation"]) == (use == "head")
    way = {"net": "the net", "head": "the head"}[use]  # ways of selecting are compared, not what they select here
    assert found["recommendation"].startswith(f"Use {way}, here {names[use]}: ")
    assert [one["unchanged"] for one in found["folds"]] == list(kept)


def test_advice_can_be_run_as_it_is_printed(again, trained):
    settings = json.loads((again.root / "workspace.json").read_text())
    rewrite(again.root / "workspace.json", {**settings, "data": "/a folder/data"})
    found = models.load(again)
    folded, reserve = command._more_evidence(again, found)
    assert folded.command == f"vggft compare --cv 5 -w {again.root}"
    assert folded.seconds > 0
    assert reserve.command == f"vggft featurize '/a folder/data' --test 0.2 -w {again.root}"
    few = [s for k in ("birds", "fruit") for s in again.dataset.samples if s.label == k and s.split == "train"][:1]
    again.__dict__["dataset"] = replace(again.dataset, samples=tuple(few))
    assert [type(advice) for advice in command._more_evidence(again, found)] == [ReserveTest]
