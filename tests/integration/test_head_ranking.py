"""`vggft head` with few validation images: ranking by folds, and how sure the order is said to be."""

import re

import pytest
from conftest import drawings, vggft
from test_head_command import head_json


@pytest.mark.slow
def test_few_validation_images_are_ranked_by_folds_and_the_order_is_said_to_be_unsure(copied, monkeypatch):
    work, picked = copied / "work", ("--head", "logistic-avg", "--head", "max-linear", "--epochs", "2")
    done = vggft("head", "-w", work, *picked)
    assert "cross-validating 2 heads with 5 folds, about" in done.stderr
    assert "Heads on 24 images that they were not trained on, lowest log-loss first" in done.stdout
    sure = next(line for line in done.stdout.splitlines() if line.startswith("how sure: "))
    assert re.fullmatch(
        r"how sure: [a-z-]+ ranks first in \d+% of bootstrap resamples of the images; "
        r"(1 of 1 other is not significantly worse|the other is significantly worse)",
        sure,
    )
    again = vggft("head", "-w", work, *picked)
    assert "cross-validating" not in again.stderr  # it is done
    assert sure in again.stdout
    monkeypatch.setattr("heads.plan.FEW", 4)  # validation images are not fewer than that
    many = head_json(work, "--head", "max-256", "--epochs", "2")
    assert many["ranked_by"] == "validation"
    assert "folds" not in next(h for h in many["heads"] if h["name"] == "max-256")
    assert many["order"]["first"] <= 1


def test_where_no_folds_can_be_made_the_ranking_is_by_validation(tmp_path):
    drawings(tmp_path / "data" / "train", 1, "bugs", "flowers")
    drawings(tmp_path / "data" / "validate", 3, "bugs", "flowers")
    for path in (tmp_path / "data" / "validate").glob("*/*"):
        if (tmp_path / "data" / "train" / path.parent.name / path.name).exists():
            path.unlink()
    assert vggft("featurize", tmp_path / "data", "-w", tmp_path / "work").returncode == 0
    found = head_json(tmp_path / "work", "--head", "logistic-avg", "--head", "max-linear", "--epochs", "2")
    assert found["ranked_by"] == "validation"
    assert len(found["trained"]) == 2


@pytest.mark.slow
def test_a_damaged_file_of_predictions_hides_only_how_sure_the_order_is(copied):
    work, picked = copied / "work", ("--head", "logistic-avg", "--head", "max-linear", "--epochs", "2")
    head_json(work, *picked)
    (work / "heads" / "max-linear" / "out_of_fold.csv").write_text("path,label\n")
    done = vggft("head", "-w", work, *picked)
    assert done.returncode == 0
    assert "out_of_fold.csv: missing or damaged" in done.stderr
    assert "Train the head again, with --retrain." in done.stderr
    assert "how sure" not in done.stdout


def test_a_head_that_is_replaced_loses_its_folds_and_says_so(copied):
    work = copied / "work"
    head_json(work, "--head", "max-linear", "--epochs", "2")
    done = vggft("head", "--head", "max-linear", "--epochs", "3", "--cv", "0", "-w", work)
    assert "out-of-fold predictions are gone with the heads that were replaced: max-linear" in done.stderr
    assert not (work / "heads" / "max-linear" / "out_of_fold.csv").exists()
