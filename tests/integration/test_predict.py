"""`vggft predict`: its inputs, its three output formats, the unsure band, and memory."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from conftest import paint, refused, rewrite, strict_json
from processes import command
from tiny import TINY

from featurize.errors import VggftError
from featurize.pixels import images
from heads import predictions
from heads.predictions import Predictions
from vggft.prediction import inference, models, selection
from vggft.prediction.model import Model
from vggft.prediction.scoring import PixelScorer
from vggft.steps import compare, predict
from vggft.steps.options import CompareOptions, PredictOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def green(pictures):
    """Say fruit with the probability that the green channel is of 255: `paint` decides it."""
    p = pictures[:, 0, 0, 1:2] / 255
    return np.concatenate([1 - p, p], axis=1)


@pytest.fixture
def fake(trained, monkeypatch):
    """The trained workspace with a model that needs no network, and an unsure band below 0.75."""
    p = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    monkeypatch.setattr(inference, "from_pixels", lambda model, workspace: PixelScorer(green, 4))
    kept = Predictions([], np.array([1, 1, 1]), p)
    monkeypatch.setattr(Model, "validation_predictions", lambda self: kept)
    return trained[0]


@contextmanager
def programs(capfd):
    """Speak to programs; put file descriptor 1 back."""
    kept = os.dup(1)
    try:
        yield Ui(json=True)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def as_json(workspace, options, capfd):
    with programs(capfd) as ui:
        ui.result(predict.run(workspace, options, ui))
    return strict_json(capfd.readouterr().out)


def listed(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.fixture
def painted(tmp_path):
    """Pictures that are fruit with probability 1, 0.8, 0.6 and 0.2."""
    return [paint(tmp_path / f"{g}.png", (0, g, 0)) for g in (255, 204, 153, 51)]


def test_a_list_on_standard_input(fake, painted, tmp_path, monkeypatch, capfd):
    paint(tmp_path / "folder" / "inner" / "c.png", (0, 255, 0))
    paint(tmp_path / "folder" / "b.png", (0, 0, 0))
    names = [b"gone.png", b"", b"nul\0", b"folder\r", b"caf\xe9.png"]
    shutil.copy(painted[0], os.fsencode(tmp_path) + b"/caf\xe9.png")
    listed(monkeypatch, b"\n".join(os.fsencode(tmp_path) + b"/" + name if name else name for name in names))
    found = as_json(fake, PredictOptions([painted[3], predict.inputs.STDIN]), capfd)
    assert [p["path"] for p in found["predictions"]] == [
        str(painted[3]),
        *(str(tmp_path / "folder" / name) for name in ("b.png", "inner/c.png")),
        str(tmp_path / r"caf\xe9.png"),
    ]
    assert [(r["path"], r["reason"].split(":")[0]) for r in found["rejected"]] == [
        (str(tmp_path / "gone.png"), "cannot be read"),
        (str(tmp_path / "nul\0"), "cannot be read"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_in_another_encoding_or_unicode_form(fake, painted, tmp_path, monkeypatch, capfd, encoding):
    names = [tmp_path / "b.png", tmp_path / "cafe\u0301.png"]
    for name in names:
        shutil.copy(painted[0], name)
    text = f"{names[0]}\r\n{tmp_path}/caf\u00e9.png\r\n"  # the file has another form of é
    listed(monkeypatch, text.encode(encoding))
    found = as_json(fake, PredictOptions([predict.inputs.STDIN]), capfd)
    assert [p["path"] for p in found["predictions"]] == [str(name) for name in names]


def test_notes_in_a_folder_are_passed_over(fake, painted, tmp_path, capfd):
    paint(tmp_path / "folder" / "b.png", (0, 0, 0))
    (tmp_path / "folder" / "b.txt").write_text("0 0.5 0.5 1 1")
    found = predict.run(fake, PredictOptions([tmp_path / "folder"]), Ui())
    assert found["rejected"] == 0
    assert "ignored beside the images: 1 file (.txt)" in capfd.readouterr().err


def test_what_is_named_is_looked_for_before_anything_runs(fake, painted, tmp_path, monkeypatch, ui):
    monkeypatch.setattr(inference, "from_pixels", None)
    with pytest.raises(VggftError, match="nowhere: no such file or folder"):
        predict.run(fake, PredictOptions([painted[0], tmp_path / "nowhere"]), ui)
    with pytest.raises(VggftError, match=r"--top 3: expected 1 to 2, the number of classes \(birds, fruit\)"):
        predict.run(fake, PredictOptions(painted, top=3), ui)
    with pytest.raises(VggftError, match="no model 'nope' here"):
        predict.run(fake, PredictOptions(painted, "nope"), ui)


def test_no_files_at_all(fake, tmp_path, monkeypatch, ui):
    (tmp_path / ".hidden").touch()
    listed(monkeypatch, b"\n\n")
    with pytest.raises(VggftError, match="standard input: no files there"):
        predict.run(fake, PredictOptions([tmp_path, predict.inputs.STDIN]), ui)


def test_csv_or_json(fake, painted, capfd):
    with programs(capfd) as ui, pytest.raises(VggftError, match="--csv with --json: standard output holds one of them"):
        predict.run(fake, PredictOptions(painted, csv=True), ui)
    with pytest.raises(VggftError, match="--csv with --json-lines"):
        predict.run(fake, PredictOptions(painted, csv=True, json_lines=True), Ui())


def test_lines_for_people(fake, painted, capfd):
    predict.run(fake, PredictOptions(painted), Ui())
    out, err = capfd.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["fruit", "1.0000", str(painted[0])],
        ["fruit", "0.8000", str(painted[1])],
        ["fruit", "0.6000", "?", str(painted[2])],
        ["birds", "0.8000", str(painted[3])],
    ]
    assert (
        "predictions with a score below 0.7500 are marked as unsure (?): accuracy is 100.0% on the 2 of 3 validation"
        in err
    )
    predict.run(fake, PredictOptions(painted[:1]), Ui(quiet=True))
    assert capfd.readouterr().out.split() == ["fruit", "1.0000", str(painted[0])]
    predict.run(fake, PredictOptions(painted[2:3], top=2), Ui())
    assert capfd.readouterr().out.split() == ["fruit", "0.6000", "birds", "0.4000", "?", str(painted[2])]


def test_rows_as_they_come(fake, painted, tmp_path, monkeypatch, capfd):
    odd = [paint(tmp_path / name, (0, 255, 0)) for name in ('a,"b.png', "line\nbreak.png")]
    (tmp_path / "text.txt").write_text("no picture")
    monkeypatch.setattr(
        inference, "from_pixels", lambda model, workspace: os.write(1, b"noise\n") and PixelScorer(green, 4)
    )
    done = predict.run(fake, PredictOptions([*painted, *odd, tmp_path / "text.txt"], top=2, csv=True), Ui())
    out, err = capfd.readouterr()
    rows = list(csv.reader(io.StringIO(out)))
    assert rows[0] == ["path", "label", "score", "unsure", "label_2", "score_2"]
    assert rows[1:4] == [
        [str(painted[0]), "fruit", "1.0", "false", "birds", "0.0"],
        [str(painted[1]), "fruit", "0.8", "false", "birds", str(1 - 0.8)],
        [str(painted[2]), "fruit", "0.6", "true", "birds", "0.4"],
    ]
    assert [row[0] for row in rows[5:]] == [str(path) for path in odd]
    assert done["rejected"] == 1
    assert "text.txt: not a picture" in err
    assert "noise" in err
    os.write(1, b"standard output is back\n")
    assert capfd.readouterr().out == "standard output is back\n"


def test_the_object_for_programs(fake, painted, tmp_path, capfd):
    (tmp_path / "text.txt").write_text("no picture")
    found = as_json(fake, PredictOptions([*painted, tmp_path / "text.txt"], top=2), capfd)
    assert found["unsure_below"] == pytest.approx(0.75)
    assert found["unsure_band"] == {
        "right_at_least": 0.95,
        "threshold": pytest.approx(0.75),
        "images": 3,
        "sure": 2,
        "accuracy": 1.0,
    }
    assert [p["unsure"] for p in found["predictions"]] == [False, False, True, False]
    assert found["predictions"][3] == {
        "path": str(painted[3]),
        "label": "birds",
        "score": 0.8,
        "unsure": False,
        "top": [{"label": "birds", "score": 0.8}, {"label": "fruit", "score": 0.2}],
        "probabilities": {"birds": 0.8, "fruit": 0.2},
    }
    assert [list(r) for r in found["rejected"]] == [["path", "reason"]]
    alone = as_json(fake, PredictOptions([tmp_path / "text.txt"]), capfd)
    assert (alone["predictions"], len(alone["rejected"])) == ([], 1)


def test_an_object_a_line(fake, painted, tmp_path, monkeypatch, capfd):
    shutil.copy(painted[0], os.fsencode(tmp_path) + b"/caf\xe9.png")
    (tmp_path / "text.txt").write_text("no picture")
    files = [*painted, tmp_path / "text.txt", tmp_path / os.fsdecode(b"caf\xe9.png")]
    monkeypatch.setattr(
        inference, "from_pixels", lambda model, workspace: os.write(1, b"noise\n") and PixelScorer(green, 4)
    )
    done = predict.run(fake, PredictOptions(files, top=2, json_lines=True), Ui())
    rows = [strict_json(line) for line in capfd.readouterr().out.splitlines()]
    assert done["rejected"] == 1
    assert [list(row) for row in rows if "reason" in row] == [["path", "reason"]]
    assert [row["path"] for row in rows] == [*map(str, files[:5]), str(tmp_path / r"caf\xe9.png")]
    whole = as_json(fake, PredictOptions(files, top=2), capfd)
    assert [row for row in rows if "label" in row] == whole["predictions"]
    assert [row for row in rows if "reason" in row] == whole["rejected"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "csv", "json_lines"])
def test_memory_does_not_grow_with_the_number_of_files(form, fake, tmp_path, monkeypatch, capfd):
    """What is left is the names of one listing, 70 bytes a file; a prediction that is kept takes over 500, a reject 250."""
    choice = selection.choose(fake, None)
    # Reading heads takes more than all that follows.
    monkeypatch.setattr(selection, "choose", lambda *arguments: choice)
    monkeypatch.setattr(predict, "decoder", lambda fingerprint: _tiny)
    for n in (100, 2000):
        (tmp_path / str(n)).mkdir()
        for i in range(n):
            (tmp_path / str(n) / f"{i:06}.png").write_bytes(b"%d" % (i % 2))

    def peak(n):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        options = PredictOptions([tmp_path / str(n)], csv=form == "csv", json_lines=form == "json_lines")
        assert predict.run(fake, options, Ui())["rejected"] == n / 2
        used = tracemalloc.get_traced_memory()[1] - before
        out = capfd.readouterr().out  # empties what pytest has captured
        assert len(out.splitlines()) == {"text": n / 2, "csv": n / 2 + 1, "json_lines": n}[form]
        return used

    peak(2000)  # what is imported, and what rich remembers of some thousand strings
    tracemalloc.start()
    try:
        few, many = peak(100), min(peak(2000), peak(2000))  # once something else in this process may have its turn
    finally:
        tracemalloc.stop()
    print(form, few, many, (many - few) / 1900)
    assert (many - few) / 1900 < 150


def _tiny(data):
    if data == b"1":
        raise images.Unreadable("no picture")
    return np.zeros((2, 2, 3), np.uint8)


@pytest.fixture
def copied(trained, tmp_path):
    """The trained workspace without its features and its network, which are large."""
    shutil.copytree(trained[0].root, tmp_path / "work", ignore=shutil.ignore_patterns("cache", "network.keras"))
    return Workspace(tmp_path / "work", TINY)


def test_what_predicts_is_what_compare_recommends_as_long_as_nothing_else_is_there(copied):
    def because():
        choice = selection.choose(copied, None)
        return choice.model.name, choice.reason

    path = copied.report / selection.REPORT
    report = json.loads(path.read_text())
    found = models.load(copied)
    assert because() == (report["use"], "recommended by vggft compare")
    worst = found.heads[-1].name
    rewrite(path, {**report, "use": worst})
    assert because() == (worst, "recommended by vggft compare")
    assert selection.choose(copied, found.heads[0].name).model.name == found.heads[0].name
    best = (found.best.name, "lowest validation log-loss; run vggft compare for a recommendation")
    other_head = {
        **report["contrast"],
        "in_workspace": {report["contrast"]["head"]: worst},
    }  # ranked by folds since then
    fewer = dict(list(report["validation_log_loss"].items())[1:])
    retrained = {**report["validation_log_loss"], worst: 0.5}
    elsewhere = {**report["provenance"], "manifest": "0" * 64}
    for other in (
        {**report, "use": "gone"},
        {**report, "use": worst, "contrast": other_head},
        {**report, "use": worst, "validation_log_loss": fewer},
        {**report, "use": worst, "validation_log_loss": retrained},
        {**report, "use": worst, "provenance": elsewhere},
        {},
        [],
    ):
        rewrite(path, other)
        assert because() == best
    path.write_text("{")
    with pytest.raises(VggftError, match=r"compare\.json: damaged"):
        because()
    damage = []
    assert selection.choose(copied, None, damage.append).model.name == best[0]
    assert "damaged" in str(damage[0])
    path.unlink()
    assert because() == best


def restated(workspace, **changes):
    """Record another provenance in every model, as if it was trained in another state of the workspace."""
    for path in (*workspace.heads.glob("*/head.json"), *workspace.finetune.glob("*/run.json")):
        stored = json.loads(path.read_text())
        (stored["provenance"] if path.name == "head.json" else stored["settings"]["provenance"]).update(changes)
        rewrite(path, stored)


def test_a_stale_model_predicts_and_says_so(copied, painted, monkeypatch, capsys):
    monkeypatch.setattr(inference, "from_pixels", lambda model, workspace: PixelScorer(green, 4))
    fresh = selection.choose(copied, None)
    assert fresh.age == ""
    ranked_best = models.load(copied).best.name
    restated(copied, manifest="0" * 64)
    report = copied.report / selection.REPORT
    stored = json.loads(report.read_text())
    stored["provenance"]["manifest"] = "0" * 64
    rewrite(report, stored)
    stale = selection.choose(copied, None)
    assert (stale.model.name, stale.reason) == (fresh.model.name, "recommended by vggft compare")
    assert stale.age.startswith(
        f"{stale.model.name} is stale: images, labels or splits have changed since it was trained"
    )
    report.unlink()
    best = selection.choose(copied, None)
    assert (best.model.name, best.reason[:27]) == (ranked_best, "lowest validation log-loss;")
    for name in ("max-linear", next(copied.finetune.iterdir()).name):
        done = predict.run(copied, PredictOptions(painted, name), Ui(quiet=True))
        assert (done["model"], done["stale"]) == (name, True)
        assert f"warning: {name} is stale: " in capsys.readouterr().err
    again = f"vggft head --head max-linear -w {copied.root}"
    assert selection.choose(copied, "max-linear").age.endswith(f"To train it again: {again}")
    with pytest.raises(VggftError, match="every head here is stale"):
        compare.run(copied, CompareOptions(), Ui(quiet=True))


@pytest.mark.parametrize("name", [None, "max-linear"])
def test_a_model_of_other_features_or_classes_does_not_predict(name, copied):
    restated(copied, fingerprint="0123456789abcdef")
    with pytest.raises(
        VggftError, match=r"stale.*it was trained on features of fingerprint 0123456789abcdef; the current"
    ):
        selection.choose(copied, name)
    restated(copied, fingerprint=copied.settings.fingerprint.key, manifest="0" * 64)
    settings = json.loads((copied.root / "workspace.json").read_text())
    settings["classes"] = ["birds", "bugs", "fruit"]
    rewrite(copied.root / "workspace.json", settings)
    with pytest.raises(
        VggftError, match=r"stale.*its classes are birds, fruit; those of the data are birds, bugs, fruit"
    ):
        selection.choose(Workspace(copied.root, TINY), name)


def test_stale_models_of_several_states(copied):
    """The state that was trained on last predicts; models of different states were validated on different images."""
    restated(copied, manifest="0" * 64)
    for record in (*copied.heads.glob("*/head.json"), *copied.finetune.glob("*/run.json")):
        os.utime(record, (1, 1))
    worst = models.load(copied).earlier().heads[-1]
    path = worst.folder / "head.json"
    stored = json.loads(path.read_text())
    stored["provenance"]["manifest"] = "1" * 64
    rewrite(path, stored)
    os.utime(path, (2, 2))
    for folder in copied.heads.iterdir():  # as when a note is written there
        os.utime(folder, (3, 3) if folder.name == "max-linear" else (1, 1))
    assert selection.choose(copied, None).model.name == worst.name
    assert selection.choose(copied, "max-linear").model.name == "max-linear"


def test_a_damaged_head_does_not_stop_prediction(copied, painted, monkeypatch, capsys):
    monkeypatch.setattr(inference, "from_pixels", lambda model, workspace: PixelScorer(green, 4))
    use = selection.choose(copied, None).model.name
    damaged = next(head.name for head in models.load(copied).heads if head.name != use)
    (copied.heads / damaged / "weights.npz").write_bytes(b"")
    with pytest.raises(VggftError, match=damaged):
        selection.choose(copied, None)
    done = predict.run(copied, PredictOptions(painted[:1]), Ui(quiet=True))
    said = capsys.readouterr()
    assert done["model"] == selection.choose(copied, None, lambda error: None).model.name
    assert str(painted[0]) in said.out
    assert "left out: " in said.err
    assert damaged in said.err


def test_validation_predictions_that_cannot_be_used(copied, painted, monkeypatch, capfd):
    monkeypatch.setattr(inference, "from_pixels", lambda model, workspace: PixelScorer(green, 4))
    path = copied.heads / "avg-256" / predictions.FILE
    lines = path.read_text().splitlines()
    first = lines[1].rsplit(",", 2)[0]
    other = "not the predictions that the validation metrics of avg-256 come from"
    damaged = {
        "\n".join(lines[:3]).rsplit(",", 1)[0]: "missing or damaged",
        "\n".join([*lines[:-1], lines[-1].rsplit(",", 1)[0] + ",nan"]): "missing or damaged",
        "\n".join([lines[0], f"{first},1.5,-0.5", *lines[2:]]): "missing or damaged",
        path.read_text().replace(",validate,birds,", ",validate,bats,"): "missing or damaged",
        lines[0]: "missing or damaged",
        None: "missing or damaged",
        "\n".join(lines[:-1]): other,
        (copied.heads / "max-linear" / predictions.FILE).read_text(): other,
    }
    for text, said in damaged.items():
        path.unlink(missing_ok=True)
        if text is not None:
            rewrite(path, text)
        with programs(capfd) as ui:
            ui.result(predict.run(copied, PredictOptions(painted[:1], "avg-256"), ui))
        out, err = capfd.readouterr()
        found = strict_json(out)
        assert (found["unsure_below"], found["unsure_band"]) == (None, None), text
        assert [p["unsure"] for p in found["predictions"]] == [None], text
        assert f"avg-256/predictions.csv: {said}" in err, text
        assert "Without them no prediction can be marked as unsure" in err, text
    predict.run(copied, PredictOptions(painted[:1], "avg-256", csv=True), Ui())
    assert list(csv.reader(io.StringIO(capfd.readouterr().out)))[1][3] == ""


def test_every_model_keeps_its_validation_predictions(trained):
    workspace, _, results = trained
    found = models.load(workspace)
    samples = {s.digest: s for s in workspace.dataset.accepted("validate")}
    headers = set()
    for model in found.fresh:
        kept = model.validation_predictions()
        assert np.mean(kept.probabilities.argmax(axis=1) == kept.targets) == model.validation.accuracy
        assert {s.digest for s in kept.samples} == set(samples)
        assert all((s.path, s.label) == (samples[s.digest].path, samples[s.digest].label) for s in kept.samples)
        headers.add((model.folder / predictions.FILE).read_text().splitlines()[0])
    assert headers == {"path,digest,split,label,predicted,fold,p_birds,p_fruit"}
    tuned = found.named(results["finetune"]["name"])
    kept = tuned.validation_predictions()
    p = inference.from_cache([tuned], workspace, workspace.cache(), kept.samples)[tuned.name]
    assert np.abs(p - kept.probabilities).max() < 1e-5
    with pytest.raises(VggftError, match="not the predictions that"):
        fewer = replace(tuned.run, validation=replace(tuned.validation, n=7))
        replace(tuned, run=fewer).validation_predictions()


def test_a_network_predicts_the_same_from_pixels_as_from_the_cache(trained):
    """Against plain Keras with the saved network; the frozen part runs on the engine, rounded as in the cache."""
    import keras

    workspace, data, results = trained
    network = models.load(workspace).named(results["finetune"]["name"])
    samples = workspace.dataset.accepted("validate")
    pictures = np.stack([images.decode_resized((data / s.path).read_bytes(), 32) for s in samples])
    found = inference.from_pixels(network, workspace)(pictures)
    assert (
        np.abs(found - inference.from_cache([network], workspace, workspace.cache(), samples)[network.name]).max()
        < 1e-6
    )
    plain = keras.saving.load_model(network.network).predict(pictures.astype("float32"), verbose=0)[:, 0]
    assert np.abs(found[:, 1] - plain).max() < 1e-3
    unsplit = replace(network, run=replace(network.run, settings=replace(network.run.settings, split_point=None)))
    whole = inference.from_pixels(unsplit, workspace, lambda: _Recorder({}))(pictures)  # no engine: nothing is frozen
    assert np.abs(whole[:, 1] - plain).max() < 1e-5

    rows = workspace.cache().read("block2_pool", [s.digest for s in samples])
    engine = _Recorder({"block2_pool": rows + np.float32(2**-13) * rows, TINY.top: np.zeros((6, 4, 4, 16), np.float32)})
    assert np.array_equal(
        inference.from_pixels(network, workspace, lambda: engine)(pictures), found
    )  # less than float16 tells apart
    assert engine.asked == ["block2_pool"]
    head = models.load(workspace).heads[0]
    scorer = inference.from_pixels(head, workspace, lambda: engine)
    scorer(pictures)
    assert engine.asked == ["block2_pool", TINY.top]
    assert scorer.batch_size == 7


class _Recorder:
    """An engine with prepared outputs."""

    name, batch_size, trial, in_flight = "recorder", 7, 1, 1

    def __init__(self, outputs):
        self.outputs, self.asked = outputs, []

    def __call__(self, inputs, layers, below=None):
        (layer,) = layers
        self.asked.append(layer)
        return [np.asarray(self.outputs[layer], np.float32)]


@pytest.mark.slow
def test_a_process_that_reads_a_list_and_writes_rows(trained, tmp_path):
    workspace, data, _ = trained
    names = [os.fsencode(path) for path in sorted((data / "fruit").iterdir())[:2]]
    odd = os.fsencode(tmp_path) + b"/caf\xe9.png"
    shutil.copy(names[0], odd)
    words = command("predict", "-", "--csv", "--model", "logistic-max", "-w", workspace.root)
    done = subprocess.run(words, input=b"\n".join([*names, odd, b"gone"]), capture_output=True, check=False)
    assert done.returncode == 3, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == b"path,label,score,unsure"
    assert [line.split(b",")[0] for line in lines[1:]] == [*names, odd]
    assert {line.split(b",")[1] for line in lines[1:]} <= {b"birds", b"fruit"}
    assert lines[3].split(b",")[1:] == lines[1].split(b",")[1:]  # the same bytes under another name
    assert b"rejected gone: cannot be read: No such file or directory" in done.stderr


def test_an_unset_variable_is_not_the_current_folder(trained, tmp_path):
    message = refused("predict", "", "-w", trained[0].root, cwd=tmp_path)
    assert "an empty path, perhaps from an unset variable" in message
    assert "an empty path, perhaps from an unset variable" in refused(
        "featurize", "", "-w", tmp_path / "new", cwd=tmp_path
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["--csv", "--quiet"])
def test_a_reader_that_has_seen_enough(trained, form):
    workspace, data, _ = trained
    words = command("predict", data, form, "--model", "logistic-max", "-w", workspace.root)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "Exception ignored" not in said
