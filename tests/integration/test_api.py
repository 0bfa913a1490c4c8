"""The Python API: arrays give the same predictions as files, and arguments are checked like options."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny import TINY

from featurize.errors import VggftError
from vggft import Experiment, read_picture
from vggft.steps import predict
from vggft.steps.options import PredictOptions
from vggft.ui.console import Ui

pytestmark = pytest.mark.usefixtures("unrendered", "untraced")


def test_arrays_of_any_size_are_predicted_as_files_are(trained, capfd, tmp_path):
    workspace, data, _ = trained
    model = Experiment(workspace.root, TINY).model()
    turned = Image.Exif()
    turned[0x0112] = 6
    drawn = sorted((data / "birds").iterdir())[:3]
    small = Image.open(drawn[0]).convert("RGB").resize((120, 100))  # larger JPEG files are scaled as they are decoded
    small.save(tmp_path / "turned.jpg", exif=turned)
    paths = [*drawn, tmp_path / "turned.jpg"]
    pictures = [read_picture(path) for path in paths]
    assert len({a.shape for a in pictures}) > 1
    predict.run(workspace, PredictOptions(paths, csv=True), Ui(quiet=True))
    rows = list(csv.DictReader(capfd.readouterr().out.splitlines()))
    p = model.predict(pictures)
    assert p.max(axis=1) == pytest.approx([float(row["score"]) for row in rows], abs=1e-6)
    square = np.stack([np.asarray(Image.fromarray(a).resize((32, 32), Image.Resampling.BILINEAR)) for a in pictures])
    assert model.predict(square) == pytest.approx(p, abs=1e-6)
    assert model.predict([str(paths[0]), pictures[1], *paths[2:]]) == pytest.approx(p, abs=1e-6)  # files, too
    assert model.predict(paths[0]) == pytest.approx(p[:1], abs=1e-6)
    assert repr(model) == f"Model({model.name!r}, classes=['birds', 'fruit'])"
    assert model.predict([]).shape == (0, 2)


@pytest.mark.parametrize(
    ("picture", "received"),
    [
        (np.zeros((8, 8, 3), np.float32), "float32"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\)"),
    ],
)
def test_arrays_that_are_no_pictures(trained, picture, received):
    with pytest.raises(VggftError, match=received):
        Experiment(trained[0].root, TINY).model().predict([picture])


@pytest.mark.parametrize(
    ("name", "reason"), [("gone.png", "cannot be read: No such file"), ("text.png", "not a picture")]
)
def test_files_that_are_no_pictures(tmp_path, name, reason):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(VggftError, match=rf"{name}: {reason}.* Expected a picture"):
        read_picture(tmp_path / name)


@pytest.mark.parametrize("what", [None, 7, Image.new("RGB", (8, 9))])
def test_what_is_no_array_is_named(trained, what):
    with pytest.raises(VggftError, match=f"{type(what).__name__}: expected a list of files or arrays"):
        Experiment(trained[0].root, TINY).model().predict(what)


def test_a_file_that_cannot_be_predicted_is_named(trained, tmp_path):
    with pytest.raises(VggftError, match=r"gone\.png: cannot be read: No such file.* Expected a picture"):
        Experiment(trained[0].root, TINY).model().predict([tmp_path / "gone.png"])


def test_keras_resizes_for_a_saved_network_as_the_documentation_says(trained, tmp_path):
    """Bilinear gives the pixels of training; load_img's default, nearest, does not."""
    from keras.utils import load_img

    from featurize.pixels import images

    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (300, 417, 3), np.uint8)).save(path)
    expected = images.decode_resized(path.read_bytes(), size=224, resize="bilinear")
    assert np.array_equal(load_img(path, target_size=(224, 224), interpolation="bilinear"), expected)
    assert not np.array_equal(load_img(path, target_size=(224, 224)), expected)


def test_one_picture_is_no_list_of_pictures(trained):
    with pytest.raises(VggftError, match=r"shape \(8, 9, 3\): expected \(n, height, width, 3\), or a list"):
        Experiment(trained[0].root, TINY).model().predict(np.zeros((8, 9, 3), np.uint8))


@pytest.mark.slow
def test_options_go_where_they_belong(featurized, tmp_path):
    shutil.copytree(featurized[0] / "work", tmp_path / "work")
    work = Experiment(tmp_path / "work", TINY)
    found = work.fit_heads(epochs=3, head=("max-linear",), class_weight="balanced", cv=0)
    assert [head["name"] for head in found["heads"]] == ["max-linear"]
    tuned = work.finetune(unfreeze="block3_conv2", epochs=1, optimizer="adam", name="mine")
    assert (tuned["name"], tuned["split_point"], tuned["epochs"]) == ("mine", "block3_conv1", 1)
    assert '"learning_rate": 0.0001' in (tmp_path / "work" / "finetune" / "mine" / "run.json").read_text()
    assert work.finetune(resume=True)["name"] == "mine"
    assert {head["name"] for head in work.fit_heads(epochs=3, head="max-256", cv=0)["heads"]} == {
        "max-linear",
        "max-256",
    }
    with pytest.raises(TypeError, match="epoch"):
        work.fit_heads(epoch=3)
    with pytest.raises(VggftError, match="no such head"):
        work.finetune(start="nobody")
    with pytest.raises(VggftError, match=r"--memory 2000000000\.0: expected an amount of memory"):
        work.finetune(memory=2e9)
    with pytest.raises(VggftError, match="--seed -1: expected a whole number, 0 or more"):
        work.featurize(featurized[0] / "data", seed=-1)
