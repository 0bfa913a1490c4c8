"""`--views`: computed by featurize for training images only, trained on by heads and fine-tuning, and resumed after a kill."""

import json
import shutil

import numpy as np
import pytest
from conftest import drawings, once, refused, snapshot, vggft
from processes import start, wait_until
from tiny import TINY

from featurize.cache import upkeep
from featurize.pixels import views
from finetune import store
from heads import features as head_features
from vggft.prediction import models
from vggft.steps import cache as maintenance
from vggft.steps import compare, featurize, finetune, head
from vggft.steps.options import (
    CompareOptions,
    FeaturizeOptions,
    FinetuneOptions,
    HeadOptions,
    PruneOptions,
    VerifyOptions,
)
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered", "untraced")

HEADS = ("logistic-max", "max-linear")
FAST = {"epochs": 2, "batch_size": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace of 24 drawings with two views of each training image, heads, and a tuned network."""

    def build(base):
        work, ui = Workspace(base / "work", TINY), Ui(quiet=True)
        data = drawings(base / "data", 12, "bugs", "flowers")
        found = featurize.run(work, FeaturizeOptions(data, views=2), ui)
        assert found["views"] == 2
        head.run(work, HeadOptions.of(epochs=3, head=HEADS, cv=0), ui)
        finetune.run(work, FinetuneOptions.of(views=2, **FAST), ui)

    return once(tmp_path_factory, "views", build)[0]


@pytest.fixture
def here(made, tmp_path):
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def work(here):
    return Workspace(here / "work", TINY)


def view_caches(work):
    """Return number of the view → digests in its cache."""
    found = {}
    for fingerprint in upkeep.fingerprints(work.cache_folder).values():
        number = views.number(fingerprint.probe)
        if number:
            cache = work.cache(fingerprint)
            digests = [sample.digest for sample in work.dataset.samples]
            found[number] = {d for d in digests if not cache.missing(work.settings.layers, [d])}
    return found


def test_only_training_images_have_views(work):
    digests = {sample.digest for sample in work.dataset.accepted("train")}
    others = {s.digest for split in ("validate", "test") for s in work.dataset.accepted(split)}
    assert view_caches(work) == {1: digests, 2: digests}
    assert others
    assert digests.isdisjoint(others)


def test_their_names_say_so(work):
    assert {model.name for model in models.load(work).heads} == {f"{name}-views2" for name in HEADS}
    (run,) = models.load_runs(work)
    assert run.name.endswith("-views2")
    assert run.settings.plan.views == 2
    assert run.start == "logistic-max-views2"


@pytest.mark.slow
def test_without_views_heads_and_runs_are_those_of_a_workspace_that_has_none(work, here, tmp_path, ui):
    other = Workspace(tmp_path / "other", TINY)
    featurize.run(other, FeaturizeOptions(here / "data"), ui)
    for one, asked in ((other, None), (work, 0)):
        head.run(one, HeadOptions.of(epochs=3, head=HEADS, views=asked, cv=0), ui)
        finetune.run(one, FinetuneOptions.of(start="logistic-max", **FAST), ui)
    assert {model.name for model in models.load(work).heads} == {*HEADS, *(f"{name}-views2" for name in HEADS)}
    plain = {model.name: model.validation for model in models.load(other).fresh}
    assert len(plain) == 3
    assert plain == {model.name: model.validation for model in models.load(work).fresh if model.name in plain}


@pytest.mark.slow
def test_a_sweep_compares_with_and_without(work, ui):
    found = finetune.run(work, FinetuneOptions.of(sweep="views=0,1,2", **FAST), ui)
    assert len(found["sweep"]) == 3
    assert len(found["kept"]) == 1
    assert {run.settings.plan.views for run in models.load_runs(work)} == {0, 1, 2}


@pytest.mark.slow
def test_nested_cross_validation_computes_views_of_validation_images_that_a_fold_trains_on(work, ui):
    before = view_caches(work)
    found = compare.run(work, CompareOptions(cv=2, quick=True), ui)
    assert found["measured_on"] == "folds"
    learnt = {sample.digest for split in ("train", "validate") for sample in work.dataset.accepted(split)}
    assert all(digests < learnt for digests in before.values())
    assert view_caches(work) == {1: learnt, 2: learnt}


@pytest.mark.slow
def test_suspects_alone_use_the_heads_that_are_here_with_their_views(work, ui):
    head.run(work, HeadOptions.of(epochs=3, head=HEADS, views=0, cv=0, retrain=True), ui)
    head.run(work, HeadOptions.of(epochs=3, head=HEADS, cv=0, retrain=True), ui)
    before = {model.name: model.result.head.digest for model in models.load(work).heads}
    assert len(before) == 4
    seen = []
    take = head_features.Features.with_views
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            head_features.Features, "with_views", lambda one, number: (seen.append(number), take(one, number))[1]
        )
        found = head.run(work, HeadOptions.of(suspects=True), ui)
    assert found["trained"] == []
    assert {model.name: model.result.head.digest for model in models.load(work).heads} == before
    assert set(found["suspects_by"]) == set(before)
    assert set(seen) == {0, 2}


def test_heads_are_found_by_the_names_that_the_leaderboard_shows(work):
    done = vggft("head", "--head", "max-linear-views2", "--epochs", 3, "--cv", 0, "-w", work.root)
    assert "kept: 1 head trained" in done.stderr
    assert "--head max-linear-views3: no such head" in refused("head", "--head", "max-linear-views3", "-w", work.root)


@pytest.mark.slow
def test_a_comparison_after_views_were_given_up(here, work, ui):
    featurize.run(work, FeaturizeOptions(here / "data", views=0), ui)
    found = compare.run(work, CompareOptions(cv=2, quick=True), ui)
    assert {fold["network"].endswith("-views2") for fold in found["folds"]} == {True}
    assert all(digests for digests in view_caches(work).values())


def test_the_disk_is_checked_for_views_before_anything_is_computed(here, monkeypatch, ui):
    from featurize.cache import estimate

    work = Workspace(here / "other", TINY)
    sizes = []
    monkeypatch.setattr(estimate, "require_room", lambda folder, needed, images: sizes.append((needed, images)))
    featurize.run(work, FeaturizeOptions(here / "data", views=4), ui)
    (plain, images), (everything, rows), *_ = sizes
    assert rows == images + 4 * len(work.dataset.accepted("train"))
    assert everything > 3 * plain


def test_more_views_than_there_are(here):
    (here / "work" / "lock").touch()
    before = snapshot(here)
    for command in (("head",), ("finetune",), ("finetune", "--sweep", "views=1,3")):
        extra = () if "--sweep" in command else ("--views", 3)
        said = refused(*command, *extra, "-w", here / "work")
        assert "--views 3: 2 views of each training image in the cache" in said
        assert f"vggft featurize {Workspace(here / 'work', TINY).settings.data} --views 3 -w {here / 'work'}" in said
        assert snapshot(here) == before


def test_new_images_get_views_and_the_number_stays(here, work, ui):
    shutil.rmtree(here / "data")
    drawings(here / "data", 14, "bugs", "flowers")
    found = featurize.run(work, FeaturizeOptions(here / "data"), ui)
    assert found["views"] == 2
    digests = {sample.digest for sample in work.dataset.accepted("train")}
    assert len(digests) > 16
    assert all(digests <= of_view for of_view in view_caches(work).values())


def test_views_that_are_lost_are_computed_again_or_named(here, work, ui):
    featurize.run(work, FeaturizeOptions(here / "data"), ui)  # where the files of this copy are
    fingerprint = next(f for f in upkeep.fingerprints(work.cache_folder).values() if f.probe == views.name(1))
    shutil.rmtree(work.cache_folder / fingerprint.key)
    again = head.run(work, HeadOptions.of(epochs=3, head=HEADS, retrain=True, cv=0), ui)
    assert len(again["trained"]) == 2
    shutil.rmtree(work.cache_folder / fingerprint.key)
    shutil.move(here / "data", here / "elsewhere")
    said = refused("head", "--head", "max-linear", "--epochs", 4, "-w", work.root)
    number = len({sample.digest for sample in work.dataset.accepted("train")})
    assert f"views: {number} images missing (the first: {here / 'data'}" in said
    assert "--views 0" in said
    assert (
        vggft("head", "--head", "max-linear", "--epochs", 4, "--cv", 0, "--views", 0, "-w", work.root).returncode == 0
    )


def test_fewer_views_are_pruned(here, work, ui):
    assert maintenance.prune(work, PruneOptions(yes=True), ui)["folders"] == []
    shown = vggft("cache", "info", "-w", work.root)
    assert shown.stdout.count("(in use: a view)") == 2
    featurize.run(work, FeaturizeOptions(here / "data", views=1), ui)
    assert vggft("cache", "info", "-w", work.root).stdout.count("(stale: a view)") == 1
    assert len(maintenance.prune(work, PruneOptions(yes=True), ui)["folders"]) == 1
    assert set(view_caches(work)) == {1}
    assert maintenance.verify(work, VerifyOptions(), ui)["ok"]


def test_the_cost_is_said_before(here):
    done = vggft("featurize", here / "data", "--views", 3, "-w", here / "other")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    (said,) = [line for line in lines if line.startswith("computing ") and "views of training images" in line]
    assert "on disk" in said


@pytest.mark.slow
def test_killed_while_views_are_computed(here, tmp_path, ui, traced):
    work = tmp_path / "work"
    process = start("featurize", here / "data", "--views", 4, "-w", work)
    wait_until(lambda: len(list(work.glob("cache/*/shards/*.h5"))) >= 2, process)
    process.kill()
    process.communicate()
    done = vggft("featurize", here / "data", "--views", 4, "-w", work, "--json")
    assert json.loads(done.stdout)["views"] == 4
    workspace, other = Workspace(work, TINY), Workspace(tmp_path / "other", TINY)
    featurize.run(other, FeaturizeOptions(here / "data", views=4), ui)
    assert view_caches(workspace) == view_caches(other)
    digests = [sample.digest for sample in workspace.dataset.accepted("train")]
    for fingerprint in upkeep.fingerprints(other.cache_folder).values():
        for layer in workspace.settings.layers:
            a, b = (one.cache(fingerprint).read(layer, digests) for one in (workspace, other))
            assert np.array_equal(a, b)
    assert not store.unfinished(workspace.finetune)
