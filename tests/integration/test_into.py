"""`vggft predict --into`: which files go where, what is refused, and `vggft undo`."""

import json
import os
import shutil

import numpy as np
import pytest
from conftest import paint, refused, snapshot, strict_json, vggft

from featurize.errors import VggftError
from heads.predictions import Predictions
from vggft.prediction import inference
from vggft.prediction.model import Model
from vggft.prediction.scoring import PixelScorer
from vggft.steps import predict
from vggft.steps.options import PredictOptions


def green(pictures):
    """Say fruit with the probability that the green channel is of 255: `paint` decides it."""
    p = pictures[:, 0, 0, 1:2] / 255
    return np.concatenate([1 - p, p], axis=1)


@pytest.fixture
def fake(trained, monkeypatch):
    """The trained workspace with a model that needs no network, and an unsure band below 0.75."""
    p = np.array([[0.1, 0.9], [0.2, 0.8], [0.7, 0.3]])
    monkeypatch.setattr(inference, "from_pixels", lambda model, workspace: PixelScorer(green, 4))
    monkeypatch.setattr(Model, "validation_predictions", lambda self: Predictions([], np.array([1, 1, 1]), p))
    return trained[0]


@pytest.fixture
def photos(tmp_path):
    """Two fruits, a bird, an unsure fruit, a file that is no picture, and a note."""
    for name, g in (("a/1.png", 255), ("b/1.png", 250), ("bird.png", 10), ("unsure.png", 153)):
        paint(tmp_path / "photos" / name, (0, g, 0))
    (tmp_path / "photos" / "broken.png").write_bytes(b"no picture")
    (tmp_path / "photos" / "notes.txt").write_text("mine")
    return tmp_path / "photos"


def run(workspace, ui, *paths, **options):
    return predict.run(workspace, PredictOptions.of(paths=paths, **options), ui)


def pictures(folder):
    return {path: data for path, data in snapshot(folder).items() if data and not path.endswith(".csv")}


@pytest.mark.parametrize("how", ["copy", "link", "move"])
def test_each_file_goes_into_the_folder_of_its_class(fake, photos, tmp_path, ui, how):
    before = snapshot(photos)
    folder = tmp_path / "sorted"
    found = run(fake, ui, photos, into=folder, how=how)
    second = next(name for name in pictures(folder) if name.startswith("fruit/1-"))
    expected = {"fruit/1.png": "a/1.png", second: "b/1.png"}
    expected |= {"birds/bird.png": "bird.png", "unsure/fruit/unsure.png": "unsure.png"}
    assert pictures(folder) == {name: before[source] for name, source in expected.items()}
    assert found["into"] == {
        "folder": str(folder),
        "how": how,
        "list": str(next(folder.glob("*.csv"))),
        "put": {"birds": 1, "fruit": 2, "unsure/fruit": 1},
        "there": 0,
    }
    assert (found["rejected"], found["failed"]) == (1, [])
    left = {"broken.png": b"no picture", "notes.txt": b"mine"}
    assert pictures(photos) == (left if how == "move" else pictures_of(before))
    after = snapshot(folder)
    if how != "move":  # again: nothing is new
        assert run(fake, ui, photos, into=folder, how=how)["into"]["there"] == 4
    else:
        assert run(fake, ui, photos, photos / "bird.png", into=folder, how=how)["into"]["put"] == {}
    assert snapshot(folder) == after
    done = vggft("undo", found["into"]["list"], "--json")
    assert (done.returncode, strict_json(done.stdout)) == (0, {"undone": 4, "failed": []})
    assert snapshot(photos) == before
    assert [path.suffix for path in folder.rglob("*")] == [".csv"]
    assert strict_json(vggft("undo", found["into"]["list"], "--json").stdout) == {"undone": 0, "failed": []}


def pictures_of(before):
    return {path: data for path, data in before.items() if data}


def test_a_folder_below_the_given_one_is_not_predicted(fake, photos, ui, capfd):
    folder = photos / "sorted"
    for there in (0, 4):
        found = run(fake, ui, photos, into=folder)
        assert found["into"]["there"] == there
        assert len(pictures(folder)) == 4
    paint(photos / "new.png", (0, 1, 0))
    assert run(fake, ui, photos, into=folder, how="move")["into"]["put"] == {"birds": 1}


def test_the_command_says_what_it_did(trained, photos, tmp_path):
    workspace, *_ = trained
    folder = tmp_path / "sorted photos"
    done = vggft("predict", photos, "--into", folder, "-w", workspace.root, "--csv")
    assert done.returncode == 3  # one file is rejected
    assert len(done.stdout.splitlines()) == 5
    assert f"copied 4 files into {folder}: " in done.stderr
    (path,) = folder.glob("*.csv")
    assert f"to undo it: vggft undo '{path}'" in done.stderr
    assert len(pictures(folder)) == 4
    done = vggft("predict", photos, "--into", folder, "-w", workspace.root, "--json-lines")
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 5
    assert "4 files already there, with the same bytes" in done.stderr
    (photos / "bird.png").unlink()
    done = vggft("undo", path)
    assert done.returncode == 3
    assert "so this may be the only copy" in done.stderr
    assert done.stdout == "undone: 3 files\n"
    assert len(pictures(folder)) == 1


def test_a_list_on_standard_input(fake, photos, tmp_path, ui, monkeypatch):
    import io
    import sys

    names = [photos / "a" / "1.png", photos / "gone.png", photos / "bird.png"]
    data = b"\n".join(os.fsencode(name) for name in names)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    found = run(fake, ui, "-", into=tmp_path / "sorted", how="move")
    assert found["into"]["put"] == {"birds": 1, "fruit": 1}
    assert found["rejected"] == 1
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    found = run(fake, ui, "-", into=tmp_path / "sorted", how="move")
    assert (found["into"]["there"], found["rejected"]) == (2, 1)


def test_a_file_that_is_given_twice_is_moved_once(fake, photos, tmp_path, ui):
    (tmp_path / "way").symlink_to(photos)
    twice = (photos, photos / "bird.png", tmp_path / "way" / "bird.png")
    found = run(fake, ui, *twice, into=tmp_path / "sorted", how="move")
    assert found["failed"] == []
    assert (found["into"]["put"], found["rejected"]) == ({"birds": 1, "fruit": 2, "unsure/fruit": 1}, 1)


def test_a_move_is_repeated_with_the_paths_it_began_with(fake, photos, tmp_path, ui):
    paths = [photos / "a" / "1.png", photos / "bird.png"]
    run(fake, ui, paths[0], into=tmp_path / "sorted", how="move")
    found = run(fake, ui, *paths, into=tmp_path / "sorted", how="move")
    assert (found["into"]["put"], found["into"]["there"]) == ({"birds": 1}, 1)
    assert run(fake, ui, *paths, into=tmp_path / "sorted", how="move")["into"]["there"] == 2
    with pytest.raises(VggftError, match="no such file"):
        run(fake, ui, *paths, into=tmp_path / "elsewhere", how="move")


def test_images_of_the_workspace_are_not_moved(again, tmp_path, ui, fake):
    """Nor are files of vggft; both can be copied."""
    data = again.dataset.root
    before = snapshot(data)
    with pytest.raises(VggftError, match=f"--how move: {data / 'birds'} lies in the data folder"):
        run(again, ui, data / "birds", into=tmp_path / "sorted", how="move")
    shutil.copytree(data / "birds", tmp_path / "more")
    paint(again.root / "picture.png", (0, 0, 0))
    (tmp_path / "data").symlink_to(data)
    found = run(again, ui, tmp_path, into=tmp_path / "sorted", how="move")
    assert snapshot(data) == before
    assert (again.root / "picture.png").exists()
    reasons = {left["reason"].partition(",")[0] for left in found["failed"]}
    assert reasons == {"in the data folder", "in the workspace"}
    assert sum(found["into"]["put"].values()) == 16
    assert len(list((tmp_path / "more").iterdir())) == 0
    assert run(again, ui, data, into=tmp_path / "copies")["failed"] == []
    assert snapshot(data) == before


def test_what_is_refused_before_anything_changes(again, photos, tmp_path):
    work, data = again.root, again.dataset.root
    (tmp_path / "file").write_text("mine")
    (tmp_path / "with").mkdir()
    (tmp_path / "with" / "birds").write_text("mine")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "birds").symlink_to(data / "birds")
    before = {folder: snapshot(folder) for folder in (work, data, photos, tmp_path / "with")}
    for into, message in (
        (data, "predicted files would lie in the data folder"),
        (data / "new", "predicted files would lie in the data folder"),
        (tmp_path / "link", "predicted files would lie in the data folder"),
        (work / "sorted", "predicted files would lie in the workspace"),
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "with", "is not a folder"),
        (photos, "stay where they are"),
        (tmp_path, "stay where they are"),
        ("", "an empty path"),
    ):
        assert message in refused("predict", photos, "--into", into, "-w", work)
    assert "expected --into FOLDER, too" in refused("predict", photos, "--how", "move", "-w", work)
    assert "--how steal: expected" in refused("predict", photos, "--into", "x", "--how", "steal", "-w", work).replace(
        "'", ""
    )
    assert "no list of vggft predict --into" in refused("undo", photos / "notes.txt")
    assert "No such file" in refused("undo", photos / "none.csv")
    assert {folder: snapshot(folder) for folder in before} == before
