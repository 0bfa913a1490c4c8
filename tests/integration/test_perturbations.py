"""Perturbed images: the models' predictions for them, and which images are used."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import drawings, rewrite
from tiny import TINY

from featurize.cache import upkeep
from featurize.pixels import images
from featurize.pixels.perturbations import PERTURBATIONS
from vggft.comparison import perturbations
from vggft.prediction import inference, models
from vggft.prediction.model import CachedImages
from vggft.steps import cache, featurize, head
from vggft.steps import compare as command
from vggft.steps.options import CompareOptions, FeaturizeOptions, HeadOptions, PruneOptions
from vggft.workspace.workspace import Workspace

pytestmark = pytest.mark.usefixtures("unrendered")


def test_perturbations(trained):
    """Numbers from probes.csv, and one perturbation by hand: pictures changed here, predicted from their pixels."""
    from featurize.engines import KerasEngine
    from featurize.pixels import images
    from heads import store as heads
    from vggft.workspace.backbone import load_weights

    workspace, data, results = trained
    probes = results["compare"]["probes"]
    assert probes["images"] == results["featurize"]["splits"]["validate"]
    assert probes["left_out"] == 0
    with (workspace.report / "probes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, own in probes["methods"].items():
        assert list(own) == ["none", *PERTURBATIONS]
        for perturbation, found in own.items():
            said = [row for row in rows if (row["method"], row["probe"]) == (name, perturbation)]
            plain = [row for row in rows if (row["method"], row["probe"]) == (name, "none")]
            assert found["accuracy"] == np.mean([row["predicted"] == row["label"] for row in said])
            if perturbation != "none":
                changed = [a["predicted"] != b["predicted"] for a, b in zip(said, plain, strict=True)]
                assert found["changed"] == np.mean(changed)
    name = results["head"]["best"]
    said = [row for row in rows if (row["method"], row["probe"]) == (name, "blur2")]
    pictures = [images.decode_resized((data / row["path"]).read_bytes(), 32) for row in said]
    changed = np.stack([np.asarray(PERTURBATIONS["blur2"](images.Image.fromarray(picture))) for picture in pictures])
    settings = workspace.settings
    engine = KerasEngine(load_weights(TINY, settings.fingerprint, settings.weights_file_path), settings.fingerprint)
    head = next(result.head for result in heads.load_all(workspace.heads) if result.head.name == name)
    p = head.predict(engine(changed, ["block3_pool"])[0])
    assert [float(row["score"]) for row in said] == pytest.approx(p.max(axis=1).tolist(), abs=5e-3)


@pytest.mark.slow
def test_an_image_that_vanished_is_left_out_of_the_perturbations_and_of_nothing_else(again, trained, ui, capsys):
    """Its features are cached; those of the perturbed images are not."""
    data = again.root.parent / "data"
    shutil.copytree(trained[1], data)
    settings = json.loads((again.root / "workspace.json").read_text())
    rewrite(again.root / "workspace.json", {**settings, "data": str(data)})
    gone, *rest = again.dataset.accepted("validate")
    (data / gone.path).unlink()
    for name in PERTURBATIONS:
        shutil.rmtree(again.cache(replace(again.settings.fingerprint, probe=name)).folder)
    heads = models.load(again).heads[:2]
    perturbed = perturbations.predict(again, heads, [gone, *rest], ui)
    assert [sample.path for sample in perturbed.samples] == [sample.path for sample in rest]
    assert perturbed.left_out == 1
    assert "perturbations: 1 image left out" in capsys.readouterr().err
    assert command.run(again, CompareOptions(quick=True), ui)["images"] == len(rest) + 1


def test_a_changed_image_is_left_out_of_the_perturbations_of_a_network_that_reads_pixels(again, trained, ui):
    data = again.root.parent / "data"
    shutil.copytree(trained[1], data)
    settings = json.loads((again.root / "workspace.json").read_text())
    rewrite(again.root / "workspace.json", {**settings, "data": str(data)})
    changed, *rest = again.dataset.accepted("validate")
    shutil.copy(data / rest[0].path, data / changed.path)
    found = models.load(again)
    run = found.networks[0].run
    from_pixels = replace(run, settings=replace(run.settings, unfreeze="all", split_point=None))
    whole = replace(found.networks[0], run=from_pixels)
    asked = []

    def predicted(part, workspace, cache, samples):
        asked.append(samples)
        return {model.name: np.full((len(samples), 2), 0.5) for model in part}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inference, "from_cache", predicted)  # only the images matter here
        perturbed = perturbations.predict(again, [found.heads[0], whole], [changed, *rest], ui)
    assert perturbed.left_out == 1
    assert all([sample.path for sample in own] == [sample.path for sample in rest] for own in asked)


def test_a_copy_takes_the_place_of_an_image_that_vanished(tmp_path, ui):
    data, work = drawings(tmp_path / "data", 6, "bugs", "flowers"), Workspace(tmp_path / "work", TINY)
    first = min((data / "bugs").iterdir())
    shutil.copy(first, data / "bugs" / "zz.png")
    featurize.run(work, FeaturizeOptions(data), ui)
    head.run(work, HeadOptions.of(head=["logistic-max"], cv=0), ui)
    (gone,) = (sample for sample in work.dataset.samples if sample.path == f"bugs/{first.name}")
    first.unlink()
    assert perturbations.predict(work, models.load(work).heads, [gone], ui).left_out == 0
    (picture,) = next(CachedImages(work, work.cache(), [gone], ()).outputs(None))
    assert np.array_equal(picture, images.decode_resized((data / "bugs" / "zz.png").read_bytes(), TINY.size))


def test_prune_keeps_what_compare_computed_of_images_that_are_there(again, ui):
    cache.prune(again, PruneOptions(yes=True), ui)
    probes = [folder for folder, own in upkeep.fingerprints(again.cache_folder).items() if own.probe]
    assert len(probes) == len(PERTURBATIONS)
    keep = replace(again.dataset.samples[0], path="other", digest="0" * 64)
    samples = [s for s in again.dataset.samples if s.split != "validate"]
    again.settle(replace(again.dataset, samples=(*samples, keep)), again.settings, ())
    pruned = cache.prune(again, PruneOptions(yes=True), ui)
    validated = 32 - len(samples)
    assert pruned["rows"] == validated * (1 + len(PERTURBATIONS))
    assert cache.info(again, ui)["fingerprints"][0]["in_use"]


def test_perturbations_take_at_most_so_many_images(again, monkeypatch):
    monkeypatch.setattr(perturbations, "MOST", 3)
    samples = again.dataset.accepted("validate")
    chosen = perturbations.spread(samples)
    assert len({sample.digest for sample in chosen}) == 3
    assert perturbations.spread(samples[::-1]) == chosen
