"""What `vggft sort --review` shows: label issues and misclassified images, each once, and none of the test split."""

from dataclasses import replace

import pytest
from conftest import drawings, vggft
from tiny import TINY

from featurize.disk import forms
from featurize.errors import VggftError
from heads import predictions
from vggft.labelling import review
from vggft.labelling.review import ReviewItem
from vggft.prediction import selection
from vggft.workspace.workspace import Workspace


def reviewed(workspace):
    """Return the review items, and the messages shown with them."""
    said = []
    return review.items(workspace, said.append), said


def mistakes(workspace):
    """Return file → (predicted class, 1 − probability of the label) where the model that predicts is wrong."""
    model = selection.choose(workspace, None).model
    wrong = {}
    for sample, p in zip(*_predicted(model), strict=True):
        best = model.classes[p.argmax()]
        if best != sample.label:
            wrong[sample.path] = best, pytest.approx(1 - p[model.classes.index(sample.label)])
    return model, wrong


def _predicted(model):
    out_of_fold = model.folder / "out_of_fold.csv"
    stored = predictions.read(out_of_fold if out_of_fold.exists() else model.folder / predictions.FILE, model.classes)
    return stored.samples, stored.probabilities


def write_suspects(workspace, *rows):
    forms.write_csv(workspace.suspects, ["path", "label", "predicted", "score"], rows)


def test_misclassified_images_without_label_issues(again):
    items, said = reviewed(again)
    model, wrong = mistakes(again)
    assert len(wrong) > 1, "the tiny network makes no mistakes: the test shows nothing"
    assert {item.file: (item.suggested, item.probability) for item in items} == wrong
    assert {item.reason for item in items} == {f"misclassified by {model.name}"}
    assert [item.probability for item in items] == sorted((item.probability for item in items), reverse=True)
    assert said == [f"label issues were not looked for. To find them, run first: vggft head --suspects -w {again.root}"]


def test_each_image_once_the_most_suspicious_first(again):
    model, wrong = mistakes(again)
    both = next(iter(wrong))
    label = both.split("/")[0]
    right = next(s for s in again.dataset.accepted() if s.path not in wrong)
    other = next(name for name in again.settings.classes if name != right.label)
    write_suspects(
        again,
        (both, label, wrong[both][0], 0.99),
        (right.path, right.label, other, 0.98),
        ("birds/moved since.png", "birds", "fruit", 0.97),
        (right.path, other, right.label, 0.96),  # it has been corrected
    )
    items, said = reviewed(again)
    assert items[:2] == [
        ReviewItem(both, label, wrong[both][0], 0.99, f"label issue, misclassified by {model.name}"),
        ReviewItem(right.path, right.label, other, 0.98, "label issue"),
    ]
    assert {item.file for item in items} == {*wrong, right.path}
    assert len(items) == len(wrong) + 1
    assert said == []


def test_test_images_are_left_out(again):
    _, wrong = mistakes(again)
    dataset = again.dataset
    tested, *rest = wrong
    write_suspects(again, (tested, tested.split("/")[0], wrong[tested][0], 0.9))
    samples = tuple(replace(s, split="test") if s.path == tested else s for s in dataset.samples)
    again.__dict__["dataset"] = replace(dataset, samples=samples)
    items, said = reviewed(again)
    assert {item.file for item in items} == set(rest)
    assert any(line.startswith("1 test image left out: ") for line in said)


def test_labels_that_were_corrected_are_not_shown_again(again):
    """The models are stale then; what they predict is compared with the new labels."""
    _, wrong = mistakes(again)
    dataset = again.dataset
    corrected = next(iter(wrong))
    samples = tuple(replace(s, label=wrong[s.path][0]) if s.path == corrected else s for s in dataset.samples)
    again.__dict__["dataset"] = replace(dataset, samples=samples)
    items, said = reviewed(again)
    assert corrected not in {item.file for item in items}
    assert len(items) == len(wrong) - 1
    assert any("is stale: images, labels or splits have changed" in line for line in said)


def test_a_damaged_list_is_left_out(again):
    again.suspects.write_text("path,label\nx,y\n")
    items, said = reviewed(again)
    assert len(items) == len(mistakes(again)[1])
    assert said[0].startswith(f"left out: {again.suspects} is damaged")


def test_predictions_that_are_missing(again):
    model, _ = mistakes(again)
    for name in ("out_of_fold.csv", predictions.FILE):
        (model.folder / name).unlink(missing_ok=True)
    with pytest.raises(VggftError, match=rf"predictions\.csv is missing\. Train {model.name} again"):
        reviewed(again)


def test_no_workspace_and_no_heads(featurized, tmp_path):
    with pytest.raises(VggftError, match=r"no features here yet\. Run first: vggft featurize DATA"):
        reviewed(Workspace(tmp_path / "work", TINY))
    with pytest.raises(VggftError, match=r"no heads here yet\. Run first: vggft head"):
        reviewed(Workspace(featurized[0] / "work", TINY))


def test_suspects_of_vggft_head_are_found(tmp_path):
    """A flower among the bugs: the list that `vggft head --suspects` wrote is read as it is."""
    data = drawings(tmp_path / "data", 12, "bugs", "flowers")
    assert vggft("featurize", data, "-w", tmp_path / "work").returncode == 0
    done = vggft("head", "-w", tmp_path / "work", "--suspects", "--head", "logistic-max")
    assert done.returncode == 0, done.stderr
    workspace = Workspace(tmp_path / "work", TINY)
    rows = forms.parse_csv(workspace.suspects.read_bytes())
    assert rows
    items, said = reviewed(workspace)
    issues = {item.file: item for item in items if item.reason.startswith("label issue")}
    assert issues.keys() == {row["path"] for row in rows}
    assert all(issues[row["path"]].probability == float(row["score"]) for row in rows)
    assert said == []
