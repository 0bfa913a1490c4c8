"""`--lr auto`: which images take part, what is kept and shown, after an interruption and in folds."""

import json
import shutil

import numpy as np
import pytest
from conftest import drawings
from tiny import TINY

from finetune import rates
from finetune.plan import Plan
from vggft.prediction import models
from vggft.steps import featurize, finetune, head, tuning
from vggft.steps.fold_trainers import StepTrainers
from vggft.steps.options import FeaturizeOptions, FinetuneOptions, HeadOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

PLAN = Plan(epochs=10, batch_size=1, patience=1)  # of 48 images: just enough steps for a search


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """60 drawings with a dense head."""
    base, ui = tmp_path_factory.mktemp("rates"), Ui(quiet=True)
    workspace = Workspace(base / "work", TINY)
    featurize.run(workspace, FeaturizeOptions(drawings(base / "data", 30, "birds", "fruit")), ui)
    head.run(workspace, HeadOptions.of(epochs=4, head="max-64-l2-dropout"), ui)
    return base


@pytest.fixture
def work(ready, tmp_path):
    shutil.copytree(ready / "work", tmp_path / "work")
    return Workspace(tmp_path / "work", TINY)


def search_of(found):
    return {key: value for key, value in found["search"].items() if key != "seconds"}


def test_a_run_finds_its_rate_and_keeps_how(work, ui, capsys):
    found = finetune.run(work, FinetuneOptions(plan=PLAN), Ui())
    search, n = found["search"], len(work.dataset.accepted("train"))
    assert search["trained"] + search["held_back"] == n
    assert n // 8 <= search["held_back"] <= n // 3
    assert found["learning_rate"] in [trial["learning_rate"] for trial in search["trials"]]
    folder = work.finetune / found["name"]
    kept = json.loads((folder / "run.json").read_text())["settings"]
    assert kept["plan"]["learning_rate"] == found["learning_rate"]
    assert kept["search"] == json.loads(json.dumps(search))
    assert (folder / rates.PICTURE).read_bytes().startswith(b"\x89PNG")
    said = " ".join(capsys.readouterr().err.split())
    assert f"learning rate {found['learning_rate']:g}, of 3e-05, 0.0001, 0.0003, 0.001, 0.003: log-loss " in said
    (model,) = models.load(work).networks
    assert model.run.settings.wanted == PLAN


def test_no_validation_image_takes_part(work, ui, monkeypatch):
    """Neither in the search nor in the head that it starts from, which has not seen what is held back, either."""
    seen, again, take = [], tuning.starts.without_others, rates.search

    def spy_on_head(workspace, cache, one, samples, ui):
        seen.append({sample.digest for sample in samples})
        return again(workspace, cache, one, samples, ui)

    def spy_on_search(program, training, held_back, *others):
        digests = [sample.digest for sample in tuning._samples(work.dataset, "train")]
        seen.append({digests[i] for i in training.rows.positions})
        seen.append({digests[i] for i in held_back.rows.positions})
        return take(program, training, held_back, *others)

    monkeypatch.setattr(tuning.starts, "without_others", spy_on_head)
    monkeypatch.setattr(rates, "search", spy_on_search)
    finetune.run(work, FinetuneOptions(plan=PLAN), ui)
    of_head, trained, held_back = seen
    assert of_head == trained
    assert not trained & held_back
    assert trained | held_back == {sample.digest for sample in work.dataset.accepted("train")}


def test_interrupted_in_the_search_and_after_it(work, ui, monkeypatch):
    undisturbed = finetune.run(work, FinetuneOptions(plan=PLAN, name="undisturbed"), ui)
    search, train = rates.search, tuning.finetune.train.train

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(rates, "search", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(work, FinetuneOptions(plan=PLAN, name="disturbed"), ui)
    monkeypatch.setattr(rates, "search", search)
    monkeypatch.setattr(tuning.finetune.train, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune.run(work, FinetuneOptions(resume=True), ui)
    monkeypatch.setattr(tuning.finetune.train, "train", train)
    monkeypatch.setattr(rates, "search", stop)  # it is not searched for again
    resumed = finetune.run(work, FinetuneOptions(resume=True), ui)
    assert resumed["name"] == "disturbed"
    assert search_of(resumed) == search_of(undisturbed)
    assert resumed["validation"] == undisturbed["validation"]
    curves = [np.loadtxt(work.finetune / n / "history.csv", str, delimiter=",") for n in ("undisturbed", "disturbed")]
    assert np.array_equal(curves[0][:, :-1], curves[1][:, :-1])  # all but the seconds


def test_a_rate_that_was_given_is_taken_and_few_images_get_the_usual_one(work, ui):
    found = finetune.run(work, FinetuneOptions.of(lr=1e-3, epochs=1), ui)
    assert (found["learning_rate"], found["search"]) == (1e-3, None)
    assert found["name"].endswith("-lr0.001-epochs1")
    found = finetune.run(work, FinetuneOptions.of(epochs=1), ui)
    assert (found["learning_rate"], found["search"]) == (1e-4, None)


def test_each_fold_finds_its_own_rate(work, ui):
    """The rate of the workspace was chosen by images that a fold holds out."""
    finetune.run(work, FinetuneOptions(plan=PLAN, name="net"), ui)
    (model,) = models.load(work).networks
    shutil.rmtree(work.finetune / "net")
    StepTrainers().tune(work, model.run, ui)
    (again,) = models.load(work).networks
    assert again.run.settings.search.trials == model.run.settings.search.trials
    assert again.run.settings.search.seconds != model.run.settings.search.seconds
