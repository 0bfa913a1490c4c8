"""The comparison: rules that can be stated, numbers that can be recomputed."""

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from finetune.plan import Plan
from finetune.store import Run, Settings
from heads.head import Head
from heads.metrics import judge, losses
from heads.search import Result
from vggft.compare import CAVEAT, FAIR, Contrast, _recommend, bootstrap_interval
from vggft.methods import Method, _rank


def contrast(low, high, unchanged=False):
    return Contrast("avg-256", "block5-avg-256", unchanged, (low + high) / 2, (low, high))


@pytest.mark.parametrize(
    ("low", "high", "start"),
    [
        (-0.2, -0.1, "Use block5-avg-256: fine-tuning beats avg-256 (log-loss 0.1500 lower"),
        (0.1, 0.2, "Use avg-256: fine-tuning made it worse (log-loss 0.1500 higher"),
        (-0.1, 0.2, "Use avg-256: no difference to block5-avg-256 that these 40 images can show"),
    ],
)
def test_the_interval_decides(low, high, start):
    on_test = _recommend(contrast(low, high), 40, "test")
    assert on_test.startswith(start)
    assert on_test.endswith(f"; {FAIR}.")
    assert _recommend(contrast(low, high), 40, "validation") == on_test.replace(FAIR, CAVEAT)


def test_an_unchanged_network_never_wins_by_rounding():
    said = _recommend(contrast(-2e-6, -1e-6, unchanged=True), 40, "validation")
    assert said == f"Use avg-256: no epoch of fine-tuning was better than the head it started from; {CAVEAT}."


def metrics(log_loss):
    p = np.exp(-log_loss)
    return judge(np.array([[p, 1 - p], [1 - p, p]]), np.array([0, 1]))


def test_an_unchanged_network_is_never_the_best():
    def run(best_epoch):
        settings = Settings("r", "block5", "block4_pool", Plan(), 1, "best", {})
        classes, own = ("a", "b"), metrics(0.2)
        return Run(settings, "h", "0", {}, classes, 1, {}, best_epoch, "epochs", None, 0.0, 1.0, own, own, ())

    def method(name, made, loss):
        network = Path("n.keras") if isinstance(made, Run) else None
        return Method(
            name,
            "tuned" if network else "dense",
            1.0,
            10,
            metrics(loss),
            (),
            made,
            network,
            isinstance(made, Run) and made.best_epoch == 0,
        )

    head = method("head", Result(Head("head", "dense", "avg", ("a", "b"), ()), 1.0, metrics(0.2)), 0.2)
    copy, better = method("copy", run(0), 0.2 - 1e-7), method("better", run(3), 0.1)
    assert [m.name for m in sorted([copy, head, better], key=_rank)] == ["better", "head", "copy"]


def test_the_bootstrap_interval_covers():
    """95% intervals of a mean must hold the truth about 95 times in 100; 200 simulations, 3 standard errors allowed."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.normal(0.3, 1, 60))
        held += low <= 0.3 <= high
    assert 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200) <= held / 200
    assert bootstrap_interval(np.ones(5)) == (1, 1)


def test_losses_are_scikit_learns():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 50)
    p[0] = [0, 0.5, 0.5]
    targets = rng.integers(0, 3, 50)
    targets[0] = 0
    assert losses(p, targets).mean() == pytest.approx(log_loss(targets, p, labels=[0, 1, 2]))


def test_the_table_can_be_recomputed(trained):
    workspace, _, results = trained
    compared = results["compare"]
    assert compared["measured_on"] == "validation"
    with (workspace.report / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {m["name"] for m in compared["methods"]} == {row["method"] for row in rows}
    for method in compared["methods"]:
        own = [row for row in rows if row["method"] == method["name"]]
        truth = np.array([row["label"] == "fruit" for row in own])
        p = np.array([float(row["fruit"]) for row in own])
        assert method["n"] == len(own) == results["featurize"]["splits"]["validate"]
        assert method["accuracy"] == np.mean((p > 0.5) == truth)
        assert method["log_loss"] == pytest.approx(log_loss(truth, p))
        assert method["auc"] == pytest.approx(roc_auc_score(truth, p))
        low, high = method["accuracy_interval"]
        assert low <= method["accuracy"] <= high
    reported = {head["name"]: head["validation"] for head in results["head"]["heads"]}
    reported[results["finetune"]["name"]] = results["finetune"]["validation"]
    for method in compared["methods"]:
        assert method["log_loss"] == pytest.approx(reported[method["name"]]["log_loss"], abs=1e-6)
    assert (workspace.report / "curves.png").read_bytes().startswith(b"\x89PNG")
