"""`vggft evaluate`: every metric recomputed from its predictions file, unusable folders, images seen in training."""

import csv
import json
import shutil
import threading

import numpy as np
import pytest
from conftest import drawings, paint, strict_json, vggft
from sklearn import metrics
from tiny import TINY

from featurize.errors import VggftError
from heads.metrics import confusion, measure
from vggft.prediction import inference, labelled, models
from vggft.prediction.scoring import PixelScorer
from vggft.steps import evaluate
from vggft.steps.options import EvaluateOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


@pytest.fixture
def work(trained, tmp_path):
    """The trained workspace without its features and its network, which are large."""
    shutil.copytree(trained[0].root, tmp_path / "work", ignore=shutil.ignore_patterns("cache", "network.keras"))
    return Workspace(tmp_path / "work", TINY)


@pytest.fixture
def fake(work, monkeypatch):
    """The same with a model that says fruit with the probability that the green channel is of 255."""

    def score(pictures):
        p = pictures[:, 0, 0, 1:2] / 255
        return np.concatenate([1 - p, p], axis=1)

    monkeypatch.setattr(inference, "from_pixels", lambda model, workspace: PixelScorer(score, 4))
    return work


@pytest.fixture
def folder(tmp_path):
    """Nine birds and eleven fruits, some of which look like the other."""
    for label, greens in (
        ("birds", (10, 20, 30, 40, 50, 60, 100, 180, 220)),
        ("fruit", (250, 240, 230, 220, 210, 200, 190, 140, 110, 30, 254)),
    ):
        for i, g in enumerate(greens):
            paint(tmp_path / "test" / label / f"{i:02}.png", (0, g, 0))
    return tmp_path / "test"


def test_every_number_can_be_recomputed(fake, folder, ui):
    found = evaluate.run(fake, EvaluateOptions(folder), ui)
    with (fake.report / "evaluate-predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "predicted", "p_birds", "p_fruit"]
    assert [row["path"] for row in rows] == [str(path) for path in sorted(folder.rglob("*.png"))]
    assert all(row["label"] in row["path"] for row in rows)
    y = np.array([row["label"] == "fruit" for row in rows])
    p = np.array([float(row["p_fruit"]) for row in rows])
    said = np.array([row["predicted"] == "fruit" for row in rows])
    assert p[-2] == 30 / 255
    assert np.array_equal(said, p > 0.5)
    m = found["metrics"]
    precision, recall, f1, n = metrics.precision_recall_fscore_support(y, said)
    expected = {
        "n": 20,
        "accuracy": metrics.accuracy_score(y, said),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, said),
        "log_loss": metrics.log_loss(y, p),
        "brier": metrics.brier_score_loss(y, p),
        "auc": metrics.roc_auc_score(y, p),
        "average_precision": metrics.average_precision_score(y, p),
    }
    assert {key: m[key] for key in expected} == pytest.approx(expected)
    for c, one in enumerate(m["per_class"]):
        own = {"n": n[c], "precision": precision[c], "recall": recall[c], "f1": f1[c]}
        assert {key: one[key] for key in own} == pytest.approx(own)
    assert found["confusion"] == metrics.confusion_matrix(y, said).tolist() == [[7, 2], [2, 9]]
    low, high = m["accuracy_interval"]
    assert low < 0.8 < high
    assert 0 < m["calibration_error"] < 1
    assert found["seen"] == {"train": 0, "validate": 0, "test": 0}
    mistakes = [
        ("fruit", "09.png", "birds", 225 / 255),
        ("birds", "08.png", "fruit", 220 / 255),
        ("birds", "07.png", "fruit", 180 / 255),
        ("fruit", "08.png", "birds", 145 / 255),
    ]
    assert found["misclassified"] == [
        {"path": str(folder / label / name), "label": label, "predicted": predicted, "score": pytest.approx(score)}
        for label, name, predicted, score in mistakes
    ]
    kept = strict_json((fake.report / "evaluate.json").read_text())
    expected = {key: value for key, value in found.items() if key not in ("report", "predictions")}
    assert kept == json.loads(json.dumps(expected))
    assert (found["report"], found["predictions"]) == (
        str(fake.report / "evaluate.json"),
        str(fake.report / "evaluate-predictions.csv"),
    )


def test_what_a_person_sees(fake, folder, capfd):
    evaluate.run(fake, EvaluateOptions(folder), Ui())
    out, err = capfd.readouterr()
    words = [line.split() for line in out.splitlines()]
    assert ["accuracy", "0.8000"] in words
    assert ["birds", "7", "2"] in words
    assert ["fruit", "2", "9"] in words
    assert any(line[:2] == ["birds", "9"] for line in words)
    assert "optimistic" not in err


def test_misclassified_images_are_named(fake, folder, capfd):
    evaluate.run(fake, EvaluateOptions(folder), Ui())
    out = capfd.readouterr().out
    assert "Misclassified: 4 images, the most confident first" in out
    assert f"{folder}/fruit/09.png: birds (0.8824), labelled fruit\n" in out
    assert "more in" not in out
    for i in range(3):
        paint(folder / "birds" / f"wrong{i}.png", (0, 254, i))
    evaluate.run(fake, EvaluateOptions(folder), Ui())
    out = capfd.readouterr().out
    assert f"2 more in {fake.report / 'evaluate.json'} (misclassified)" in out
    assert "08.png: birds (" not in out
    assert "wrong2.png: fruit (0.9961), labelled birds\n" in out
    for path in [
        *(folder / "birds").glob("wrong*"),
        *(folder / "birds").glob("0[78]*"),
        *(folder / "fruit").glob("0[89]*"),
    ]:
        path.unlink()
    assert evaluate.run(fake, EvaluateOptions(folder), Ui())["misclassified"] == []
    assert "Misclassified" not in capfd.readouterr().out


def test_identical_images_under_different_labels_are_named(fake, folder, capfd):
    shutil.copy(folder / "birds" / "00.png", folder / "birds" / "zz.png")  # twice under one label is no mistake
    assert len(evaluate.run(fake, EvaluateOptions(folder), Ui())["conflicts"]) == 2  # as painted
    assert "2 images under different labels, of which at most one is right (first: " in capfd.readouterr().err
    shutil.copy(folder / "birds" / "00.png", folder / "fruit" / "copy.png")
    conflicts = evaluate.run(fake, EvaluateOptions(folder), Ui())["conflicts"]
    assert len(conflicts) == 3
    assert conflicts[0] == [str(folder / "birds" / "00.png"), str(folder / "fruit" / "copy.png")]  # one of each label
    assert (
        f"3 images under different labels, of which at most one is right (first: {', '.join(conflicts[0])})"
        in capfd.readouterr().err
    )


@pytest.mark.parametrize(("classes", "tables"), [(2, 3), (10, 3), (11, 2), (20, 2), (21, 1)])
def test_tables_that_fit(classes, tables, capfd):
    p, targets = np.eye(classes), np.arange(classes)
    evaluate._show(measure(p, targets), [f"c{i}" for i in range(classes)], confusion(p, targets), Ui())
    out = capfd.readouterr().out
    assert [title in out for title in ("All classes", "Each class", "Confusion")] == [i < tables for i in range(3)]


def test_links_and_names_are_read_as_featurize_reads_them(tmp_path):
    for name in ("caf\u00e9", "fish"):
        paint(tmp_path / "test" / name / "1.png", (0, 0, 0))
    (tmp_path / "test" / "fish" / "all").symlink_to(tmp_path / "test")  # featurize follows no link to a folder above
    (tmp_path / "test" / "fish" / "1.txt").write_text("a note")
    notes = []
    found = labelled.files(tmp_path / "test", ["cafe\u0301", "fish"], notes.append)
    usable = [(label, file.path.relative_to(tmp_path / "test").as_posix()) for label, file in found if not file.reason]
    assert usable == [("cafe\u0301", "caf\u00e9/1.png"), ("fish", "fish/1.png")]
    assert [file.reason for _, file in found if file.reason] == ["a link back to a folder above it"]
    assert [note.name for note in notes] == ["1.txt"]


def test_folders_that_are_none(fake, folder, tmp_path, monkeypatch, ui):
    monkeypatch.setattr(inference, "from_pixels", None)  # nothing is computed
    (tmp_path / "nothing" / "fruit").mkdir(parents=True)
    paint(tmp_path / "loose" / "a.png", (0, 0, 0))
    for path, said in (
        (tmp_path / "nowhere", "found nothing there"),
        (folder / "birds" / "00.png", "found a file there"),
        (tmp_path / "nothing", r"no images\. Expected a folder of images for each class \(birds, fruit\)"),
        (tmp_path / "loose", r"1 file but no class folders.*--labels TABLE.*vggft predict"),
    ):
        with pytest.raises(VggftError, match=said):
            evaluate.run(fake, EvaluateOptions(path), ui)
    shutil.copytree(folder, tmp_path / "data" / "test")
    with pytest.raises(VggftError, match=rf"contains splits \(test\).* vggft evaluate {tmp_path}/data/test"):
        evaluate.run(fake, EvaluateOptions(tmp_path / "data"), ui)
    for split in ("train", "val"):
        shutil.copytree(folder, tmp_path / "data" / split)
    with pytest.raises(
        VggftError, match=rf"contains splits \(test, train, val\).* vggft evaluate {tmp_path}/data/test"
    ):
        evaluate.run(fake, EvaluateOptions(tmp_path / "data"), ui)
    shutil.rmtree(tmp_path / "data" / "test")
    with pytest.raises(
        VggftError, match=f"vggft evaluate {tmp_path}/data/val$"
    ):  # the model has learnt from the other one
        evaluate.run(fake, EvaluateOptions(tmp_path / "data"), ui)
    for strange in ("bats", "test"):  # a class may be called so, but this model knows none
        paint(folder / strange / "a.png", (0, 0, 0))
        with pytest.raises(
            VggftError, match=rf"not classes of the model: {strange}\. Expected folders named birds, fruit\."
        ):
            evaluate.run(fake, EvaluateOptions(folder), ui)
        shutil.rmtree(folder / strange)
    with pytest.raises(VggftError, match="no model 'nope'"):
        evaluate.run(fake, EvaluateOptions(folder, "nope"), ui)
    assert not (fake.report / "evaluate.json").exists()


def test_files_that_are_no_pictures(fake, folder, ui, capfd):
    (folder / "birds" / "03.png").write_text("text")
    found = evaluate.run(fake, EvaluateOptions(folder), ui)
    assert [(r["path"], r["reason"][:13]) for r in found["rejected"]] == [
        (str(folder / "birds" / "03.png"), "not a picture")
    ]
    assert "03.png: not a picture" in capfd.readouterr().err
    assert found["metrics"]["n"] == 19
    assert found["confusion"] == [[6, 2], [2, 9]]
    for path in folder.rglob("*.png"):
        path.write_text("text")
    with pytest.raises(VggftError, match=r"none of its 20 files can be used \(the first"):
        evaluate.run(fake, EvaluateOptions(folder), ui)


def test_classes_without_images(fake, folder, ui):
    shutil.rmtree(folder / "birds")
    found = evaluate.run(fake, EvaluateOptions(folder), ui)
    assert (found["metrics"]["auc"], found["metrics"]["average_precision"]) == (None, None)
    assert found["metrics"]["auc_reason"] == "1 of 2 classes have no image here"
    assert found["confusion"] == [[0, 0], [2, 9]]
    assert found["metrics"]["balanced_accuracy"] == pytest.approx(9 / 11)


def test_it_waits_for_its_turn_only_to_write(fake, folder, monkeypatch):
    free, done = threading.Event(), []
    monkeypatch.setattr(evaluate, "measure", lambda p, targets: done.append("measured") or measure(p, targets))

    def waiting(message):
        done.append("waits")
        free.set()

    other, held = Workspace(fake.root, TINY), threading.Event()

    def hold():
        with other.writing():
            held.set()
            free.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(60)
    evaluate.run(Workspace(fake.root, TINY, waiting), EvaluateOptions(folder), Ui(quiet=True))
    thread.join()
    assert done == ["measured", "waits"]
    assert json.loads((fake.report / "evaluate.json").read_text())["metrics"]["n"] == 20


def test_a_report_that_cannot_be_written_is_said_before_anything_is_predicted(fake, folder, ui, monkeypatch):
    shutil.rmtree(fake.report)
    fake.report.write_text("mine")
    monkeypatch.setattr(inference, "from_pixels", None)
    with pytest.raises(VggftError, match=r"report: cannot be written \(File exists\)"):
        evaluate.run(fake, EvaluateOptions(folder), ui)
    assert fake.report.read_text() == "mine"


def test_images_that_were_learnt_from(trained, work, tmp_path):
    """In a process of its own, with a real head; the numbers are those of the cached features."""
    workspace, data, _ = trained
    shutil.copytree(data, tmp_path / "again")
    drawn = drawings(tmp_path / "more", 18, "birds", "fruit")
    for label in ("birds", "fruit"):
        path = sorted((drawn / label).iterdir())[-1]
        path.rename(tmp_path / "again" / label / f"new-{path.name}")
    (tmp_path / "again" / "fruit" / "text.png").write_text("text")
    done = vggft("evaluate", tmp_path / "again", "--model", "logistic-max", "-w", work.root, "--json")
    assert done.returncode == 3, done.stderr
    found = strict_json(done.stdout)
    assert (found["model"], found["kind"], found["metrics"]["n"]) == ("logistic-max", "logistic", 34)
    assert found["seen"] == {"train": 26, "validate": 6, "test": 0}
    assert "26 are in the training split and 6 in the validation split" in done.stderr
    assert len(found["rejected"]) == 1
    samples = workspace.dataset.accepted()
    model = models.load(workspace).named("logistic-max")
    p = inference.from_cache([model], workspace, workspace.cache(), samples)[model.name]
    expected = {sample.path: own for sample, own in zip(samples, p, strict=True)}
    with (work.report / "evaluate-predictions.csv").open(newline="") as file:
        rows = {row["path"].removeprefix(f"{tmp_path}/again/"): row for row in csv.DictReader(file)}
    assert len(rows) == 34
    for path, own in expected.items():
        assert [float(rows[path][f"p_{name}"]) for name in ("birds", "fruit")] == pytest.approx(own.tolist(), abs=1e-6)


def test_where_nothing_can_be_printed_the_files_are_written(fake, folder, monkeypatch):
    ui = Ui()

    def full(message):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ui, "print", full)
    with pytest.raises(OSError, match="No space"):
        evaluate.run(fake, EvaluateOptions(folder), ui)
    assert json.loads((fake.report / "evaluate.json").read_text())["metrics"]["n"] == 20
    assert len((fake.report / "evaluate-predictions.csv").read_text().splitlines()) == 21
