"""`vggft explain`: heat maps from the cache or from pixels, drawn over the pictures."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import drawings, refused, snapshot, strict_json, vggft
from PIL import Image
from tiny import TINY, tiny_weights

from featurize import engines
from featurize.cache.feature_cache import FeatureCache
from featurize.errors import VggftError
from featurize.pixels import images as pixels
from vggft import Experiment
from vggft.explanation import drawing, explainer
from vggft.explanation.drawing import Panel
from vggft.explanation.frozen import FrozenOutputs
from vggft.prediction import inference, models, selection
from vggft.prediction.model import CachedImages
from vggft.prediction.network_model import NetworkModel
from vggft.steps.explain import _Map

CONVOLUTION = TINY.convolutions[-1].name
SAME = 0.02  # sums of positive and negative numbers from float16 features


@pytest.fixture(scope="module")
def keras_engine(trained):
    return engines.KerasEngine(tiny_weights(), trained[0].settings.fingerprint, 8)


def refuse(*arguments):
    raise AssertionError("an engine was started")


@pytest.fixture
def images(trained):
    workspace = trained[0]
    return CachedImages(workspace, workspace.cache(), workspace.dataset.accepted(), ())


def test_maps_of_a_network_come_from_its_split_point_and_no_frozen_layer_is_run(
    trained, images, keras_engine, tmp_path
):
    network = models.load(trained[0]).named(trained[2]["finetune"]["name"])
    targets = trained[0].dataset.targets(images.samples)
    maps = explainer.maps(network, images, targets, refuse)
    assert (maps.shape, maps.dtype) == ((32, 8, 8), np.float32)
    assert maps.min() >= 0
    assert set(maps.max(axis=(1, 2)).tolist()) <= {0.0, 1.0}
    assert (maps.max(axis=(1, 2)) == 1).sum() > 24
    uncached = replace(images, cache=FeatureCache(tmp_path, images.cache.fingerprint, TINY))
    from_files = explainer.maps(network, uncached, targets, lambda: keras_engine)
    np.testing.assert_allclose(from_files, maps, atol=SAME)


def test_a_head_runs_only_the_layers_above_the_cached_one(trained, images, keras_engine, monkeypatch, tmp_path):
    head = models.load(trained[0]).named("logistic-max")
    calls = []

    def engine(inputs, layers, below=None):
        calls.append((len(inputs), tuple(layers), below))
        return keras_engine(inputs, layers, below)

    monkeypatch.setattr(explainer, "AT_ONCE", 20)
    done = []
    targets = [0] * 32
    maps = explainer.maps(head, images, targets, lambda: engine, done.append)
    assert calls == [(20, (CONVOLUTION,), "block2_pool"), (12, (CONVOLUTION,), "block2_pool")]
    assert done == [20, 32]
    uncached = replace(images, cache=FeatureCache(tmp_path, images.cache.fingerprint, TINY))
    np.testing.assert_allclose(explainer.maps(head, uncached, targets, lambda: engine), maps, atol=SAME)
    assert calls[2:] == [(20, (CONVOLUTION,), None), (12, (CONVOLUTION,), None)]


def test_a_network_that_was_tuned_from_pixels_reads_the_files(trained, tmp_path):
    workspace, data, _ = trained
    sample = workspace.dataset.accepted()[0]
    outputs = FrozenOutputs(workspace.cache(), None, refuse)
    [(digest, picture)] = outputs({sample.digest: [data / sample.path]}).items()
    assert digest == sample.digest
    assert np.array_equal(picture, pixels.decode_resized((data / sample.path).read_bytes(), TINY.size))
    (tmp_path / "other.png").write_bytes(b"something else")
    with pytest.raises(VggftError, match=r"other.png: changed while .* restore it"):
        outputs({sample.digest: [tmp_path / "other.png"]})


def explained(*arguments):
    done = vggft("explain", *arguments, "--json")
    return done, strict_json(done.stdout)


def test_head_and_network_side_by_side(again, trained, tmp_path, monkeypatch):
    """From the cache, without an engine for a network; with the probabilities of `vggft predict`."""
    monkeypatch.setattr(
        inference, "start_engine", lambda *arguments: engines.KerasEngine(tiny_weights(), *arguments[1:2], 8)
    )
    picture = trained[1] / again.dataset.accepted()[3].path
    best, tuned = trained[2]["head"]["best"], trained[2]["finetune"]["name"]
    done, result = explained(picture, "--class", "fruit", "--model", best, "--model", tuned, "-w", again.root)
    assert done.returncode == 0, done.stderr
    assert result["models"] == [best, tuned]
    assert result["folder"] == str(again.report / "explain")
    (file,) = {each["file"] for each in result["maps"]}
    assert Path(file).parent == again.report / "explain"
    assert Path(file).name.startswith(f"{picture.stem[:10]}")
    for name in (best, tuned):
        maps = [each for each in result["maps"] if each["model"] == name]
        assert [each["image"] for each in maps] == [str(picture)] * len(maps)
        predicted = strict_json(vggft("predict", picture, "--model", name, "--json", "-w", again.root).stdout)
        scores = predicted["predictions"][0]["probabilities"]
        assert all(abs(each["probability"] - scores[each["class"]]) < 1e-9 for each in maps)
        assert "fruit" in {each["class"] for each in maps}
        assert [each["class"] for each in maps if each["predicted"]] == [max(scores, key=scores.get)]
    with Image.open(file) as drawn:
        assert (drawn.format, drawn.mode) == ("PNG", "RGB")


@pytest.mark.slow
def test_names_that_are_the_same_or_strange_and_files_that_are_no_pictures(again, trained, tmp_path):
    picture = trained[1] / again.dataset.accepted()[0].path
    names = ["a/x.png", "b/x.png", "b/new\nline $\\alpha$.png", "b/" + "l" * 200 + ".png", "b/ミク.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(picture, tmp_path / name)
    (tmp_path / "b" / "text.png").write_text("no picture")
    out = tmp_path / "out" / "deep"
    one = ("--model", "logistic-max", "-w", again.root)
    done, result = explained(tmp_path / "a", tmp_path / "b", "--out", out, *one)
    assert done.returncode == 3
    assert [Path(r["path"]).name for r in result["rejected"]] == ["text.png"]
    assert result["rejected"][0]["reason"] in done.stderr
    assert {each["image"] for each in result["maps"]} == {str(tmp_path / name) for name in names}
    files = {each["file"] for each in result["maps"]}
    assert len(files) == len(names)
    assert files == {str(path) for path in out.iterdir()}
    lines = vggft("explain", tmp_path / "b", "--out", out, "--quiet", *one)
    assert lines.returncode == 3
    assert len(lines.stdout.splitlines()) == 4
    assert len(lines.stderr.splitlines()) == 1  # not a word about characters that a font lacks
    assert files == {str(path) for path in out.iterdir()}


def test_only_unchanged_drawings_are_replaced(tmp_path):
    first, second = (np.full((4, 4, 3), value, np.uint8) for value in (1, 2))
    path = drawing.write(tmp_path, Path("a.png"), first)
    assert drawing.write(tmp_path, Path("a.png"), second) == path
    assert np.array_equal(np.asarray(Image.open(path)), second)
    with Image.open(path) as written:
        edited, text = written.copy(), written.text
    assert list(text) == ["vggft-pixels-sha256"]
    edited.putpixel((0, 0), (9, 9, 9))
    edited.save(path, pnginfo=_info(text))
    beside = drawing.write(tmp_path, Path("a.png"), second)
    assert beside.name == f"{path.stem}-2.png"
    beside.write_bytes(b"a person's")
    assert drawing.write(tmp_path, Path("a.png"), second).name == f"{path.stem}-3.png"
    (tmp_path / "elsewhere.png").write_bytes(path.read_bytes())
    beside.unlink()
    beside.symlink_to(path)
    assert drawing.write(tmp_path, Path("a.png"), second).name == f"{path.stem}-3.png"
    assert np.asarray(Image.open(path))[0, 0].tolist() == [9, 9, 9]


def _info(text):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    return info


def test_a_map_is_stretched_over_the_whole_picture():
    """A wide white picture: colour only where the map is 1, in the place of its panel that this place has in the picture."""
    heat = np.zeros((8, 8), np.float32)
    heat[6, 1] = 1
    drawn = drawing.draw(np.full((50, 200, 3), 255, np.uint8), "name $x$", [[Panel(["model", "class"], heat)]])
    spread = np.ptp(drawn.astype(int), axis=2)
    ys, xs = np.nonzero(spread > 60)
    black = (drawn.max(axis=2) < 100) & (spread < 20)  # the headings
    assert black[: drawn.shape[0] // 2].any()
    assert not black[drawn.shape[0] // 2 :].any()
    width = drawn.shape[1] / 2
    assert np.ptp(xs) > 2.5 * np.ptp(ys)  # four times as wide as high, like the picture
    assert abs((xs.mean() - width) / width - 1.5 / 8) < 0.03


def test_bad_input_is_refused_before_anything_is_written(again, trained, tmp_path, featurized):
    picture = trained[1] / again.dataset.accepted()[0].path
    before = snapshot(again.root)
    work = ("-w", again.root)
    assert "birds, fruit" in refused("explain", picture, "--class", "plums", *work)
    assert "logistic-max" in refused("explain", picture, "--model", "none", *work)
    assert "no such file" in refused("explain", tmp_path / "gone.png", *work)
    (tmp_path / "file").write_text("in the way")
    assert "--out" in refused("explain", picture, "--out", tmp_path / "file", *work)
    assert snapshot(again.root) == before
    assert "vggft head" in refused("explain", picture, "-w", featurized[0] / "work")
    (tmp_path / "empty").mkdir()
    assert "no files there" in refused("explain", tmp_path / "empty", "--out", tmp_path / "out", *work)


@pytest.mark.slow
def test_from_python(again, tmp_path):
    drawings(tmp_path / "others", 2, "bugs")
    experiment = Experiment(again.root, TINY)
    result = experiment.explain(
        [tmp_path / "others"], model=["logistic-avg", "max-256"], classes=["birds", "fruit"], out=tmp_path
    )
    assert result["models"] == ["logistic-avg", "max-256"]
    assert len(result["maps"]) == 2 * 2 * 2
    assert all(Path(each["file"]).is_file() for each in result["maps"])
    assert [each["probability"] for each in result["maps"] if each["class"] == "birds"] == pytest.approx(
        [p for picture in sorted((tmp_path / "others" / "bugs").iterdir()) for p in _birds(experiment, picture)]
    )


def _birds(experiment, picture):
    return [experiment.model(name).predict(picture)[0, 0] for name in ("logistic-avg", "max-256")]


@pytest.mark.slow
def test_damaged_features_are_computed_again_from_the_files(again, trained):
    words = (trained[1] / "birds", "-w", again.root)
    expected = explained(*words)[1]["maps"]
    again.cache().save_index()
    for shard in again.cache_folder.glob("*/shards/*.h5"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        stamp = shard.stat()
        shard.write_bytes(data)
        os.utime(shard, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as the index has it
    done, result = explained(*words)
    assert done.returncode == 0
    assert "some features were computed again: " in done.stderr
    assert [m["class"] for m in result["maps"]] == [m["class"] for m in expected]
    assert [m["probability"] for m in result["maps"]] == pytest.approx([m["probability"] for m in expected], abs=2e-3)


def test_without_a_network_the_head_is_explained_alone(again, trained, tmp_path):
    shutil.rmtree(again.finetune)
    picture = trained[1] / again.dataset.accepted()[0].path
    assert explained(picture, "--out", tmp_path, "-w", again.root)[1]["models"] == [trained[2]["head"]["best"]]


def test_a_network_that_is_its_head_is_explained_once(again, trained, monkeypatch):
    best, tuned = trained[2]["head"]["best"], trained[2]["finetune"]["name"]
    monkeypatch.setattr(NetworkModel, "unchanged", property(lambda self: True))
    for start, expected in ((best, [best]), ("another head", [best, tuned])):
        monkeypatch.setattr(NetworkModel, "start", property(lambda self, start=start: start))
        choices = selection.contrasted(again, ())
        assert [choice.model.name for choice in choices] == expected
    monkeypatch.undo()
    assert [choice.model.name for choice in selection.contrasted(again, [best, tuned])] == [best, tuned]


def test_stale_models_explain_with_a_warning(again, trained):
    assert vggft("featurize", trained[1], "--validation", 0.4, "-w", again.root).returncode == 0
    picture = trained[1] / again.dataset.accepted()[0].path
    both = [trained[2]["head"]["best"], trained[2]["finetune"]["name"]]
    done, result = explained(picture, "--model", both[0], "--model", both[1], "-w", again.root)
    assert done.returncode == 0
    assert result["stale"] == result["models"] == both
    assert done.stderr.count("is stale") == 2


def test_explanations_are_not_explained_nor_taken_for_training_images(again, trained, tmp_path):
    data = trained[1]
    error = refused("explain", next(data.glob("birds/*")), "--out", data / "birds", "-w", again.root)
    assert (
        f"--out {data / 'birds'}: lies in the data folder ({data.resolve()}), where the pictures would be taken"
        in error
    )
    photos = drawings(tmp_path / "photos", 1, "birds", "fruit")
    for _ in range(2):
        done = vggft("explain", photos, "--out", photos / "explained", "-w", again.root, "--json")
        assert len({entry["image"] for entry in strict_json(done.stdout)["maps"]}) == 2
    assert len(list((photos / "explained").iterdir())) == 2


def test_a_heading_keeps_probability_and_reason_of_a_class_with_a_long_name():
    found = _Map("block5-logistic-avgmax", "a very long class " * 9, 0.98765, True, np.zeros((4, 4), np.float32))
    assert found.panel.heading == [
        "block5-logistic-avgmax",
        "a very long class a… 0.9877 (predicted)",
        "nothing speaks for it",
    ]
