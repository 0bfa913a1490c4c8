"""`vggft head`: which heads are trained, kept, reused and refused, also after a kill."""

import csv
import json
import signal
import time

import numpy as np
import pytest
from conftest import drawings, once, refused, rewrite, snapshot, strict_json, vggft
from processes import start, wait_until
from tiny import TINY

from featurize.errors import VggftError
from heads import store
from heads.specs import DEFAULTS, DenseSpec, LogisticSpec
from vggft import Experiment
from vggft.steps import finetune, head
from vggft.steps.options import FinetuneOptions
from vggft.workspace.workspace import Workspace

GRID = '[mine]\npooling = "max"\nunits = [0, 8]\nlearning_rate = 0.01\n'
AGAIN = ("--head", "logistic-max", "--head", "max-256", "--head", "flatten-256-classic")


def head_json(work, *options):
    """Run `vggft head --json`; return what it prints."""
    done = vggft("head", "-w", work, *options, "--json")
    assert done.returncode in (0, 3), done.stderr
    return strict_json(done.stdout)


def measured(found):
    """Everything that a run measured, except times."""
    return {h["name"]: {key: value for key, value in h.items() if key != "seconds"} for h in found["heads"]}


@pytest.fixture(scope="module")
def twice(featurized, tmp_path_factory):
    """A workspace with all heads, and what the command said: first, at once again, and made to train again."""
    import shutil

    def build(base):
        work = base / "work"
        shutil.copytree(featurized[0] / "work", work)
        runs = [head_json(work, "--epochs", "4"), head_json(work, "--epochs", "4")]
        process = start("head", *AGAIN, "-w", work, "--epochs", "4", "--retrain", "--json")  # and another process
        out, err = process.communicate()
        assert process.returncode == 0, err
        return [*runs, strict_json(out)]

    return once(tmp_path_factory, "heads", build)


@pytest.mark.slow
def test_the_default_population(twice):
    _, (first, *_) = twice
    assert first["heads"][0]["name"] == first["best"]
    assert {h["name"] for h in first["heads"]} == {spec.name for spec in DEFAULTS} == set(first["trained"])
    assert first["ranked_by"] == "folds"  # with so few validation images
    assert set(first["seconds"]) == {"reading", "logistic", "pooled", "flatten"}
    losses = [h["folds"]["log_loss"] for h in first["heads"]]
    assert losses == sorted(losses)
    assert 0 < first["order"]["first"] < 1
    assert set(first["order"]["alike"]) <= {h["name"] for h in first["heads"][1:]}
    for h in first["heads"]:
        assert {"precision", "recall", "f1"} == set(h["validation"]["macro"]) == set(h["validation"]["weighted"])
        assert [c["n"] for c in h["validation"]["per_class"]] == [2, 2]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_metrics_and_nothing_is_trained_twice(twice):
    _, (first, again, retrained) = twice
    assert again["trained"] == []
    assert measured(again) == measured(first)
    assert set(retrained["trained"]) == set(AGAIN[1::2])
    assert measured(retrained) == measured(first)


@pytest.mark.slow
def test_what_is_kept_of_each_head(twice):
    base, (*_, last) = twice
    workspace = Workspace(base / "work", TINY)
    for h in last["heads"]:
        folder = workspace.heads / h["name"]
        described = json.loads((folder / "head.json").read_text())
        made = described["provenance"]
        assert described["classes"] == ["bugs", "flowers"]
        assert made["manifest"] == workspace.dataset.identity
        assert made["fingerprint"] == workspace.settings.fingerprint.key
        assert {"python", "keras", "backend", "scikit-learn"} <= set(made)
        assert {"name", "pooling", "seed"} <= set(made["recipe"])
        assert json.loads((folder / "metrics.json").read_text()) == h
        with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
            learnt = [array for name, array in arrays.items() if name not in ("mean", "scale")]
            assert sum(array.size for array in learnt) == h["parameters"]
        with (folder / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        if h["kind"] == "dense":
            assert made["recipe"]["epochs"] == 4
            assert min(float(row["val_log_loss"]) for row in rows) == pytest.approx(
                h["validation"]["log_loss"], rel=1e-3
            )
        else:
            assert [float(row["strength"]) for row in rows][:3] == [1e-5, 3.16e-5, 1e-4]
            assert (folder / "pipeline.joblib").exists()
        with (folder / "predictions.csv").open(newline="") as file:
            assert {row["split"] for row in csv.DictReader(file)} == {"validate"}
        with (folder / "out_of_fold.csv").open(newline="") as file:
            assert {row["split"]: row["fold"] == "" for row in csv.DictReader(file)} == {
                "train": False,
                "validate": True,
            }
    with workspace.leaderboard.open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [h["name"] for h in last["heads"]]


@pytest.mark.slow
def test_heads_by_name_and_by_grid_join_the_leaderboard(copied):
    work = copied / "work"
    one = head_json(work, "--head", "max-linear", "--head", "logistic-avg", "--epochs", "3", "--cv", "0")
    assert set(one["trained"]) == {"max-linear", "logistic-avg"}
    (copied / "grid.toml").write_text(GRID)
    grid = head_json(work, "--grid", copied / "grid.toml", "--epochs", "3", "--seeds", "2", "--cv", "0")
    assert set(grid["trained"]) == {"mine-units0", "mine-units8", "flatten-256-classic"}  # the classic is always there
    assert {h["name"] for h in grid["heads"]} == {*one["trained"], *grid["trained"]}
    seeds = {h["name"]: h["seeds"]["seeds"] for h in grid["heads"] if "seeds" in h}
    assert seeds == dict.fromkeys(grid["trained"], 2)
    assert grid["ranked_by"] == "validation"
    (copied / "work" / "heads" / "notes.txt").write_text("mine")
    chosen = head_json(work, "--grid", copied / "grid.toml", "--head", "mine-units0", "--epochs", "2", "--cv", "0")
    assert chosen["trained"] == ["mine-units0"]  # other epochs, so another head: replaced by name
    assert {h["name"] for h in chosen["heads"]} == {h["name"] for h in grid["heads"]}
    assert (copied / "work" / "heads" / "notes.txt").exists()


def test_a_head_cannot_take_the_name_of_a_tuned_network(again, ui):
    run = next(again.finetune.glob("*/run.json")).parent.name
    (again.root / "grid.toml").write_text(GRID.replace("mine", run).replace("[0, 8]", "8"))
    said = refused("head", "--grid", again.root / "grid.toml", "-w", again.root)
    assert f"head {run}: a tuned network has that name" in said
    assert not (again.heads / run).exists()
    with pytest.raises(
        VggftError, match="--name max-64-l2: a head has that name"
    ):  # of a default head, not trained yet
        finetune.run(again, FinetuneOptions(name="max-64-l2"), ui)


def test_bad_input_changes_nothing(copied):
    work = copied / "work"
    (copied / "grid.toml").write_text(GRID + "droput = 0.5\n")
    (work / "lock").touch()
    before = snapshot(work)
    for options, words in (
        (["--epochs", "0"], ["--epochs 0"]),
        (["--patience", "0"], ["--patience 0"]),
        (["--seeds", "0"], ["--seeds 0"]),
        (["--cv", "1"], ["--cv 1"]),
        (["--cv", "-3"], ["--cv -3"]),
        (["--class-weight", "none"], ["--class-weight 'none'", "balanced"]),
        (["--lr", "0.01", "--head", "logistic-max"], ["--lr 0.01: only dense heads", "logistic-max", "Leave out --lr"]),
        (["--head", "max-25"], ["--head max-25", "max-256", "logistic-max"]),
        (["--grid", copied / "grid.toml"], ["[mine]", "'droput'", "'dropout'"]),
        (["--grid", copied / "none.toml"], ["none.toml"]),
        (["--cv", "13"], ["--cv 13", "here they have "]),
        (["--seed", str(2**32 - 1), "--seeds", "3"], ["--seeds 3", "4294967295"]),
    ):
        said = refused("head", "-w", work, *options)
        for word in words:
            assert word in said
        assert snapshot(work) == before
    (work / "heads").mkdir()
    (work / "heads" / "max-256").write_text("a file of mine")
    assert "max-256: not a folder, but the head is saved in a folder of this name" in refused("head", "-w", work)
    assert [p.name for p in (work / "heads").iterdir()] == ["max-256"]
    (work / "heads" / "max-256").unlink()
    (work / "heads" / "max-256").symlink_to(copied / "elsewhere")
    assert "max-256: not a folder, but the head is saved in a folder of this name" in refused("head", "-w", work)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_stopped_run_keeps_what_it_finished_and_goes_on(copied, how):
    work = copied / "work"
    names = ("logistic-avg", "logistic-max", "logistic-avgmax", "avg-256", "flatten-256-classic")
    picked = [*(word for name in names for word in ("--head", name)), "--cv", "0"]
    process = start("head", *picked, "-w", work, "--epochs", "100000", "--patience", "100000")
    wait_until((work / "heads" / "logistic-avgmax" / "head.json").exists, process)
    time.sleep(1)  # into the dense heads, which would take days
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Finished heads are kept" in said
    kept = {result.head.name: result for result in store.load_all(work / "heads")}
    assert set(kept) == {"logistic-avg", "logistic-max", "logistic-avgmax"}
    before = {name: (work / "heads" / name / "weights.npz").read_bytes() for name in kept}
    found = head_json(work, *picked, "--epochs", "3")
    assert set(found["trained"]) == set(names) - set(kept)
    assert {name: (work / "heads" / name / "weights.npz").read_bytes() for name in kept} == before
    assert not list((work / "heads").glob(".*"))


def test_cross_validation_and_suspects(copied):
    work, picked = copied / "work", ("--epochs", "4", "--head", "logistic-max", "--head", "max-256")
    folded = head_json(work, *picked, "--cv", "2")
    assert folded["ranked_by"] == "folds"
    assert all(h["folds"]["n"] == 24 for h in folded["heads"])
    assert folded["heads"][0]["name"] == min(folded["heads"], key=lambda h: h["folds"]["log_loss"])["name"]
    for h in folded["heads"]:
        with (work / "heads" / h["name"] / "out_of_fold.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 24
        assert {row["fold"] for row in rows} == {"1", "2", ""}
        assert [row["fold"] == "" for row in rows] == [row["split"] == "validate" for row in rows]
        right = np.mean([row["label"] == row["predicted"] for row in rows])
        assert right == h["folds"]["accuracy"]
        truth = [float(row[f"p_{row['label']}"]) for row in rows]
        assert -np.mean(np.log(truth)) == pytest.approx(h["folds"]["log_loss"])
    again = head_json(work, *picked, "--cv", "2")
    assert again["trained"] == []
    assert measured(again) == measured(folded)
    found = head_json(work, "--suspects")  # what is needed is here: nothing is trained
    assert found["trained"] == []
    assert {h["name"] for h in found["heads"]} == {"logistic-max", "max-256"}
    assert all(set(s) == {"path", "label", "predicted", "score"} for s in found["suspects"])
    assert all(s["label"] != s["predicted"] for s in found["suspects"])
    (work / "heads" / "max-256" / "out_of_fold.csv").write_text("path,label\n")
    assert "damaged" in refused("head", "-w", work, "--suspects")


@pytest.mark.slow
def test_suspects_cross_validate_what_nobody_did(copied):
    work = copied / "work"
    for name in ("logistic-avg", "max-linear"):  # the second time although there is a head that was cross-validated
        done = vggft("head", "--suspects", "--epochs", "2", "--head", name, "-w", work, "--cv", "0", "--json")
        found = strict_json(done.stdout)
        assert found["trained"] == [name]
        assert "--suspects: cross-validating 1 head with 5 folds, about" in done.stderr
        assert f"suspects according to {len(found['suspects_by'])} cross-validated head" in done.stderr
    assert set(found["suspects_by"]) == {"logistic-avg", "max-linear"}
    assert isinstance(found["suspects"], list)


@pytest.mark.slow
def test_batch_size_and_learning_rate_from_both_sides(copied):
    work, names = copied / "work", ("logistic-avg", "max-linear")
    picked = [*(word for name in names for word in ("--head", name)), "--cv", "0"]
    found = head_json(work, *picked, "--lr", "0.01", "--batch-size", "8", "--epochs", "2")
    recipe = json.loads((work / "heads" / "max-linear" / "head.json").read_text())["provenance"]["recipe"]
    assert (recipe["learning_rate"], recipe["batch_size"]) == (0.01, 8)
    again = Experiment(work, TINY).fit_heads(head=names, lr=0.01, batch_size=8, epochs=2, cv=0)
    assert again["trained"] == []  # the same options
    assert again["best"] == found["best"]
    assert head_json(work, *picked, "--batch-size", "8", "--epochs", "2")["trained"] == ["max-linear"]


@pytest.mark.slow
def test_suspects_change_no_ranking(copied):
    """Heads of several plans are cross-validated as they are, and only once; nothing else is trained."""
    work = copied / "work"
    head_json(work, "--epochs", "3", "--head", "max-linear", "--cv", "0")
    before = head_json(work, "--epochs", "2", "--head", "logistic-avg", "--head", "avg-256", "--cv", "0")
    leaderboard = (work / "heads" / "leaderboard.csv").read_bytes()
    digests = {name: (work / "heads" / name / "weights.npz").read_bytes() for name in ("max-linear", "avg-256")}
    done = vggft("head", "--suspects", "-w", work, "--json")
    found = strict_json(done.stdout)
    assert "cross-validating 3 heads with 5 folds, about" in done.stderr
    assert (found["ranked_by"], found["trained"]) == ("validation", [])
    assert measured(found) == measured(before)
    assert (work / "heads" / "leaderboard.csv").read_bytes() == leaderboard
    assert {name: (work / "heads" / name / "weights.npz").read_bytes() for name in digests} == digests
    done = vggft("head", "--suspects", "-w", work, "--json")
    again = strict_json(done.stdout)
    assert "cross-validating" not in done.stderr
    assert again["suspects"] == found["suspects"]
    assert set(again["suspects_by"]) == {"max-linear", "logistic-avg", "avg-256"}


@pytest.mark.slow
def test_a_head_that_fails_is_reported_and_the_others_are_kept(copied, monkeypatch):
    import typer

    from vggft.cli.run import PARTIAL, execute

    monkeypatch.setattr(head, "DEFAULTS", (DenseSpec("hot", "avg", 8, 1e30), LogisticSpec("cool", "avg")))
    found = head_json(copied / "work", "--epochs", "2")
    assert [failed["name"] for failed in found["failed"]] == ["hot"]
    assert "lower learning rate" in found["failed"][0]["reason"]
    assert found["trained"] == ["cool"]
    with pytest.raises(typer.Exit) as left:
        execute(lambda ui: found, json=False, quiet=True, debug=False)
    assert left.value.exit_code == PARTIAL


@pytest.mark.slow
def test_what_others_keep_beside_the_heads_stays(copied):
    import shutil

    work = copied / "work"
    head_json(work, "--head", "logistic-avg")
    shutil.copytree(work / "heads" / "logistic-avg", work / "heads" / "older")
    for name in (".notes.tmp", ".mine.replaced"):
        (work / "heads" / name).mkdir()
    done = vggft("head", "-w", work, "--head", "logistic-avg")
    assert "a copy of the head 'logistic-avg'" in done.stderr
    assert "kept: 1 head trained with these options before" in done.stderr
    assert {".notes.tmp", ".mine.replaced", "older"} <= {p.name for p in (work / "heads").iterdir()}


def test_leaks_are_reported(tmp_path):
    import shutil

    from PIL import Image

    drawings(tmp_path / "data" / "train", 6, "bugs", "flowers")
    drawings(tmp_path / "data" / "validate", 10, "bugs", "flowers")
    for path in (tmp_path / "data" / "validate").glob("*/*"):
        if (tmp_path / "data" / "train" / path.parent.name / path.name).exists():
            path.unlink()
    copy = next((tmp_path / "data" / "train" / "bugs").iterdir())
    shutil.copy(copy, tmp_path / "data" / "train" / "flowers" / "copy.png")
    near = sorted((tmp_path / "data" / "train" / "flowers").iterdir())[0]
    Image.open(near).save(tmp_path / "data" / "validate" / "flowers" / "again.png", compress_level=1)
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 0
    found = head_json(tmp_path / "work", "--head", "logistic-avg")
    kinds = {leak["kind"]: leak for leak in found["leaks"]}
    assert set(kinds["same-bytes-two-labels"]["paths"]) == {f"train/bugs/{copy.name}", "train/flowers/copy.png"}
    pair = next(leak for leak in found["leaks"] if leak["kind"] == "near-duplicate")  # the most similar one
    assert pair["paths"] == [f"train/flowers/{near.name}", "validate/flowers/again.png"]
    assert pair["similarity"] > 0.999
    done = vggft("head", "-w", tmp_path / "work", "--head", "logistic-avg")
    assert "with a near-duplicate in another split" in done.stderr


@pytest.mark.slow
def test_one_image_in_a_class_and_a_class_that_validation_lacks(tmp_path):
    drawings(tmp_path / "data" / "train", 8, "bugs", "flowers", "fruit")
    for path in sorted((tmp_path / "data" / "train" / "fruit").iterdir())[1:]:
        path.unlink()
    drawings(tmp_path / "data" / "validate", 12, "bugs", "flowers")
    for path in (tmp_path / "data" / "validate").glob("*/*"):
        if (tmp_path / "data" / "train" / path.parent.name / path.name).exists():
            path.unlink()
    done = vggft("featurize", tmp_path / "data", "-w", tmp_path / "work")
    assert done.returncode == 0, done.stderr
    picked = [word for name in ("logistic-max", "avgmax-256") for word in ("--head", name)]
    more = ("--epochs", "2", "--cv", "2", "--class-weight", "balanced", "--suspects")
    found = head_json(tmp_path / "work", *picked, *more)
    assert len(found["heads"]) == 2
    for h in found["heads"]:
        assert h["validation"]["auc"] is None
        assert "1 of 3 classes" in h["validation"]["auc_reason"]
        assert [c["n"] for c in h["validation"]["per_class"]] == [4, 4, 0]
        assert [c["n"] for c in h["folds"]["per_class"]] == [
            12,
            12,
            0,
        ]  # who predicts that image has not seen its class


@pytest.mark.slow
def test_perturbed_test_images_change_nothing(tmp_path):
    """The same experiment twice, the second time with the classes of its test folder exchanged."""
    found = []
    for name, places in (("one", ("bugs", "flowers")), ("two", ("flowers", "bugs"))):
        data, work = tmp_path / name / "data", tmp_path / name / "work"
        drawings(data / "train", 12, "bugs", "flowers")
        for label, place in zip(("bugs", "flowers"), places, strict=True):
            own = sorted((data / "train" / label).iterdir())
            for split, paths, to in (("validate", own[6:9], label), ("test", own[9:], place)):
                (data / split / to).mkdir(parents=True)
                for path in paths:
                    path.rename(data / split / to / path.name)
        assert vggft("featurize", data, "-w", work).returncode == 0
        assert Workspace(work, TINY).dataset.split_counts == {"train": 12, "validate": 6, "test": 6}
        found.append(measured(head_json(work, "--epochs", "3", "--head", "logistic-max", "--head", "max-256")))
    assert found[0] == found[1]


def test_features_of_another_fingerprint_are_not_used(copied):
    work = ["-w", copied / "work"]
    head_json(copied / "work", "--head", "logistic-avg")
    settings = json.loads((copied / "work" / "workspace.json").read_text())
    settings["fingerprint"]["preprocess"] = "raw"
    rewrite(copied / "work" / "workspace.json", settings)
    assert "Run: vggft featurize" in refused("head", *work)
    with_raw = refused("finetune", *work)
    assert "stale" in with_raw
