"""Comparisons with a known result, numbers recomputed, and unusual names."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sk
from small_compare import (
    by_model,
    compared,
    heads_alone,
    predictions,
    recompute,
    written,
)

from heads.metrics import losses
from vggft.comparison import statistics
from vggft.comparison.advice import selection_unreliable
from vggft.comparison.comparison import NoPValue
from vggft.comparison.report import tables, terminal
from vggft.comparison.verdict import Outcome
from vggft.ui.console import Ui


def test_losses_are_scikit_learns():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 50)
    p[0] = [0, 0.5, 0.5]
    targets = rng.integers(0, 3, 50)
    targets[0] = 0
    assert losses(p, targets).mean() == pytest.approx(sk.log_loss(targets, p, labels=[0, 1, 2]))


@pytest.mark.parametrize(
    ("gain", "use", "outcome"),
    [(2.0, "net", Outcome.NETWORK_WINS), (-2.0, "head", Outcome.HEAD_WINS), (0, "head", Outcome.NO_DIFFERENCE)],
)
def test_three_data_sets_of_which_the_answer_is_known(gain, use, outcome):
    found = compared(predictions(gain, seed=1))
    assert found.use == use
    assert found.verdict.outcome is outcome
    first = found.first
    assert (first.a, first.b) == ("net", "head")
    assert (first.p_value < 0.001) == (gain != 0)
    assert np.sign(first.accuracy_difference) == np.sign(gain) or gain == 0


@pytest.mark.slow
def test_no_difference_is_rarely_taken_for_one(monkeypatch):
    """Of 60 comparisons of models that are alike, 3 are expected to end in a claim: 3 standard errors more are allowed."""
    monkeypatch.setattr(statistics, "DRAWS", 300)
    claims = sum(
        compared(predictions(0, n=120, seed=seed)).verdict.outcome is not Outcome.NO_DIFFERENCE for seed in range(60)
    )
    assert claims <= 3 + 3 * math.sqrt(60 * 0.05 * 0.95)


def test_every_number_can_be_recomputed_and_p_values_are_corrected(tmp_path):
    _, result = written(compared(predictions(0.8)), tmp_path)
    right = recompute(tmp_path / "report", result)
    first, *others = result["pairs"]
    assert (first["a"], first["b"]) == ("net", "head")
    assert len(others) == 5
    for one in result["pairs"]:
        a, b = right[one["a"]], right[one["b"]]
        assert one["p_value_uncorrected"] == pytest.approx(binomtest(int((a & ~b).sum()), int((a ^ b).sum())).pvalue)
    assert first["p_value"] == first["p_value_uncorrected"]
    ordered = sorted(others, key=lambda one: one["p_value_uncorrected"])
    running = 0.0
    for i, one in enumerate(ordered):
        running = max(running, min(1, (5 - i) * one["p_value_uncorrected"]))
        assert one["p_value"] == pytest.approx(running)
    kept = json.loads((tmp_path / "report" / "compare.json").read_text())
    assert kept == json.loads(json.dumps(result))
    with (tmp_path / "report" / "compare.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for method in result["methods"]:
        row = rows[method["name"]]
        assert float(row["log_loss"]) == method["log_loss"]
        assert float(row["accuracy_interval_high"]) == method["accuracy_interval"][1]
        assert float(row["class.class1.recall"]) == method["per_class"][1]["recall"]
        assert float(row["macro.f1"]) == method["macro"]["f1"]
        assert int(row["confusion.class0/class1"]) == method["confusion"][0][1]


def test_images_that_belong_together_have_no_p_value(tmp_path):
    groups = [f"video {i // 3}" for i in range(300)]
    found = compared(predictions(0.8, groups=groups, declared=True))
    assert found.no_p_value is NoPValue.GROUPED
    assert all(one.p_value is None for one in found.pairs)
    alone = compared(predictions(0.8, declared=True))
    assert alone.first.p_value == compared(predictions(0.8)).first.p_value > 0
    assert found.first.log_loss_interval != alone.first.log_loss_interval
    _, result = written(found, tmp_path)
    assert result["groups"] == 100


def test_one_of_each_set_of_near_duplicates_is_tested(tmp_path, ui, capsys):
    """Three copies of each image without declared groups count as one image."""
    once = predictions(0.8, n=100)
    thrice = replace(
        once,
        samples=[replace(s, path=f"{k}{s.path}", digest=f"{k}{s.digest}") for k in range(3) for s in once.samples],
        targets=np.tile(once.targets, 3),
        candidates=[replace(c, probabilities=np.tile(c.probabilities, (3, 1))) for c in once.candidates],
    )
    assert thrice.apart.tolist() == list(range(100))
    alone, found = (compared(said) for said in (once, thrice))
    assert [one.p_value for one in found.pairs] == [one.p_value for one in alone.pairs]
    assert found.verdict.images_needed == alone.verdict.images_needed
    assert found.first.accuracy_interval == pytest.approx(alone.first.accuracy_interval)
    assert found.first.log_loss_interval == pytest.approx(alone.first.log_loss_interval, abs=0.01)
    kept, result = written(found, tmp_path)
    recompute(tmp_path / "report", result)
    terminal.show(kept, Ui())
    assert "(100 images, one of each set of near-duplicates)" in " ".join(capsys.readouterr().out.split())


def test_a_best_head_that_does_not_lead_the_table_is_explained(tmp_path, capsys):
    found = compared(predictions(0.8))
    kept, _ = written(found, tmp_path)
    heads = [row.name for row in found.rows if row.candidate.kind != "tuned"]
    for best, ranked_by, explained in (
        (heads[1], "folds", True),
        (heads[0], "folds", False),
        (heads[1], "validation", False),
    ):
        shown = replace(found, contrast=replace(found.contrast, head=best))
        terminal.show(replace(kept, comparison=shown, ranked_by=ranked_by), Ui())
        assert (f"{best} is the best head by cross-validation" in capsys.readouterr().out) == explained


@pytest.mark.parametrize(
    ("kinds", "versus"),
    [(("dense", "dense", "logistic"), "poor"), (("logistic", "dense", "dense"), "other"), (("dense", "dense"), None)],
)
def test_heads_alone_are_compared_with_the_best_of_the_other_kind(kinds, versus, tmp_path, capsys):
    found = compared(heads_alone(predictions(0), *kinds))
    kept, result = written(found, tmp_path)
    recompute(tmp_path / "report", result)
    assert (result["outcome"], result["use"]) == ("heads_only", "head")
    contrast = {"head": "head", "tuned": None, "in_workspace": {"head": "head"}}
    assert {key: result["contrast"][key] for key in contrast} == contrast
    assert result["contrast"]["p_value"] is result["contrast"]["log_loss_difference_interval"] is None
    assert (found.first and (found.first.a, found.first.b)) == (versus and ("head", versus))
    if versus:  # it was planned: no correction
        assert found.first.p_value == found.first.p_value_uncorrected
    terminal.show(kept, Ui())
    shown = capsys.readouterr().out
    assert shown.startswith(f"Use head, the best of {len(kinds)} heads")
    assert (f"head against {versus}: accuracy" in shown) == bool(versus)
    assert "net" not in shown.replace("network", "")


def test_the_baseline_is_the_first_by_rank_whatever_these_images_say(tmp_path, capsys):
    """Of two logistic regressions, the worse one here is ranked first; verdict, table and plots are about that one."""
    of = heads_alone(predictions(0), "dense", "logistic", "logistic")
    by_name = {candidate.name: candidate for candidate in of.candidates}
    found = compared(replace(of, candidates=[by_name[name] for name in ("head", "poor", "other")]))
    assert found.baseline == found.first.b == "poor"
    assert [row.name for row in found.in_focus] == ["head", "poor"]
    kept, _ = written(found, tmp_path)
    assert "poor" in {row.name for row in tables.most_important(kept)}


def test_few_images_do_not_compare_heads(tmp_path):
    found = compared(heads_alone(predictions(0, n=9), "dense", "logistic", "dense"))
    _, result = written(found, tmp_path)
    few = "9 images are too few for a comparison with other, the best logistic regression (at least 10 are needed)"
    assert f"Use head, the best of 3 heads: {few}; the heads were" in result["recommendation"]


def test_a_single_head(tmp_path):
    found = compared(heads_alone(predictions(0), "dense"))
    files = tmp_path / "report"
    written(compared(predictions(0)), tmp_path)
    assert (files / "pairs.csv").exists()
    _, result = written(found, tmp_path)
    assert result["recommendation"] == "Use head, the only head."
    assert result["pairs"] == []
    assert not (files / "pairs.csv").exists()  # those of the comparison before


@pytest.mark.parametrize("classes", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_many_classes(tmp_path, classes, ui, capsys):
    found = compared(predictions(1.0, n=90, classes=classes))
    kept, result = written(found, tmp_path)
    recompute(tmp_path / "report", result)
    terminal.show(kept, ui)
    assert (result["methods"][0]["auc"] is None) == (classes == 100)  # not every class has an image


def test_a_class_may_be_called_like_a_column(tmp_path):
    said = predictions(0.8)
    found = compared(replace(said, classes=["macro", "weighted"]))
    _, result = written(found, tmp_path)
    with (tmp_path / "report" / "compare.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for method in result["methods"]:
        assert float(rows[method["name"]]["macro.f1"]) == method["macro"]["f1"]
        assert float(rows[method["name"]]["class.macro.f1"]) == method["per_class"][0]["f1"]


def test_dots_in_names_of_classes_mix_up_no_columns(tmp_path):
    found = compared(replace(predictions(0.8), classes=["1", "1.1"]))
    _, result = written(found, tmp_path)
    with (tmp_path / "report" / "compare.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for method in result["methods"]:
        row = rows[method["name"]]
        counts = [[int(row[f"confusion.{true}/{said}"]) for said in ("1", "1.1")] for true in ("1", "1.1")]
        assert counts == method["confusion"]
        assert [int(row[f"class.{name}.n"]) for name in ("1", "1.1")] == [one["n"] for one in method["per_class"]]


@pytest.mark.slow
def test_of_many_models_the_important_ones_are_shown(tmp_path, capsys):
    """The five best, the baseline, the networks and the pair; the others are counted."""
    of = predictions(0.5)
    by_name = {candidate.name: candidate for candidate in of.candidates}
    names = [f"head{i}" for i in range(20)]
    worst = replace(by_name["poor"], name="logistic-avg", kind="logistic")
    more = [replace(by_name["other"], name=name, probabilities=by_name["other"].probabilities) for name in names]
    of = replace(of, candidates=[*of.candidates, worst, *more])
    kept, _ = written(compared(of), tmp_path)
    terminal.show(kept, Ui())
    table = capsys.readouterr().out.split("lowest log-loss first")[1].split("other models")[0]
    shown = [line.split()[0] for line in table.splitlines() if "0." in line]
    assert {"net", "head", "logistic-avg"} <= set(shown)
    assert len(shown) <= 8
    assert table.split()[-1] == str(len(of.candidates) - len(shown))


def test_mistakes_are_named_the_most_confident_first(tmp_path, capsys):
    found = compared(predictions(0.5))
    kept, result = written(found, tmp_path)
    rows = by_model(tmp_path / "report" / "predictions.csv")[found.used_row.name]
    wrong = {row["path"]: float(row[f"p_{row['predicted']}"]) for row in rows if row["predicted"] != row["label"]}
    listed = {one["path"]: one["score"] for one in result["misclassified"]}
    assert listed == wrong
    assert list(listed.values()) == sorted(wrong.values(), reverse=True)
    terminal.show(kept, Ui())
    shown = capsys.readouterr().out
    assert f"{len(wrong)} of 300 images misclassified by {found.used_row.name}" in shown
    assert all((f" {path} " in shown) == (i < 5) for i, path in enumerate(listed))


@pytest.mark.parametrize("columns", [60, 80, 110])
def test_numbers_are_never_cut(tmp_path, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    said = predictions(0.8)
    long = [replace(c, name=f"block5-logistic-avgmax-adam-lr1e-05-{c.name}") for c in said.candidates]
    names = {"head": long[1].name, "network": long[0].name}
    kept, result = written(compared(replace(said, candidates=long, **names), *names.values()), tmp_path)
    terminal.show(kept, Ui())
    shown = capsys.readouterr().out
    for method in result["methods"]:
        low, high = method["accuracy_interval"]
        assert f"{low:.3f}–{high:.3f}" in shown
        assert f"{method['log_loss']:.4f}" in shown


def test_folds_in_which_the_models_of_the_workspace_differ():
    """The selection procedures do equally well; the models they select in the workspace do not."""
    of = predictions(2.0, source="folds")
    by_name = {candidate.name: candidate for candidate in of.candidates}
    ways = [replace(by_name["other"], name="best head"), replace(by_name["other"], name="best network")]
    of = replace(of, candidates=[*ways, *of.candidates], head="best head", network="best network")
    found = compared(of)
    assert found.verdict.outcome is Outcome.NO_DIFFERENCE
    assert found.use == "head"
    assert found.in_workspace == {"best head": "head", "best network": "net"}
    assert found.used_row.name == "best head"
    (unreliable,) = selection_unreliable(found)
    assert (unreliable.better, unreliable.worse) == ("net", "head")
    pair = next(pair for pair in found.pairs if {pair.a, pair.b} == {"net", "head"})
    assert unreliable.log_loss == abs(pair.log_loss_difference)
    assert selection_unreliable(compared(of, "head", "other")) == []
