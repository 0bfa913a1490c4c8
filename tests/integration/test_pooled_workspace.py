"""Workspaces that keep only averages and maxima: every command works, or says what is missing and how to compute it."""

import shutil

import h5py
import numpy as np
import pytest
from conftest import drawings, once, refused, shards, snapshot, strict_json, vggft
from small_cache import damage, files
from tiny import TINY

from featurize.backbone.architecture import POOLED
from featurize.cache.pooled import averages_and_maxima
from vggft.labelling.pooled import PooledFeatures
from vggft.prediction import models
from vggft.steps import featurize, head
from vggft.steps.options import FeaturizeOptions, HeadOptions
from vggft.workspace import filling, views
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered", "untraced")

HEADS = ("logistic-avg", "logistic-avgmax")
FULL = [word for name in TINY.cached for word in ("--layers", name)]
NAMED = [word for name in HEADS for word in ("--head", name)]


@pytest.fixture(scope="module")
def pooled_only(tmp_path_factory):
    """24 drawings, test images among them, and heads."""

    def build(base):
        data = drawings(base / "data", 12, "bugs", "flowers")
        done = vggft("featurize", data, "--layers", POOLED, "--test", 0.25, "-w", base / "work")
        assert done.returncode == 0, done.stderr
        trained = vggft("head", *NAMED, "-w", base / "work")
        assert trained.returncode == 0, trained.stderr

    return once(tmp_path_factory, "pooled", build)[0]


@pytest.fixture
def base(pooled_only, tmp_path):
    shutil.copytree(pooled_only, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def work(base):
    return Workspace(base / "work", TINY)


def layers_in(work):
    return {name for path in files(work.root.parent) for name in h5py.File(path) if name != "digest"}


def digests(work):
    return [sample.digest for sample in work.dataset.accepted()]


def heads_of(work):
    return {model.name: model.head.digest for model in models.load(work).heads}


def test_nothing_larger_is_kept(work):
    assert layers_in(work) == {POOLED}
    assert work.settings.layers == (POOLED,)
    assert work.cache().read(POOLED, digests(work)).shape == (24, 2, 16)


@pytest.mark.slow
def test_heads_are_those_of_a_full_cache_to_the_last_bit(base, work, ui):
    full = Workspace(base / "full", TINY)
    featurize.run(full, FeaturizeOptions(base / "data", test=0.25), ui)
    head.run(full, HeadOptions.of(head=HEADS), ui)
    assert heads_of(full) == heads_of(work)
    assert len(heads_of(work)) == 2


@pytest.mark.slow
def test_dense_heads_and_views_too(base, work, ui):
    dense = HeadOptions.of(epochs=4, head=("max-linear", "avgmax-256"))
    full = Workspace(base / "full", TINY)
    for workspace, layers in ((work, (POOLED,)), (full, ())):
        featurize.run(workspace, FeaturizeOptions(base / "data", test=0.25, views=1, layers=layers), ui)
        head.run(workspace, dense, ui)
    of_views = {name: digest for name, digest in heads_of(work).items() if "views1" in name}
    assert len(of_views) == 2
    assert heads_of(full) == of_views
    assert layers_in(work) == {POOLED}


@pytest.mark.slow
def test_every_command_that_reads_pooled_features_works(base, work):
    commands = [
        ["head", "--suspects"],
        ["head", "--cv", 2, "--seeds", 2, "--head", "max-linear", "--epochs", 2],
        ["compare", "--quick"],
        ["compare"],
        ["predict", base / "data" / "bugs"],
        ["predict", base / "data" / "bugs", "--grey"],
        ["evaluate", base / "data"],
        ["explain", sorted((base / "data" / "bugs").iterdir())[0]],
        ["export", base / "model.keras", "--model", "logistic-avg"],
        ["export", base / "model.skops", "--model", "logistic-avg"],
        ["cache", "info"],
        ["cache", "verify", "--recompute", 3],
        ["cache", "export", base / "features.h5"],
        ["cache", "prune", "--yes"],
        ["doctor"],
        ["runs"],
    ]
    for command in commands:
        done = vggft(*command, "-w", work.root)
        assert done.returncode == 0, (command, done.stderr)
        assert "Traceback" not in done.stderr
        if command[0] == "compare":
            flag = f"-w {work.root}"
            assert (
                f"vggft featurize {work.settings.data} {' '.join(FULL)} {flag} && vggft finetune {flag}" in done.stdout
            )
    assert layers_in(work) == {POOLED}  # also of perturbed and of predicted images
    with h5py.File(base / "features.h5") as exported:
        assert exported[f"features/{POOLED}"].shape == (24, 2, 16)


def test_predictions_of_other_images_are_kept_and_are_the_same_from_there(base, work):
    others = drawings(base / "others", 3, "birds")
    predict = ["predict", others, "--json", "-w", work.root]
    computed = strict_json(vggft(*predict).stdout)
    assert len(work.cache().positions.rows(POOLED).digest) == 27
    again = strict_json(vggft(*predict).stdout)
    assert again["predictions"] == computed["predictions"]
    assert layers_in(work) == {POOLED}


def test_heads_on_all_positions_are_left_out_and_named(work):
    grid = work.root.parent / "grid.toml"
    grid.write_text('[mine]\nkind = "logistic"\npooling = "max"\n')
    done = vggft("head", "--grid", grid, "--json", "-w", work.root)
    assert done.returncode == 0, done.stderr
    assert {entry["name"] for entry in strict_json(done.stdout)["heads"]} == {"mine", *HEADS}
    assert (
        "left out: flatten-256-classic, which needs block3_pool: only averages and maxima of block3_pool are cached"
        in done.stderr
    )
    assert f"vggft featurize {work.settings.data} {' '.join(FULL)} -w {work.root}" in done.stderr
    before = snapshot(work.root / "heads")
    message = refused("head", "--head", "flatten-256-classic", "-w", work.root)
    assert "flatten-256-classic: needs block3_pool" in message
    assert f"vggft featurize {work.settings.data}" in message
    grid.write_text('[mine]\npooling = "flatten"\nunits = 0\nlearning_rate = 1e-3\n')
    assert "mine, flatten-256-classic: needs block3_pool" in refused("head", "--grid", grid, "-w", work.root)
    assert snapshot(work.root / "heads") == before


def test_featurize_keeps_to_the_layers(base, work):
    message = refused("head", "--views", 2, "-w", work.root)
    assert f"vggft featurize {work.settings.data} --views 2 -w {work.root}" in message
    shutil.copytree(drawings(base / "others", 2, "bugs", "flowers"), base / "data", dirs_exist_ok=True)
    damage("deleted", files(base)[0])
    done = vggft("featurize", base / "data", "--views", 1, "--json", "-w", work.root)
    assert done.returncode == 0, done.stderr
    assert strict_json(done.stdout)["layers"] == [POOLED]
    assert layers_in(Workspace(work.root, TINY)) == {POOLED}


@pytest.mark.parametrize("options", [[], ["--unfreeze", "all"], ["--from", "scratch"], ["--sweep", "lr=1e-3,1e-4"]])
def test_fine_tuning_names_the_command_that_computes_its_inputs(work, options):
    before = snapshot(work.root / "cache")
    message = refused("finetune", *options, "-w", work.root)
    assert "fine-tuning needs block2_pool and block3_pool" in message
    assert f"vggft featurize {work.settings.data} {' '.join(FULL)} -w {work.root}" in message
    assert snapshot(work.root / "cache") == before
    assert not list(work.finetune.glob("*/*"))


@pytest.mark.slow
def test_the_full_layers_are_added_later_and_change_no_head(base, work):
    rows, trained = work.cache().read(POOLED, digests(work)), heads_of(work)
    done = vggft("featurize", base / "data", *FULL, "-w", work.root, "--json")
    assert (done.returncode, strict_json(done.stdout)["computed"]) == (0, 24), done.stderr
    assert "stale" not in done.stderr
    upgraded = Workspace(work.root, TINY)
    assert layers_in(upgraded) == {*TINY.cached, POOLED}
    assert np.array_equal(upgraded.cache().read(POOLED, digests(work)), rows)
    assert heads_of(upgraded) == trained
    again = vggft("head", *NAMED, "--retrain", "-w", work.root)
    assert again.returncode == 0, again.stderr
    assert heads_of(upgraded) == trained
    for path in files(base):  # and from the maps alone
        if POOLED in h5py.File(path):
            path.unlink()
    again = vggft("head", *NAMED, "--retrain", "-w", work.root)
    assert again.returncode == 0, again.stderr
    assert heads_of(upgraded) == trained


@pytest.mark.slow
def test_maps_of_another_engine_change_no_prediction(base, work):
    """They differ by rounding, here by more: predict reads what the heads were trained on."""
    command = ["predict", base / "data", "--json", "--model", "logistic-avgmax", "-w", work.root]
    before = strict_json(vggft(*command).stdout)["predictions"]
    cache = work.cache()
    cache.write(digests(work), {TINY.top: np.ones((24, 4, 4, 16), np.float16)}, {"engine": "test"})
    cache.save_index()
    assert vggft("featurize", base / "data", *FULL, "-w", work.root).returncode == 0
    assert Workspace(work.root, TINY).settings.layers == TINY.cached
    assert strict_json(vggft(*command).stdout)["predictions"] == before
    assert strict_json(vggft("head", *NAMED, "--retrain", "--json", "-w", work.root).stdout)["heads"]
    assert strict_json(vggft(*command).stdout)["predictions"] == before


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_full_layers(base, work):
    assert vggft("featurize", base / "data", *FULL, "-w", work.root).returncode == 0
    tuned = strict_json(vggft("finetune", "--epochs", 1, "--from", "logistic-avg", "--json", "-w", work.root).stdout)
    start = next(model for model in models.load(work).heads if model.name == "logistic-avg")
    assert tuned["start_validation"]["log_loss"] == pytest.approx(start.validation.log_loss, abs=1e-3)
    assert vggft("compare", "-w", work.root).returncode == 0


@pytest.mark.slow
def test_from_a_full_cache_no_network_runs(copied, monkeypatch):
    full = Workspace(copied / "work", TINY)
    monkeypatch.setattr(filling, "start_engine", None)
    monkeypatch.setattr(views, "start_engine", None)
    done = vggft("featurize", copied / "data", "--layers", POOLED, "-w", full.root, "--json")
    assert done.returncode == 0, done.stderr
    found = strict_json(done.stdout)
    assert (found["computed"], found["engine"], found["layers"]) == (24, None, [POOLED])
    assert "computing pooled block3_pool of 24 images from cached block3_pool: about" in done.stderr
    assert "engine:" not in done.stderr
    monkeypatch.undo()
    apart = vggft("featurize", copied / "data", "--layers", POOLED, "-w", copied / "apart", "-q")
    assert apart.returncode == 0, apart.stderr
    derived, computed = Workspace(full.root, TINY), Workspace(copied / "apart", TINY)
    assert np.array_equal(
        derived.cache().read(POOLED, digests(derived)), computed.cache().read(POOLED, digests(derived))
    )
    grid = copied / "grid.toml"  # of maps that are still there
    grid.write_text('[mine]\nkind = "logistic"\npooling = "flatten"\n')
    said = vggft("head", "--grid", grid, "--epochs", 1, "-w", full.root)
    assert said.returncode == 0, said.stderr
    assert "left out" not in said.stderr


def test_lost_rows_of_cached_maps_come_from_these_again(copied, monkeypatch):
    """Also where other rows were computed from pixels, whichever shard that says so comes first."""
    full = Workspace(copied / "work", TINY)
    names = digests(full)
    rows = averages_and_maxima(full.cache().read(TINY.top, names))
    for some, source in ((slice(0, 12), "pixels"), (slice(12, 24), TINY.top)):
        cache = full.cache()
        cache.write(names[some], {POOLED: rows[some]}, {"engine": "test", "computed_from": source})
        cache.save_index()
    for path in files(copied):
        with h5py.File(path) as file:
            lost = POOLED in file and file.attrs["computed_from"] == TINY.top
        if lost:
            path.unlink()
    monkeypatch.setattr(filling, "start_engine", None)
    done = vggft("featurize", copied / "data", "--layers", POOLED, "-w", full.root, "--json")
    assert done.returncode == 0, done.stderr
    assert (strict_json(done.stdout)["computed"], strict_json(done.stdout)["engine"]) == (12, None)
    assert np.array_equal(Workspace(full.root, TINY).cache().read(POOLED, names), rows)


@pytest.mark.slow
def test_a_head_whose_maps_are_gone_is_left_out_of_the_comparison(copied):
    work = copied / "work"
    grid = copied / "grid.toml"
    grid.write_text('[mine]\nkind = "logistic"\npooling = "flatten"\n')
    assert vggft("head", "--grid", grid, "--head", "mine", "--head", "logistic-avg", "-w", work).returncode == 0
    shutil.rmtree(work / "cache")
    assert vggft("featurize", copied / "data", "--layers", POOLED, "-w", work).returncode == 0
    done = vggft("compare", "--quick", "-w", work)
    assert done.returncode == 0, done.stderr
    assert "left out: mine: needs block3_pool, but only averages and maxima of block3_pool are cached" in done.stderr
    assert "logistic-avg" in done.stdout
    predicted = vggft("predict", copied / "data" / "bugs", "--model", "mine", "-w", work)  # from the images
    assert predicted.returncode == 0, predicted.stderr


def test_sorting_by_hand_keeps_no_more(base, work, ui):
    others = drawings(base / "others", 3, "birds")
    names = sorted(path.relative_to(others).as_posix() for path in others.rglob("*.png"))
    features = PooledFeatures(work, others, names, ui)
    while not features.complete:
        features.advance()
    found = work.cache().positions.rows(POOLED).digest
    assert (len(found), layers_in(work)) == (27, {POOLED})
    assert features.rows(np.arange(3)).shape == (3, 32)


def test_a_lost_shard_is_computed_again_to_the_same_bytes(base, work):
    before = shards(work.root)
    damage("deleted", files(base)[0])
    assert vggft("cache", "verify", "-w", work.root).returncode == 1
    done = vggft("featurize", base / "data", "-w", work.root, "-q")
    assert done.returncode == 0, done.stderr
    assert shards(work.root) == before


def test_parts_are_merged(base, ui):
    for number in (1, 2):
        done = vggft("featurize", base / "data", "--layers", POOLED, "--part", f"{number}/2", "-w", base / f"p{number}")
        assert done.returncode == 0, done.stderr
    merged = Workspace(base / "merged", TINY)
    joined = vggft("cache", "merge", base / "p1", base / "p2", "-w", merged.root)
    assert f"Next: vggft featurize DATA --layers pooled -w {merged.root}, which" in joined.stdout
    found = featurize.run(merged, FeaturizeOptions(base / "data", layers=(POOLED,)), ui)
    assert (found["computed"], found["reused"]) == (0, 24)
    assert layers_in(merged) == {POOLED}
