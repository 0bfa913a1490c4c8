"""`vggft predict --grey`: scores of each image and of its grey version, as of a grey file made by hand."""

import csv
import io

import pytest
from conftest import drawings, refused, strict_json, vggft
from PIL import Image
from tiny import TINY

from featurize.pixels import images
from vggft.prediction import grey, inference
from vggft.prediction.scoring import Scored
from vggft.workspace.workspace import Workspace


@pytest.fixture
def pictures(tmp_path):
    """Six drawings, and a file that is none."""
    drawings(tmp_path / "pictures", 3, "birds", "flowers")
    (tmp_path / "pictures" / "broken.png").write_bytes(b"not a picture")
    return tmp_path / "pictures"


@pytest.fixture
def by_hand(pictures, tmp_path):
    """The same drawings in grey, as small as the network reads them."""
    for path in sorted(pictures.glob("*/*")):
        small = Image.fromarray(images.decode_resized(path.read_bytes(), TINY.size))
        target = tmp_path / "by-hand" / path.relative_to(pictures)
        target.parent.mkdir(parents=True, exist_ok=True)
        small.convert("L").convert("RGB").save(target)
    return tmp_path / "by-hand"


def predictions(*arguments):
    done = vggft("predict", "--json", *arguments)
    assert done.returncode in (0, 3), done.stderr  # 3: some files were rejected
    return strict_json(done.stdout)


@pytest.mark.parametrize("kind", ["head", "network"])
def test_scores_are_those_of_a_grey_file(again, trained, pictures, by_hand, kind):
    name = "logistic-max" if kind == "head" else trained[2]["finetune"]["name"]
    work = ("--model", name, "-w", again.root)
    found = predictions(pictures, "--grey", *work)
    plain, in_grey = predictions(pictures, *work)["predictions"], predictions(by_hand, *work)["predictions"]
    assert [entry["path"] for entry in found["predictions"]] == [entry["path"] for entry in plain]
    assert len(plain) == 6
    for both, colour, made in zip(found["predictions"], plain, in_grey, strict=True):
        assert both["probabilities"] == pytest.approx(colour["probabilities"], abs=1e-6)
        assert both["grey"]["probabilities"] == pytest.approx(made["probabilities"], abs=1e-4)
        assert both["grey"]["label"] == next(iter(both["grey"]["probabilities"]))
    assert any(abs(entry["score"] - entry["grey"]["score"]) > 1e-3 for entry in found["predictions"])
    differing = sum(entry["label"] != entry["grey"]["label"] for entry in found["predictions"])
    assert found["differing_in_grey"] == differing
    assert [entry["path"] for entry in found["rejected"]] == [str(pictures / "broken.png")]


def test_one_table_in_every_form(again, pictures):
    work = ("--grey", "--top", "2", "--model", "logistic-max", "-w", again.root)
    whole = predictions(pictures, *work)["predictions"]
    rows = list(csv.DictReader(io.StringIO(vggft("predict", pictures, "--csv", *work).stdout)))
    assert [*rows[0]] == (
        "path label score unsure label_2 score_2 grey_label grey_score grey_label_2 grey_score_2".split()
    )
    for row, entry in zip(rows, whole, strict=True):
        assert [row["grey_label"], row["grey_label_2"]] == list(entry["grey"]["probabilities"])
        assert float(row["grey_score"]) == entry["grey"]["score"]
        assert row["label"] == entry["label"]
    lines = vggft("predict", pictures, "--json-lines", *work).stdout.splitlines()
    assert [strict_json(line)["grey"] for line in lines if "reason" not in line] == [entry["grey"] for entry in whole]
    done = vggft("predict", pictures, "--grey", "--model", "logistic-max", "-w", again.root)
    title, *shown = done.stdout.splitlines()
    assert title.split() == ["class", "score", "in", "grey", "score", "image"]
    for line, entry in zip(shown, whole, strict=True):
        words = [word for word in line.split() if word != "?"]
        in_grey = entry["grey"]
        scores = [entry["label"], f"{entry['score']:.4f}", in_grey["label"], f"{in_grey['score']:.4f}", entry["path"]]
        assert words == scores
        assert line.index(entry["path"]) == title.index("image")
    number = sum(entry["label"] != entry["grey"]["label"] for entry in whole)
    assert f"in grey, another class is predicted for {number} of 6 images" in done.stderr


def test_features_of_grey_versions_are_cached_as_in_a_comparison(again, trained, pictures, monkeypatch):
    """Validation images were made grey by `compare`, and new ones are computed once."""
    data = trained[1]
    before = predictions(pictures, "--grey", "--model", "logistic-max", "-w", again.root)

    def start(*arguments):
        raise AssertionError("an engine was started")

    monkeypatch.setattr(inference, "start_engine", start)
    after = predictions(pictures, "--grey", "--model", "logistic-max", "-w", again.root)
    for first, second in zip(before["predictions"], after["predictions"], strict=True):
        assert second["grey"]["probabilities"] == pytest.approx(first["grey"]["probabilities"], abs=1e-6)
    validation = [data / sample.path for sample in again.dataset.accepted("validate")]
    done = predictions(*validation, "--grey", "--model", "logistic-max", "-w", again.root)
    assert len(done["predictions"]) == len(validation) > 0


def test_not_while_sorting(again, pictures, tmp_path):
    said = refused("predict", pictures, "--grey", "--into", tmp_path / "into", "-w", again.root)
    assert "--grey with --into: images are sorted as they are" in said
    assert not (tmp_path / "into").exists()


def test_a_file_that_changes_between_the_two_readings_is_rejected(trained, pictures, monkeypatch):
    workspace = Workspace(trained[0].root, TINY)
    path = next(pictures.glob("birds/*"))
    forms = iter([[Scored(path, "one")], [Scored(path, "other")]])
    monkeypatch.setattr(grey.scoring, "scored", lambda *arguments: (scored for scored in next(forms)))
    ((first, second),) = grey.beside([], workspace, None, None)
    assert first.reason == second.reason == "changed while it was predicted"
