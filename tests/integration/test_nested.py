"""Nested cross-validation: no image influences the models that predict it, and a killed comparison resumes."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import once, refused, rewrite, strict_json, vggft
from processes import start, wait_until
from small_compare import recompute
from tiny import TINY

from featurize.errors import VggftError
from finetune import store
from finetune.network import ParityError
from finetune.plan import Plan
from vggft.comparison import fold_files, nested
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.nested import BEST_HEAD, BEST_NETWORK, NestedCrossValidation
from vggft.comparison.report import sentences
from vggft.prediction import models
from vggft.prediction.models import load as methods_load
from vggft.steps import compare, head
from vggft.steps.fold_trainers import StepTrainers
from vggft.steps.options import CompareOptions, HeadOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered", "untraced")

HEADS = ("logistic-max", "max-linear")


def folds_of(workspace, present, number, leave_out, ui, trainers=None):
    return NestedCrossValidation(workspace, present, number, trainers or StepTrainers(), leave_out, ui)


@pytest.fixture(scope="module")
def tuned(featurized, tmp_path_factory):
    """24 drawings with two heads and a network of one epoch."""

    def build(base):
        shutil.copytree(featurized[0] / "work", base / "work")
        names = [argument for name in HEADS for argument in ("--head", name)]
        for arguments in (("head", "--epochs", 5, *names), ("finetune", "--epochs", 1, "--name", "net")):
            done = vggft(*arguments, "-w", base / "work", "--quiet")
            assert done.returncode == 0, done.stderr

    return once(tmp_path_factory, "nested-tuned", build)[0] / "work"


@pytest.fixture(scope="module")
def compared(tuned, tmp_path_factory):
    """The same workspace after an uninterrupted comparison in 2 folds, and its output."""

    def build(base):
        shutil.copytree(tuned, base / "work")
        done = vggft("compare", "--cv", 2, "--quick", "-w", base / "work", "--json")
        assert done.returncode == 0, done.stderr
        assert "2 folds of 24 images: 2 heads and 1 tuned network in each, about " in done.stderr
        assert "fold 1 of 2 in " in done.stderr
        return strict_json(done.stdout)

    base, result = once(tmp_path_factory, "nested-compared", build)
    return base / "work", result


@pytest.mark.slow
def test_every_image_is_predicted_once_and_has_a_p_value(compared):
    work, result = compared
    assert result["measured_on"] == "folds"
    assert result["images"] == 24
    assert [fold["fold"] for fold in result["folds"]] == [1, 2]
    assert all(fold["head"] in HEADS and fold["network"] == "net" for fold in result["folds"])
    assert result["heads_ranked_by"] == "folds"
    assert result["contrast"]["in_workspace"][BEST_NETWORK] == "net"
    assert {method["name"] for method in result["methods"]} == {BEST_HEAD, BEST_NETWORK, "net", *HEADS}
    assert (result["contrast"]["tuned"], result["contrast"]["head"]) == (BEST_NETWORK, BEST_HEAD)
    assert 0 < result["contrast"]["p_value"] <= 1
    assert all(offer.startswith("But out of fold ") for offer in result["offers"])
    assert result["recommendation"].startswith(f"Use the best {'network' if result['use'] == 'net' else 'head'}, here ")
    assert sentences.PROVISOS["folds"] in result["recommendation"]
    assert result["use"] in (*HEADS, "net")
    recompute(work / "report", result)


@pytest.mark.slow
def test_what_is_held_out_has_no_say(tuned, tmp_path, ui):
    """A fold gives the same bits whatever the labels of its held-out images."""
    shutil.copytree(tuned, tmp_path / "work")
    workspace = Workspace(tmp_path / "work", TINY)

    def first_fold(turned):
        folds = folds_of(workspace, models.load(workspace), 2, ui.warn, ui)
        learnt, held = folds.parts[0]
        assert not {folds.groups[i] for i in learnt} & {folds.groups[i] for i in held}
        if turned:
            other = {"bugs": "flowers", "flowers": "bugs"}
            folds.samples = [
                replace(sample, label=other[sample.label]) if i in held else sample
                for i, sample in enumerate(folds.samples)
            ]
        found = folds.train(0)
        shutil.rmtree(folds.folder)
        return found

    as_it_is, turned = first_fold(False), first_fold(True)
    assert (turned.head, turned.network) == (as_it_is.head, as_it_is.network)
    for name, p in as_it_is.probabilities.items():
        assert np.array_equal(turned.probabilities[name], p)


def test_images_of_the_test_split_take_no_part(tuned, tmp_path, ui, monkeypatch):
    shutil.copytree(tuned, tmp_path / "work")
    workspace = Workspace(tmp_path / "work", TINY)
    dataset = workspace.dataset
    moved = {sample.path for sample in dataset.accepted("train")[:3]}
    samples = tuple(replace(s, split="test") if s.path in moved else s for s in dataset.samples)
    workspace.__dict__["dataset"] = replace(dataset, samples=samples)
    folds = folds_of(workspace, models.Models((), (), ()), 3, ui.warn, ui)
    assert moved.isdisjoint(sample.path for sample in folds.samples)
    assert len(folds.samples) == 21


def named(workspace, change):
    """Return the folds after each image was changed."""
    dataset = workspace.dataset
    workspace.__dict__["dataset"] = replace(dataset, samples=tuple(map(change, dataset.samples)))
    quiet = Ui(quiet=True)
    found = folds_of(workspace, models.load(workspace), 2, quiet.warn, quiet)
    return found.folder, [sample.digest for sample in found.samples]


def test_folds_belong_to_contents_and_groups_and_not_to_names(tuned):
    as_it_is = named(Workspace(tuned, TINY), lambda sample: sample)
    renamed = named(Workspace(tuned, TINY), lambda sample: replace(sample, path=f"{sample.digest[::-1]}.png"))
    assert renamed == as_it_is  # in the same order, so that kept rows are those of the same images
    together = named(Workspace(tuned, TINY), lambda sample: replace(sample, group=sample.digest[:1]))
    assert together[0] != as_it_is[0]


def test_folds_belong_to_what_was_trained(tuned, ui):
    workspace = Workspace(tuned, TINY)
    found = models.load(workspace)
    (network,) = found.networks
    settings = network.run.settings
    longer = replace(settings, plan=replace(settings.plan, epochs=2))
    again = replace(found, networks=(replace(network, run=replace(network.run, settings=longer)),))
    fewer = replace(found, heads=found.heads[:1])
    keys = {folds_of(workspace, methods_, 2, ui.warn, ui).folder for methods_ in (found, again, fewer)}
    assert len(keys) == 3


def test_near_duplicates_are_held_out_and_counted_together(tuned, ui):
    """Every image twice, under another name and in a group of its own: the twins have one vector of features."""
    workspace = Workspace(tuned, TINY)
    dataset = workspace.dataset
    twins = [replace(s, path=f"twin-{s.path}", group=f"twin of {s.digest}") for s in dataset.samples]
    workspace.__dict__["dataset"] = replace(dataset, samples=(*dataset.samples, *twins))
    folds = folds_of(workspace, models.load(workspace), 2, ui.warn, ui)
    held = [{folds.samples[i].digest for i in part} for _, part in folds.parts]
    assert held[0].isdisjoint(held[1])
    results = [
        FoldResult({name: np.full((len(part), 2), 0.5) for name in (*HEADS, "net")}, HEADS[k], "net", False, 1.0)
        for k, (_, part) in enumerate(folds.parts)
    ]
    found = folds.merge(results)
    assert found.grouped
    assert len({sample.group for sample in found.samples}) <= 24
    for own in folds.split(0).samples:
        assert own.split == ("test" if own.digest in held[0] else own.split)


@pytest.mark.slow
def test_the_best_of_a_fold_is_that_of_its_validation_images(tuned, tmp_path, ui, monkeypatch):
    shutil.copytree(tuned, tmp_path / "work")
    workspace = Workspace(tmp_path / "work", TINY)
    folds = folds_of(workspace, models.load(workspace), 2, ui.warn, ui)
    loaded = []
    monkeypatch.setattr(nested.models, "load", lambda fold: loaded.append(methods_load(fold)) or loaded[-1])

    def the_other_way_round(chosen, fold, cache, samples):
        """Predict held-out images the better, the worse a model was on validation."""
        right = np.eye(2)[fold.dataset.targets(samples)]
        falling = sorted(chosen, key=lambda model: -model.validation.log_loss)
        return {model.name: 0.5 + (right - 0.5) * 0.9 / (1 + i) for i, model in enumerate(falling)}

    monkeypatch.setattr(nested.inference, "from_cache", the_other_way_round)
    found = folds.train(0)
    (fold,) = loaded
    assert found.head == min(fold.heads, key=lambda model: model.result.folds.log_loss).name
    assert {model.validation.n for model in fold.fresh} == {len(folds.split(0).accepted("validate"))}
    left = {path.name for path in (folds.folder / "fold-1" / "finetune" / "net").iterdir()}
    assert "network.keras" in left
    assert left.isdisjoint(store.PICTURES)  # nobody would see them


@pytest.mark.slow
def test_each_fold_ranks_heads_as_the_workspace_does(tuned, tmp_path, ui, monkeypatch):
    work = tmp_path / "work"
    shutil.copytree(tuned, work)
    assert nested.ranking(models.load(Workspace(work, TINY))) == (5, 0)  # the default with few validation images
    head.run(Workspace(work, TINY), HeadOptions.of(epochs=5, head=HEADS, cv=0, retrain=True), ui)
    before = models.load(Workspace(work, TINY))
    assert nested.ranking(before) == (0, 0)
    head.run(Workspace(work, TINY), HeadOptions.of(epochs=5, head=HEADS, cv=3), ui)
    found = models.load(Workspace(work, TINY))
    assert nested.ranking(found) == (3, 0)
    assert nested.estimate(Workspace(work, TINY), found, 2) > nested.estimate(Workspace(work, TINY), before, 2) > 0
    asked = []

    class trainers:
        def train_heads(fold, plan, specs, ranking, ui):
            asked.append(ranking.folds)

        def tune(fold, run, ui):
            pass

    folds = folds_of(Workspace(work, TINY), found, 2, ui.warn, ui, trainers)
    with pytest.raises(VggftError, match="no network can be tuned"):  # nothing was trained
        folds.train(0)
    assert set(asked) == {3}


def test_folds_of_runs_without_views_have_the_key_of_earlier_versions():
    assert "views" not in nested._described(Plan())
    assert nested._described(Plan(views=2))["views"] == 2


def predictions(work):
    return (work / "report" / "predictions.csv").read_bytes()


@pytest.mark.slow
def test_killed_and_run_again(tuned, compared, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(tuned, work)
    process = start("compare", "--cv", 2, "--quick", "-w", work)
    wait_until(lambda: list(work.glob("report/cv/*/fold-2/heads/*/head.json")), process)
    process.kill()
    process.communicate()
    kept = {path.name: path.stat().st_mtime_ns for path in work.glob("report/cv/*/*.npz")}
    assert list(kept) == ["fold-1.npz"]
    done = vggft("compare", "--cv", 2, "--quick", "-w", work, "--json")
    assert done.returncode == 0, done.stderr
    assert "1 of them finished before" in done.stderr
    after = {path.name: path.stat().st_mtime_ns for path in work.glob("report/cv/*/*.npz")}
    assert after.keys() == {"fold-1.npz", "fold-2.npz"}
    assert after["fold-1.npz"] == kept["fold-1.npz"]
    assert not list(work.glob("report/cv/*/fold-?/"))  # networks of folds are not kept
    assert predictions(work) == predictions(compared[0])
    seconds = [fold["seconds"] for fold in strict_json(done.stdout)["folds"]]
    assert seconds[0] > 0
    assert seconds[1] is None  # nobody knows: it was interrupted
    assert strict_json(done.stdout)["pairs"] == compared[1]["pairs"]


@pytest.mark.slow
def test_folds_that_are_done_are_not_done_again(compared, tmp_path, ui):
    work = tmp_path / "work"
    shutil.copytree(compared[0], work)
    (fold,) = work.glob("report/cv/*/fold-2.npz")
    earlier = fold.parent.parent / fold_files.key("an earlier state")
    earlier.mkdir()
    (earlier / fold_files.ABOUT).write_text("an earlier state")
    (fold.parent.parent / ".DS_Store").touch()  # macOS leaves these everywhere
    fold.with_suffix("").mkdir()  # killed after it was done
    before = predictions(work)
    written = {path.name: path.stat().st_mtime_ns for path in fold.parent.glob("*.npz")}
    compare.run(Workspace(work, TINY), CompareOptions(cv=2, quick=True), ui)
    assert {path.name: path.stat().st_mtime_ns for path in fold.parent.glob("*.npz")} == written
    assert predictions(work) == before
    assert {path.name for path in fold.parent.parent.iterdir()} == {fold.parent.name, ".DS_Store"}
    assert not fold.with_suffix("").exists()
    fold.write_bytes(fold.read_bytes()[:-200])  # damaged: this one, and no other, is done again
    whole = fold.with_name("fold-1.npz")
    with np.load(whole) as stored:
        images, classes = stored["p0"].shape
    assert FoldResult.read(fold, images, classes) is None
    assert FoldResult.read(whole, images, classes) is not None
    assert FoldResult.read(whole, images + 1, classes) is None


def test_runs_that_cannot_be_repeated_are_left_out_before_anything_is_trained(tuned, ui, capsys):
    workspace = Workspace(tuned, TINY)
    found = models.load(workspace)
    (network,) = found.networks
    settings = replace(network.run.settings, name="orphan", start="gone")
    orphan = replace(network, run=replace(network.run, settings=settings))
    folds = folds_of(workspace, replace(found, networks=(orphan, network)), 2, ui.warn, ui)
    assert folds.network.name == "net"
    assert [run.name for run in folds.runs] == ["net"]
    to_train = "To train it: vggft head --head gone --grid FILE"
    assert f"orphan: the head it starts from is missing. {to_train}" in capsys.readouterr().err
    with pytest.raises(VggftError, match="--cv 2: no network of this workspace can be tuned again"):
        folds_of(workspace, replace(found, networks=(orphan,)), 2, ui.warn, ui)


def test_a_network_from_pixels_is_left_out_where_an_image_has_changed(tuned, featurized, tmp_path, ui):
    shutil.copytree(tuned, tmp_path / "work")
    shutil.copytree(featurized[0] / "data", tmp_path / "data")
    path = tmp_path / "work" / "workspace.json"
    rewrite(path, {**json.loads(path.read_text()), "data": str(tmp_path / "data")})
    workspace = Workspace(tmp_path / "work", TINY)
    found = models.load(workspace)
    (network,) = found.networks
    settings = replace(network.run.settings, name="whole", unfreeze="all", split_point=None)
    whole = replace(network, run=replace(network.run, settings=settings))
    found, told = replace(found, networks=(whole, network)), []
    assert [run.name for run in folds_of(workspace, found, 2, told.append, ui).runs] == ["whole", "net"]
    assert told == []
    sample = workspace.dataset.accepted("train")[0]
    with (tmp_path / "data" / sample.path).open("ab") as file:
        file.write(b"more")
    assert [run.name for run in folds_of(workspace, found, 2, told.append, ui).runs] == ["net"]
    assert told == [
        f"whole: it is tuned from pixels, and there are files of 1 image missing or changed (first: {sample.path})"
    ]


def test_what_was_not_trained_in_every_fold_is_left_out(tuned, ui):
    workspace = Workspace(tuned, TINY)
    found = models.load(workspace)
    (network,) = found.networks
    other = replace(network, run=replace(network.run, settings=replace(network.run.settings, name="other")))
    found, told = replace(found, networks=(network, other)), []
    folds = folds_of(workspace, found, 2, told.append, ui)
    names = [[*HEADS, "net", "other"], [*HEADS, "net"]]
    results = [
        FoldResult({name: np.full((len(held), 2), 0.5) for name in own}, HEADS[0], "net", False, 1.0)
        for own, (_, held) in zip(names, folds.parts, strict=True)
    ]
    assert {one.name for one in folds.merge(results).candidates} == {BEST_HEAD, BEST_NETWORK, "net", *HEADS}
    assert told == ["other: it could not be trained in every fold"]


@pytest.mark.slow
def test_a_fold_whose_head_fails_the_parity_gate_is_reported(tuned, tmp_path, ui, capsys):
    class Differs(StepTrainers):
        def tune(self, fold, run, ui):
            raise ParityError("parity gate: network and head differ")

    shutil.copytree(tuned, tmp_path / "work")
    workspace = Workspace(tmp_path / "work", TINY)
    folds = folds_of(workspace, models.load(workspace), 2, ui.warn, ui, Differs())
    with pytest.raises(VggftError, match="fold 1 of 2: no network can be tuned"):
        folds.train(0)
    assert "fold 1: net cannot be tuned: parity gate: network and head differ" in capsys.readouterr().err


def test_too_many_folds(tuned):
    assert "--cv 100: at least two classes need 100 groups" in refused("compare", "--cv", 100, "-w", tuned)
    assert "--cv 1: expected a whole number, 2 or more" in refused("compare", "--cv", 1, "-w", tuned)
