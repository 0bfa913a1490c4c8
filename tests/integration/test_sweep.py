"""`vggft finetune --sweep`: combinations, ranking, sharing, failures, and doing it again."""

import json
import random
import shutil
import subprocess
import time

import pytest
from conftest import drawings, once, refused, snapshot, vggft
from PIL import Image
from processes import start
from tiny import TINY

from featurize.errors import VggftError
from finetune import store
from vggft.prediction import models
from vggft.steps import featurize, finetune, head, sweep, training_inputs, tuning
from vggft.steps.options import FeaturizeOptions, FinetuneOptions, HeadOptions
from vggft.steps.training_inputs import Inputs
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered", "untraced")

FIXED = {"epochs": 1, "batch_size": 5}
TWO = "unfreeze=block3,block2 lr=1e-3,2e-3"


@pytest.fixture(scope="module")
def headed(tmp_path_factory):
    """A workspace of 14 drawings with two heads; tests that change it copy it first."""

    def build(base):
        work, ui = Workspace(base / "work", TINY), Ui(quiet=True)
        featurize.run(work, FeaturizeOptions(drawings(base / "data", 7, "bugs", "flowers")), ui)
        head.run(work, HeadOptions.of(epochs=5, head=("logistic-max", "avg-256"), cv=0), ui)

    return once(tmp_path_factory, "sweep-headed", build)[0]


@pytest.fixture(scope="module")
def swept(headed, tmp_path_factory):
    """The same after a sweep; what it returned; and the split points whose inputs were read."""

    def build(base):
        shutil.copytree(headed, base, dirs_exist_ok=True)
        read, examples = [], training_inputs._examples
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                training_inputs,
                "_examples",
                lambda job, ui: (read.append(job.settings.split_point), examples(job, ui))[1],
            )
            found = finetune.run(Workspace(base / "work", TINY), FinetuneOptions.of(sweep=TWO, **FIXED), Ui(quiet=True))
        return found, read

    base, (found, read) = once(tmp_path_factory, "swept", build)
    return base, found, read


@pytest.fixture
def here(headed, tmp_path):
    shutil.copytree(headed, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def again(swept, tmp_path):
    """A copy of the workspace after the sweep."""
    shutil.copytree(swept[0], tmp_path / "again")
    return Workspace(tmp_path / "again" / "work", TINY)


def as_json(found):
    return json.loads(json.dumps(found))


def results(work):
    """What a sweep leaves: of each run its settings, learning curve and predictions, without times."""
    found = {}
    for run in store.load_all(work.finetune):
        curve = [(epoch.epoch, epoch.loss, epoch.val_log_loss, epoch.val_accuracy) for epoch in run.history]
        predictions = (work.finetune / run.name / "predictions.csv").read_bytes()
        found[run.name] = (run.settings.unfreeze, run.settings.plan, curve, predictions)
    return found


@pytest.mark.slow
def test_every_combination_is_trained_and_ranked(swept, again, ui):
    _, found, read = swept
    names = {f"{block}-logistic-max{lr}-batch5-epochs1" for block in ("block3", "block2") for lr in ("", "-lr0.002")}
    assert {run["name"] for run in found["sweep"]} == names == {run.name for run in models.load_runs(again)}
    losses = [run["validation"]["log_loss"] for run in found["sweep"]]
    assert losses == sorted(losses)
    assert found["best"] == found["sweep"][0]["name"] == models.load(again).networks[0].name
    assert found["failed"] == found["kept"] == []
    with Image.open(again.report / "sweep.png") as picture:
        assert picture.size == (1100, 660)
    assert sorted(read) == ["block1_pool", "block2_pool"]  # once for two runs
    alone = finetune.run(again, FinetuneOptions.of(unfreeze="block2", lr=2e-3, **FIXED), ui)
    (same,) = [run for run in found["sweep"] if run["name"] == "block2-logistic-max-lr0.002-batch5-epochs1"]
    assert same["validation"] == as_json(alone["validation"])


@pytest.mark.parametrize(
    ("combinations", "fixed", "rates"),
    [
        ("optimizer=sgd,adam", {}, [("sgd", 1e-3), ("adam", 1e-4)]),
        ("optimizer=sgd,adam", {"lr": 5e-4}, [("sgd", 5e-4), ("adam", 5e-4)]),
        ("lr=1e-3,0.001 seed=1", {}, [("sgd", 1e-3)]),
    ],
)
def test_each_combination_means_what_its_options_mean_alone(combinations, fixed, rates):
    options = FinetuneOptions.of(sweep=combinations, **fixed)
    assert [(one.plan.optimizer, one.plan.learning_rate) for one in options.combinations] == rates
    assert not any(one.combinations or one.sweep for one in options.combinations)


@pytest.mark.slow
def test_again_it_trains_nothing_and_a_longer_one_only_what_is_new(swept, again, ui):
    _, first, _ = swept
    before = snapshot(again.finetune)
    found = finetune.run(again, FinetuneOptions.of(sweep=TWO, **FIXED), ui)
    folder = str(again.finetune)
    again_reported = as_json(found["sweep"])
    assert [{**run, "network": ""} for run in again_reported] == [{**run, "network": ""} for run in first["sweep"]]
    assert all(run["network"].startswith(folder) for run in found["sweep"])
    assert sorted(found["kept"]) == sorted(run["name"] for run in first["sweep"])
    assert snapshot(again.finetune) == before
    head.run(again, HeadOptions.of(epochs=5, head=("logistic-avg",), cv=0), ui)
    longer = finetune.run(again, FinetuneOptions.of(sweep="from=logistic-avg,logistic-max", **FIXED), ui)
    assert longer["kept"] == ["block3-logistic-max-batch5-epochs1"]  # from another head it is another run
    assert len(longer["sweep"]) == 2


def test_runs_with_the_same_inputs_follow_one_another(here, ui, monkeypatch):
    work, order = Workspace(here / "work", TINY), []

    def stop(workspace, training, inputs, ui):
        order.append(Inputs.needed_by(training))
        raise VggftError("not now")

    monkeypatch.setattr(sweep, "_train", stop)
    with pytest.raises(VggftError, match="not now"):
        finetune.run(work, FinetuneOptions.of(sweep="lr=1e-3,2e-3 batch-size=5,6 unfreeze=block3,block2", epochs=1), ui)
    assert len(order) == 8
    assert order == sorted(order)
    assert len(set(order)) == 4


@pytest.mark.slow
def test_combinations_that_mean_the_same_are_trained_once(again, ui):
    same = "from=logistic,logistic-max precision=auto,float32"
    found = finetune.run(again, FinetuneOptions.of(sweep=same, **FIXED), ui)
    assert [run["name"] for run in found["sweep"]] == ["block3-logistic-max-batch5-epochs1"]


@pytest.mark.slow
def test_one_that_fails_does_not_stop_the_others(here, ui, monkeypatch):
    work, prepare = Workspace(here / "work", TINY), tuning.prepare

    def fails(job, ui, inputs):
        if job.settings.plan.learning_rate == 1e-3:
            raise VggftError("no luck")
        if job.settings.plan.learning_rate == 3e-3:
            raise ZeroDivisionError("nor here")
        return prepare(job, ui, inputs)

    monkeypatch.setattr("vggft.steps.new_run.prepare", fails)
    found = finetune.run(work, FinetuneOptions.of(sweep="lr=1e-3,3e-3,2e-3,1e18", **FIXED), ui)
    failed = {entry["name"]: entry["reason"] for entry in found["failed"]}
    assert failed["block3-logistic-max-batch5-epochs1"] == "no luck"
    assert failed["block3-logistic-max-lr0.003-batch5-epochs1"] == "unexpected: ZeroDivisionError: nor here"
    assert "became NaN or infinite at epoch 1" in failed["block3-logistic-max-lr1e18-batch5-epochs1"]
    assert [run["best_epoch"] for run in found["sweep"] if "1e18" in run["name"]] == [0]
    assert len(found["sweep"]) == 2
    with pytest.raises(VggftError, match=r"--sweep: no run could be trained. block3-.*: no luck"):
        finetune.run(work, FinetuneOptions.of(sweep="lr=1e-3,3e-3", **FIXED), ui)


def test_bad_input_changes_nothing(here):
    work = ("-w", here / "work")
    before = snapshot(here)
    cases = {
        ("lr",): "--sweep: 'lr': expected an option and its values, such as lr=1e-3,3e-4",
        ("lr=1,,2",): "--sweep: 'lr=1,,2': expected an option and its values",
        ("learning=1e-3",): "--sweep: unknown option 'learning'. Expected unfreeze, from, recipe, epochs, batch-size",
        ("unfreez=block3",): "--sweep: unknown option 'unfreez'. Did you mean unfreeze?",
        ("name=a,b",): "--sweep: unknown option 'name'",
        ("lr=fast",): "--sweep: --lr 'fast': expected a number, above 0",
        ("lr=1 lr=2",): "--sweep: lr is given twice. List its values together: lr=A,B",
        ("lr=1,2", "--lr", "3"): "--sweep: lr is also given as --lr",
        ("lr=1,2", "--name", "mine"): "--sweep with --name: each run of a sweep has a name of its own",
        ("lr=1,2", "--resume"): "--resume with --sweep: a resumed run keeps its settings",
        ("",): "--sweep '': 0 combinations; expected 1 to 100",
        ("seed=" + ",".join(map(str, range(101))),): "101 combinations; expected 1 to 100",
        ("unfreeze=block3,block9",): "--unfreeze 'block9': unknown layer",
        ("from=best,nobody",): "--from nobody: no such head",
    }
    for (text, *others), said in cases.items():
        assert said in refused("finetune", "--sweep", text, *others, *work), text
        after = snapshot(here)
        after.pop("work/lock", None)
        assert after == {path: content for path, content in before.items() if path != "work/lock"}, text


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_the_undisturbed_one(here, tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", here / "work"
    shutil.copytree(killed, undisturbed)
    command = ["finetune", "--sweep", TWO, "--epochs", "2", "--batch-size", "5"]
    began = time.monotonic()
    assert vggft(*command, "-w", undisturbed).returncode == 0
    seconds = time.monotonic() - began
    rng, kills = random.Random(1), 0
    while True:
        process = start(*command, "-w", killed, light=True)
        try:
            out, err = process.communicate(timeout=seconds * (0.5 * rng.random() + 0.1 * kills))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, (out, err)
        break
    assert kills
    assert results(Workspace(killed, TINY)) == results(Workspace(undisturbed, TINY))
    assert not store.unfinished(killed / "finetune")


@pytest.mark.slow
def test_the_command_prints_the_ranking(again):
    done = vggft("finetune", "--sweep", TWO, "--epochs", "1", "--batch-size", "5", "-w", again.root)
    assert done.returncode == 0, done.stderr
    assert "4 runs on 2 validation images, lowest log-loss first" in done.stdout
    assert "block3-logistic-max-batch5-epochs1" in done.stdout
    assert done.stdout.count("← best") == 1
    assert f"curves: {again.report / 'sweep.png'}" in done.stdout
    assert "kept: 4 runs trained with these settings before" in done.stderr
