"""The comparison: rules that can be stated, numbers that can be recomputed."""

import csv
import json
import math
import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import snapshot
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics as sk

from featurize import timings, upkeep
from featurize.backend import load_keras
from featurize.dataset import Sample
from featurize.errors import VggftError
from featurize.probes import PROBES
from finetune.plan import Plan
from finetune.store import Run, Settings
from heads.head import Head
from heads.metrics import judge, losses
from heads.search import Result
from vggft import costs, judging, methods, outer, probing, statistics
from vggft.commands import cache
from vggft.commands import compare as command
from vggft.compare import weigh
from vggft.console import Ui
from vggft.evidence import Candidate, Evidence, on_split
from vggft.methods import Method, _rank
from vggft.report import record, tables
from vggft.report.record import Record
from vggft.verdict import CAVEAT, FAIR, Pair, decide
from vggft.workspace import Workspace


def pair(log_loss, accuracy=(-0.01, 0.01), only=(4, 3), independent=200, counted=None, effective=None):
    middle = sum(log_loss) / 2
    difference = (only[0] - only[1]) / 200
    effective = effective or independent
    return Pair(
        "net", "head", 200, difference, accuracy, middle, log_loss, *only, effective, independent, counted or only
    )


@pytest.mark.parametrize(
    ("contrast", "use", "said"),
    [
        (pair((-0.2, -0.1)), "net", "fine-tuning beats head (log-loss 0.1500 lower, 95% interval"),
        (pair((-0.2, -0.1), (-0.08, -0.02), (1, 11)), "net", "although net gets 5.0 of 100 images fewer right"),
        (
            pair((-0.0098, -0.001)),
            "head",
            "net lowers log-loss by less than the 0.01 that would be worth its cost (log",
        ),
        (pair((-0.0101, -0.001)), "net", "fine-tuning beats head"),
        (pair((-0.0099, -0.001), (0.02, 0.08), (11, 1)), "head", "although net gets 5.0 of 100 images more right"),
        (pair((0.1, 0.2)), "head", "net is worse (log-loss 0.1500 higher"),
        (pair((0.1, 0.2), (0.02, 0.08), (11, 1)), "head", "although net gets 5.0 of 100 images more right"),
        (pair((-0.1, 0.2)), "head", "no difference to net that these 200 images can show (it would take about 10,9"),
        (
            pair((-0.1, 0.2), only=(5, 5)),
            "head",
            "(they get equally many right: it would take more than 100,000 like these",
        ),
        (pair((-0.1, 0.2), (0.02, 0.08), (11, 1)), "head", "no difference in log-loss that these 200 images can show"),
        (pair((-0.1, 0.2), (0.02, 0.08), (11, 1)), "head", "but net gets 5.0 of 100 images more right: take that if"),
        (
            pair((-0.1, 0.2), (-0.08, -0.02), (1, 11)),
            "head",
            "and it is cheaper; but net gets 5.0 of 100 images fewer right;",
        ),
        (pair((-0.2, -0.1), only=(0, 0)), "net", "although they get the same images right"),
        (
            pair((-0.2, -0.1), independent=60, effective=9.9),
            "head",
            "200 images, in groups that count as 9.9, are too few to tell it from net (10 at least)",
        ),
        (pair((-0.2, -0.1), independent=10), "net", "fine-tuning beats head"),
        (
            pair((-0.1, 0.2), only=(18, 2)),
            "head",
            "that these 200 images can show, and it is cheaper",
        ),  # not: about 60
        (
            pair((-0.1, 0.2), independent=40, counted=(2, 1)),
            "head",
            "(it would take about 940 that do not belong together to show one in accuracy), and it is cheaper;",
        ),
        (
            pair((-0.1, 0.2), only=(4, 4), independent=40, counted=(2, 1)),
            "head",
            "can show (it would take about 940 that",
        ),
        (
            pair((-0.1, 0.2), independent=40, counted=(2, 2)),
            "head",
            "can show (of one image of each group they get equally many right: it would take more than 100,000 that",
        ),
    ],
)
def test_the_rules(contrast, use, said):
    found = decide(contrast, "head", "net", False, FAIR)
    assert found.use == use
    assert found.sentence.startswith(f"Use {use}: ")
    assert said in found.sentence
    assert found.sentence.endswith(f"; {FAIR}.")
    assert found.sentence.count("\n") == 0


def test_images_needed_is_the_number_that_is_said():
    found = decide(pair((-0.1, 0.2), only=(9, 3)), "head", "net", False, FAIR)
    discordant, difference = 12 / 200, 6 / 200
    by_hand = (1.959964 * math.sqrt(discordant) + 0.841621 * math.sqrt(discordant - difference**2)) ** 2 / difference**2
    assert found.images_needed == math.ceil(by_hand)
    assert f"about {found.images_needed:,} like these" in found.sentence
    assert decide(pair((-0.1, 0.2), only=(5, 5)), "head", "net", False, FAIR).images_needed is None
    shown = pair((-0.1, 0.2), (0.02, 0.08), (11, 1))  # a difference in accuracy that these images do show
    assert decide(shown, "head", "net", False, FAIR).images_needed is None
    grouped = pair((-0.1, 0.2), only=(18, 6), independent=200, counted=(9, 3))  # one of each group is counted
    assert decide(grouped, "head", "net", False, FAIR).images_needed == found.images_needed


def test_an_unchanged_network_never_wins_by_rounding():
    said = decide(pair((-2e-6, -1e-6)), "head", "net", True, CAVEAT)
    assert said.sentence == f"Use head: no epoch of fine-tuning was better than the head it started from; {CAVEAT}."


def metrics(log_loss):
    p = np.exp(-log_loss)
    return judge(np.array([[p, 1 - p], [1 - p, p]]), np.array([0, 1]))


def head_method(name, loss):
    made = Result(Head(name, "dense", "avg", ("a", "b"), ()), 1.0, metrics(loss))
    return Method(name, "dense", 1.0, 10, metrics(loss), (), made)


def network_method(name, loss, best_epoch=3):
    settings = Settings("r", "block5", "block4_pool", Plan(), 1, "best", {})
    own = metrics(0.2)
    made = Run(settings, "h", "0", {}, ("a", "b"), 1, {}, best_epoch, "epochs", None, 0.0, 1.0, own, own, ())
    return Method(name, "tuned", 1.0, 10, metrics(loss), (), made, Path("n.keras"), best_epoch == 0)


def test_an_unchanged_network_is_never_the_best():
    methods = [network_method("copy", 0.2 - 1e-7, 0), head_method("head", 0.2), network_method("better", 0.1)]
    assert [m.name for m in sorted(methods, key=_rank)] == ["better", "head", "copy"]


def test_what_is_compared_was_chosen_before_these_images_were_looked_at(trained, ui, monkeypatch):
    """The first head and the first network are the best on validation; on these images they are the worst of all."""
    workspace = trained[0]
    heads = tuple(head_method(name, 0.1 * i) for i, name in enumerate(["chosen head", "h2", "h3"], start=1))
    networks = tuple(network_method(name, 0.1 * i) for i, name in enumerate(["chosen network", "n2", "n3"], start=1))

    def fake(part, workspace, cache, samples):
        right = np.eye(2)[workspace.dataset.targets(samples)]
        bad = {method.name: method.name.startswith("chosen") for method in part}
        return {name: 0.1 + 0.8 * (1 - right if worst else right) for name, worst in bad.items()}

    monkeypatch.setattr(judging, "judge", fake)
    said = on_split(workspace, methods.Methods(heads, networks, ()), "validation", ui.warn, ui)
    assert (said.head, said.network) == ("chosen head", "chosen network")
    found = weigh(said, "chosen head", "chosen network", unchanged=False)
    assert (found.contrast.b, found.contrast.a) == ("chosen head", "chosen network")
    assert {row.name for row in found.rows[-2:]} == {"chosen head", "chosen network"}


def test_losses_are_scikit_learns():
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), 50)
    p[0] = [0, 0.5, 0.5]
    targets = rng.integers(0, 3, 50)
    targets[0] = 0
    assert losses(p, targets).mean() == pytest.approx(sk.log_loss(targets, p, labels=[0, 1, 2]))


def evidence(gain, *, n=300, classes=2, source="test", groups=None, declared=False, seed=0):
    """Return what a head, a tuned network that is `gain` better in logits, and two more heads say of n images."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    truth = np.eye(classes)[targets]
    shared = 1.2 * rng.normal(size=(n, classes)) + 2.2 * truth

    def said(better):
        return softmax(shared + better * truth + 0.7 * rng.normal(size=(n, classes)), axis=1)

    named = {"net": said(gain), "head": said(0), "other": said(0), "poor": said(-1.5)}
    samples = [
        Sample(f"{i}.png", f"class{t}", group=groups[i] if groups else str(i), digest=f"{i:064x}")
        for i, t in enumerate(targets)
    ]
    candidates = [Candidate(name, "dense", p, None) for name, p in named.items()]
    return Evidence(
        source, [f"class{c}" for c in range(classes)], samples, targets, candidates, "head", "net", declared
    )


@pytest.mark.parametrize(
    ("gain", "use", "words"), [(2.0, "net", "beats"), (-2.0, "head", "worse"), (0, "head", "no difference")]
)
def test_three_data_sets_of_which_the_answer_is_known(gain, use, words):
    found = weigh(evidence(gain, seed=1), "head", "net", unchanged=False)
    assert found.verdict.use == use
    assert words in found.verdict.sentence
    contrast = found.contrast
    assert (contrast.a, contrast.b) == ("net", "head")
    assert (contrast.p_value < 0.001) == (gain != 0)
    assert np.sign(contrast.accuracy_difference) == np.sign(gain) or gain == 0


def test_no_difference_is_rarely_taken_for_one(monkeypatch):
    """Of 100 comparisons of methods that are alike, 5 are expected to end in a claim: 3 standard errors more are allowed."""
    monkeypatch.setattr(statistics, "DRAWS", 500)
    claims = sum(
        "no difference" not in weigh(evidence(0, n=120, seed=seed), "head", "net", unchanged=False).verdict.sentence
        for seed in range(100)
    )
    assert claims <= 5 + 3 * math.sqrt(100 * 0.05 * 0.95)


def by_method(path):
    """Read per-image predictions: method → rows."""
    found = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["method"], []).append(row)
    return found


def arrays(rows, classes):
    """Return targets and probabilities of one method's rows."""
    targets = np.array([classes.index(row["label"]) for row in rows])
    return targets, np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])


def top_label_calibration(p, targets, bins=15):
    confidence, right = p.max(axis=1), p.argmax(axis=1) == targets
    error = 0.0
    for k in range(bins):
        own = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if own.any():
            error += own.mean() * abs(right[own].mean() - confidence[own].mean())
    return error


def recompute(folder, result):
    """Compute every number of the methods and pairs again from predictions.csv."""
    classes, rows = result["classes"], by_method(folder / "predictions.csv")
    assert set(rows) == {method["name"] for method in result["methods"]}
    loss, other, right = {}, {}, {}
    for method in result["methods"]:
        t, p = arrays(rows[method["name"]], classes)
        said, names = p.argmax(axis=1), np.array(classes)
        assert [row["predicted"] for row in rows[method["name"]]] == names[said].tolist()
        right[method["name"]] = said == t
        every = -np.log(np.clip(p, np.finfo(float).eps, 1))
        loss[method["name"]] = every[np.arange(len(t)), t]
        other[method["name"]] = np.ma.array(every, mask=np.eye(len(classes), dtype=bool)[t]).mean(axis=1).data
        assert method["n"] == len(t) == result["images"]
        assert method["accuracy"] == sk.accuracy_score(t, said)
        interval = binomtest(int((said == t).sum()), len(t)).proportion_ci(method="wilson")
        assert method["accuracy_interval"] == pytest.approx([interval.low, interval.high], abs=1e-9)
        assert method["balanced_accuracy"] == pytest.approx(
            sk.recall_score(t, said, average="macro", labels=np.unique(t))
        )
        assert method["log_loss"] == pytest.approx(loss[method["name"]].mean())
        assert method["calibration_error"] == pytest.approx(top_label_calibration(p, t))
        assert method["confusion"] == sk.confusion_matrix(t, said, labels=range(len(classes))).tolist()
        onehot = np.eye(len(classes))[t]
        brier = ((p[:, 1] - t) ** 2).mean() if len(classes) == 2 else ((p - onehot) ** 2).sum(axis=1).mean()
        assert method["brier"] == pytest.approx(brier)
        if len(set(t.tolist())) == len(classes):
            own = (onehot[:, 1], p[:, 1]) if len(classes) == 2 else (onehot, p)
            assert method["auc"] == pytest.approx(sk.roc_auc_score(*own))
            assert method["average_precision"] == pytest.approx(sk.average_precision_score(*own))
        else:
            assert method["auc"] is method["average_precision"] is None
        for c, one in enumerate(method["per_class"]):
            if one["recall"] is not None:
                assert one["recall"] == pytest.approx(sk.recall_score(t == c, said == c))
            if one["precision"] is not None:
                assert one["precision"] == pytest.approx(sk.precision_score(t == c, said == c))
    recompute_pairs(result, rows[method["name"]], loss, other, right)
    return right


def holds_95_of_100(interval, draws):
    """See that an interval leaves 2.5 of 100 draws on either side; draws of few images are lumps, which may lie on its ends."""
    low, high = interval
    slack = 5 * np.sqrt(0.025 * 0.975 / len(draws)) + 1e-9
    for beyond, up_to in ((draws < low - 1e-9, draws <= low + 1e-9), (draws > high + 1e-9, draws >= high - 1e-9)):
        assert beyond.mean() <= 0.025 + slack
        assert up_to.mean() >= 0.025 - slack


def recompute_pairs(result, rows, loss, other, right):
    """Compute every number of the pairs again; `rows` are those of any method."""
    assert result["bootstrap"] == {"draws": 10_000, "seed": 0, "confidence": 0.95, "unseen": statistics.UNSEEN}
    rng = np.random.default_rng(7)
    group = [row["group"] for row in rows]
    members = [np.flatnonzero(np.array(group) == name) for name in sorted(set(group))]
    drawn = rng.integers(0, len(members) + 1, (2000, len(members) + 1))  # the last one is the group more
    more, sign = rng.integers(0, len(members), 2000), rng.choice([-1.0, 1.0], (2000, 1))
    first = [min(own, key=lambda i: rows[i]["digest"]) for own in members]
    for one in result["pairs"]:
        a, b = one["a"], one["b"]
        assert one["accuracy_difference"] == pytest.approx(right[a].mean() - right[b].mean())
        assert one["log_loss_difference"] == pytest.approx((loss[a] - loss[b]).mean())
        assert one["only_a_right"] == (right[a] & ~right[b]).sum()
        assert one["only_a_right_one_a_group"] == (right[a] & ~right[b])[first].sum()
        assert one["only_b_right_one_a_group"] == (right[b] & ~right[a])[first].sum()
        low, high = one["accuracy_difference_interval"]
        assert low <= one["accuracy_difference"] <= high
        seen = np.array([[(loss[a] - loss[b])[own].sum(), len(own)] for own in members])
        otherwise = np.array([[(other[a] - other[b])[own].sum(), len(own)] for own in members])
        unseen = np.concatenate([sign * otherwise[more][:, :1], otherwise[more][:, 1:]], axis=1)
        sums = np.concatenate([np.broadcast_to(seen, (2000, *seen.shape)), unseen[:, None]], axis=1)
        sums = np.take_along_axis(sums, drawn[:, :, None], axis=1).sum(axis=1)
        holds_95_of_100(one["log_loss_difference_interval"], sums[:, 0] / sums[:, 1])
        difference = 1.0 * right[a] - right[b]
        size = len(rows) / len(members)
        both = [[0.5**0.5 * size, size], [-(0.5**0.5) * size, size]]
        seen = np.array([*([difference[own].sum(), len(own)] for own in members), *both])
        sums = seen[rng.integers(0, len(seen), (2000, len(seen)))].sum(axis=1)
        holds_95_of_100((low, high), sums[:, 0] / sums[:, 1])


def written(found, tmp_path):
    kept = Record(found, {}, "validation", {"head": "head", "net": "net"}, {}, None)
    return kept, record.write(tmp_path / "report", kept)


def test_every_number_can_be_recomputed_and_p_values_are_corrected(tmp_path):
    _, result = written(weigh(evidence(0.8), "head", "net", unchanged=False), tmp_path)
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
    found = weigh(evidence(0.8, groups=groups, declared=True), "head", "net", unchanged=False)
    assert "groups" in found.no_p_value
    assert all(one.p_value is None for one in found.pairs)
    alone = weigh(evidence(0.8, declared=True), "head", "net", unchanged=False)
    assert alone.contrast.p_value == weigh(evidence(0.8), "head", "net", unchanged=False).contrast.p_value > 0
    assert found.contrast.log_loss_interval != alone.contrast.log_loss_interval
    _, result = written(found, tmp_path)
    assert result["groups"] == 100


def test_one_of_each_set_of_near_duplicates_is_tested(tmp_path, ui, capsys):
    """Nobody said that they belong together: each image three times is each image once."""
    once = evidence(0.8, n=100)
    thrice = replace(
        once,
        samples=[replace(s, path=f"{k}{s.path}", digest=f"{k}{s.digest}") for k in range(3) for s in once.samples],
        targets=np.tile(once.targets, 3),
        candidates=[replace(c, probabilities=np.tile(c.probabilities, (3, 1))) for c in once.candidates],
    )
    assert thrice.apart.tolist() == list(range(100))
    alone, found = (weigh(said, "head", "net", unchanged=False) for said in (once, thrice))
    assert [one.p_value for one in found.pairs] == [one.p_value for one in alone.pairs]
    assert found.verdict.images_needed == alone.verdict.images_needed
    assert found.contrast.accuracy_interval == pytest.approx(alone.contrast.accuracy_interval)
    assert found.contrast.log_loss_interval == pytest.approx(alone.contrast.log_loss_interval, abs=0.01)
    kept, result = written(found, tmp_path)
    recompute(tmp_path / "report", result)
    tables.show(kept, Ui())
    assert "(100 images, one of each set of near-duplicates)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("classes", [3, 300])
def test_many_classes(tmp_path, classes, ui, capsys):
    found = weigh(evidence(1.0, n=260, classes=classes), "head", "net", unchanged=False)
    kept, result = written(found, tmp_path)
    recompute(tmp_path / "report", result)
    tables.show(kept, ui)
    assert (result["methods"][0]["auc"] is None) == (classes == 300)  # not every class has an image


def test_the_table_of_the_command_can_be_recomputed(trained):
    workspace, _, results = trained
    compared = results["compare"]
    assert compared["measured_on"] == "validation"
    assert CAVEAT in compared["recommendation"]
    assert all(one["p_value"] is None for one in compared["pairs"])
    assert "--cv 5" in compared["offers"][0]
    assert "--test 0.2" in compared["offers"][1]
    recompute(workspace.report, compared)
    reported = {head["name"]: head["validation"] for head in results["head"]["heads"]}
    reported[results["finetune"]["name"]] = results["finetune"]["validation"]
    for method in compared["methods"]:
        assert method["log_loss"] == pytest.approx(reported[method["name"]]["log_loss"], abs=1e-6)
    for name in ("curves.png", "tradeoff.png"):
        assert (workspace.report / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((workspace.report / "compare.json").read_text()) == json.loads(
        json.dumps({key: value for key, value in compared.items() if key != "report"})
    )


def test_costs(trained):
    workspace, _, results = trained
    compared = results["compare"]
    costs = {method["name"]: method["cost"] for method in compared["methods"]}
    tuned = compared["contrast"]["tuned"]
    start = results["finetune"]["start"]
    shared = compared["featurize_seconds"]
    recorded = timings.read(workspace.cache().folder)
    assert sum(one.images for one in recorded) == 32  # all of them: no --test
    assert shared == pytest.approx(sum(one.seconds for one in recorded))
    assert costs[start]["total_seconds"] == pytest.approx(shared + costs[start]["training_seconds"])
    own = costs[tuned]
    expected = costs[start]["total_seconds"] + own["training_seconds"]
    assert own["total_seconds"] == pytest.approx(expected)
    assert own["bytes"] == Path(results["finetune"]["network"]).stat().st_size
    assert own["parameters"] > 7_000_000
    for cost in costs.values():
        assert 0 < cost["latency_ms"]["1"] < cost["latency_ms"]["8"]


def test_latencies_are_medians_of_calls_in_turn(ui, monkeypatch):
    assert costs.BATCHES == (1, 32)
    monkeypatch.setattr(costs, "BATCHES", (1, 2))
    clock, called = [0.0], []
    took = {"a": iter([9.0, 9.0, 1.0, 2.0, 3.0, 5.0, 2.0, 8.0]), "b": iter([9.0] * 8)}  # the first round warms up

    def call(name, inputs):
        called.append((name, len(inputs)))
        clock[0] += next(took[name])

    monkeypatch.setattr(costs.time, "perf_counter", lambda: clock[0])
    found = costs._in_turn({name: (partial(call, name), np.zeros(4)) for name in "ab"}, ui)
    assert called == [("a", 1), ("a", 2), ("b", 1), ("b", 2)] * 4
    assert found == {"a": {1: 2000.0, 2: 5000.0}, "b": {1: 9000.0, 2: 9000.0}}


def test_probes(trained):
    """Numbers from probes.csv, and one probe by hand: pictures changed here, predicted from their pixels."""
    from featurize import images
    from featurize.engines import KerasEngine
    from heads import store as heads
    from vggft.features import load_weights

    workspace, data, results = trained
    probes = results["compare"]["probes"]
    assert probes["images"] == results["featurize"]["splits"]["validate"]
    assert probes["left_out"] == 0
    with (workspace.report / "probes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name, own in probes["methods"].items():
        assert list(own) == ["none", *PROBES]
        for probe, found in own.items():
            said = [row for row in rows if (row["method"], row["probe"]) == (name, probe)]
            plain = [row for row in rows if (row["method"], row["probe"]) == (name, "none")]
            assert found["accuracy"] == np.mean([row["predicted"] == row["label"] for row in said])
            if probe != "none":
                changed = [a["predicted"] != b["predicted"] for a, b in zip(said, plain, strict=True)]
                assert found["changed"] == np.mean(changed)
    name = results["head"]["best"]
    said = [row for row in rows if (row["method"], row["probe"]) == (name, "blur2")]
    pictures = [images.decode_resized((data / row["path"]).read_bytes(), 224) for row in said]
    changed = np.stack([np.asarray(PROBES["blur2"](images.Image.fromarray(picture))) for picture in pictures])
    engine = KerasEngine(load_weights(workspace.settings), workspace.settings.fingerprint)
    head = next(result.head for result in heads.load_all(workspace.heads) if result.head.name == name)
    p = head.predict(engine(changed, ["block5_pool"])[0])
    assert [float(row["score"]) for row in said] == pytest.approx(p.max(axis=1).tolist(), abs=5e-3)


@pytest.fixture
def again(trained, tmp_path):
    """A copy of the workspace that went through all stages, to be changed."""
    workspace, _, _ = trained
    shutil.copytree(workspace.root, tmp_path / "work")
    return Workspace(tmp_path / "work")


def test_networks_of_other_features_are_refused_and_named(again, ui):
    (path,) = again.finetune.glob("*/run.json")
    run = json.loads(path.read_text())
    run["settings"]["provenance"]["fingerprint"] = "0123456789abcdef"
    path.write_text(json.dumps(run))
    before = snapshot(again.report)
    now = again.settings.fingerprint.key
    with pytest.raises(
        VggftError, match=rf"{path.parent.name}: features of fingerprint 0123456789abcdef, now {now}\. Train"
    ):
        command.run(again, command.Options(), ui)
    run["settings"]["provenance"] |= {"fingerprint": now, "manifest": "0" * 64}
    path.write_text(json.dumps(run))
    with pytest.raises(
        VggftError, match=rf"{path.parent.name}: other images, labels or splits\. Train again: vggft finetune"
    ):
        command.run(again, command.Options(), ui)
    assert snapshot(again.report) == before
    with pytest.raises(VggftError, match="--cv 1: expected 2"):
        command.run(again, command.Options(folds=1), ui)


def test_a_damaged_head_is_left_out_and_a_stale_one_named(again, ui, capsys):
    damaged, stale = again.heads / "avg-256", again.heads / "max-linear" / "head.json"
    (damaged / "weights.npz").write_bytes(b"")
    head = json.loads(stale.read_text())
    head["provenance"]["manifest"] = "0" * 64
    stale.write_text(json.dumps(head))
    found = command.run(again, command.Options(quick=True), ui)
    said = capsys.readouterr().err
    (left_out,) = found["left_out"]
    assert f"left out: {left_out}" in said
    assert "avg-256" in left_out
    assert "stale, not compared (made from an earlier state of the data): max-linear" in said
    assert found["stale"] == ["max-linear"]
    assert {"avg-256", "max-linear"}.isdisjoint(method["name"] for method in found["methods"])
    assert found["probes"] is None
    assert not (again.report / "probes.csv").exists()  # that of the comparison before does not belong to this one
    recompute(again.report, found)


def test_an_image_that_vanished_is_left_out_of_the_probes_and_of_nothing_else(again, trained, ui, capsys):
    """Its features are cached; those of the changed pictures are not there any more, here."""
    data = again.root.parent / "data"
    shutil.copytree(trained[1], data)
    settings = json.loads((again.root / "workspace.json").read_text())
    (again.root / "workspace.json").write_text(json.dumps({**settings, "data": str(data)}))
    gone, *rest = again.dataset.accepted("validate")
    (data / gone.path).unlink()
    for name in PROBES:
        shutil.rmtree(again.cache(replace(again.settings.fingerprint, probe=name)).folder)
    heads = methods.load(again).heads[:2]
    probed = probing.probe(again, heads, [gone, *rest], ui)
    assert [sample.path for sample in probed.samples] == [sample.path for sample in rest]
    assert probed.left_out == 1
    assert "probes: 1 image left out" in capsys.readouterr().err
    assert command.run(again, command.Options(quick=True), ui)["images"] == len(rest) + 1


def test_a_changed_image_is_left_out_of_the_probes_of_a_network_that_reads_pixels(again, trained, ui):
    data = again.root.parent / "data"
    shutil.copytree(trained[1], data)
    settings = json.loads((again.root / "workspace.json").read_text())
    (again.root / "workspace.json").write_text(json.dumps({**settings, "data": str(data)}))
    changed, *rest = again.dataset.accepted("validate")
    shutil.copy(data / rest[0].path, data / changed.path)
    found = methods.load(again)
    whole = replace(found.networks[0], made=replace(found.networks[0].made, settings=_from_pixels(found.networks[0])))
    asked = []

    def judged(part, workspace, cache, samples):
        asked.append(samples)
        return {method.name: np.full((len(samples), 2), 0.5) for method in part}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "judge", judged)  # what it says of them is not asked here
        probed = probing.probe(again, [found.heads[0], whole], [changed, *rest], ui)
    assert probed.left_out == 1
    assert all([sample.path for sample in own] == [sample.path for sample in rest] for own in asked)


def _from_pixels(method):
    return replace(method.made.settings, unfreeze="all", split_point=None)


def test_a_report_folder_that_cannot_be_is_said_before_anything_is_computed(again, ui, monkeypatch):
    shutil.rmtree(again.report)
    again.report.write_text("mine")
    monkeypatch.setattr(judging, "judge", None)
    with pytest.raises(
        VggftError, match=r"report: reports go into this folder, and it cannot be written \(File exists\)"
    ):
        command.run(again, command.Options(), ui)
    assert again.report.read_text() == "mine"


@pytest.mark.parametrize(
    "damage", [lambda b: b[:300] + bytes([b[300] ^ 255]) + b[301:], lambda b: b[: len(b) // 2], lambda b: b""]
)
def test_a_damaged_network_is_said_to_be_one(again, damage):
    (method,) = methods.load(again).networks
    method.network.write_bytes(damage(method.network.read_bytes()))
    with pytest.raises(
        VggftError, match=r"network\.keras: not the file that was written .* Tune again: vggft finetune"
    ):
        judging._part(method)
    unknown = replace(method, made=replace(method.made, network_sha256=""))  # a run from before it was kept
    with pytest.raises(VggftError, match=r"network\.keras: Keras cannot load it .* Tune again: vggft finetune"):
        judging._part(unknown)


def test_a_network_that_was_exchanged_is_left_out(again, ui, capsys):
    """It loads, and predicts, but it is not the one that run.json tells of."""
    (run,) = again.finetune.iterdir()
    other = again.finetune / "other"
    shutil.copytree(run, other)
    kept = json.loads((other / "run.json").read_text())
    kept["settings"]["name"] = "other"
    (other / "run.json").write_text(json.dumps(kept))
    network = load_keras().saving.load_model(other / "network.keras", compile=False)
    network.save(other / "network.keras")
    found = command.run(again, command.Options(quick=True), ui)
    assert "other" not in {method["name"] for method in found["methods"]}
    (said,) = found["left_out"]
    assert re.fullmatch(r"other: .*other/network\.keras: not the file that was written .*", said)
    assert f"left out: {said}" in capsys.readouterr().err


def test_prune_keeps_what_compare_computed_of_images_that_are_there(again, ui):
    assert not cache.prune(again, True, ui)["removed"]
    probes = [folder for folder, own in upkeep.fingerprints(again.cache_folder).items() if own.probe]
    assert len(probes) == len(PROBES)
    keep = replace(again.dataset.samples[0], path="other", digest="0" * 64)
    samples = [s for s in again.dataset.samples if s.split != "validate"]
    again.settle(replace(again.dataset, samples=(*samples, keep)), again.settings, ())
    pruned = cache.prune(again, True, ui)
    validated = 32 - len(samples)
    assert pruned["rows"] == validated * (1 + len(PROBES))
    assert cache.info(again, ui)["fingerprints"][0]["in_use"]


def test_a_class_may_be_called_like_a_column(tmp_path):
    said = evidence(0.8)
    found = weigh(replace(said, classes=["macro", "weighted"]), "head", "net", unchanged=False)
    _, result = written(found, tmp_path)
    with (tmp_path / "report" / "compare.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for method in result["methods"]:
        assert float(rows[method["name"]]["macro.f1"]) == method["macro"]["f1"]
        assert float(rows[method["name"]]["class.macro.f1"]) == method["per_class"][0]["f1"]


def test_dots_in_names_of_classes_mix_up_no_columns(tmp_path):
    found = weigh(replace(evidence(0.8), classes=["1", "1.1"]), "head", "net", unchanged=False)
    _, result = written(found, tmp_path)
    with (tmp_path / "report" / "compare.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for method in result["methods"]:
        row = rows[method["name"]]
        counts = [[int(row[f"confusion.{true}/{said}"]) for said in ("1", "1.1")] for true in ("1", "1.1")]
        assert counts == method["confusion"]
        assert [int(row[f"class.{name}.n"]) for name in ("1", "1.1")] == [one["n"] for one in method["per_class"]]


@pytest.mark.parametrize("columns", [80, 110])
def test_numbers_are_never_cut(tmp_path, columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    said = evidence(0.8)
    long = [replace(c, name=f"block5-logistic-avgmax-adam-lr1e-05-{c.name}") for c in said.candidates]
    names = {"head": long[1].name, "network": long[0].name}
    kept, result = written(weigh(replace(said, candidates=long, **names), *names.values(), unchanged=False), tmp_path)
    kept = replace(kept, names={name: name for name in names.values()})
    tables.show(kept, Ui())
    shown = capsys.readouterr().out
    for method in result["methods"]:
        low, high = method["accuracy_interval"]
        assert f"{low:.3f}–{high:.3f}" in shown
        assert f"{method['log_loss']:.4f}" in shown


def test_the_test_split_is_judged_where_there_is_one_and_near_duplicates_belong_together(again, ui, monkeypatch):
    """Half of the training images become the test split, all that was made is taken along; one of them is there twice."""
    dataset = again.dataset
    test = {sample.path for sample in dataset.accepted("train")[::2]}
    samples = [replace(s, split="test") if s.path in test else s for s in dataset.samples]
    twin = next(s for s in samples if s.split == "test")
    again.settle(
        replace(dataset, samples=(*samples, replace(twin, path="birds/twin.png", group="twin"))), again.settings, ()
    )
    identity = again.dataset.identity
    monkeypatch.setattr(costs, "BATCHES", (1, 2))  # latency of 32 pictures takes a while
    for path in (*again.heads.glob("*/head.json"), *again.finetune.glob("*/run.json")):
        kept = json.loads(path.read_text())
        (kept["provenance"] if "provenance" in kept else kept["settings"]["provenance"])["manifest"] = identity
        path.write_text(json.dumps(kept))
    found = command.run(again, command.Options(), ui)
    assert found["measured_on"] == found["probes"]["measured_on"] == "test"
    with (again.report / "predictions.csv").open(newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == test | {"birds/twin.png"}
    assert found["images"] == len(test) + 1
    assert found["groups"] <= len(test)  # the twins have one vector of features
    assert found["no_p_value"] is None
    assert all(0 < one["p_value"] <= 1 for one in found["pairs"])
    assert found["offers"] == []
    recompute(again.report, found)


def test_a_network_that_needs_files_which_are_gone_is_left_out(again, trained, ui, capsys):
    (run,) = again.finetune.iterdir()
    shutil.copytree(run, again.finetune / "whole")
    path = again.finetune / "whole" / "run.json"
    kept = json.loads(path.read_text())
    kept["settings"] |= {"name": "whole", "unfreeze": "all", "split_point": None}
    path.write_text(json.dumps(kept))
    settings = json.loads((again.root / "workspace.json").read_text())
    (again.root / "workspace.json").write_text(json.dumps({**settings, "data": str(again.root / "nowhere")}))
    found = command.run(again, command.Options(quick=True), ui)
    assert found["contrast"]["tuned"] == run.name
    assert "left out: whole: " in capsys.readouterr().err
    assert "whole" not in {method["name"] for method in found["methods"]}


@pytest.mark.parametrize(("kept", "use"), [((True, False), "net"), ((True, True), "head")])
def test_folds_say_whether_fine_tuning_was_of_use_and_not_the_run_of_the_workspace(again, ui, monkeypatch, kept, use):
    class Folds:
        network = methods.load(again).networks[0]

        def __init__(self, *arguments):
            pass

        def evidence(self):
            said = replace(evidence(2.0), source="folds", fold=np.arange(300) % 2)
            return said, [{"fold": i + 1, "unchanged": own} for i, own in enumerate(kept)]

    monkeypatch.setattr(outer, "Folds", Folds)
    found = command.run(again, command.Options(folds=2, quick=True), ui)
    names = found["contrast"]["in_workspace"]
    assert found["use"] == names[use]
    assert ("no epoch of fine-tuning was better" in found["recommendation"]) == (use == "head")
    way = {"net": "the net", "head": "the head"}[use]  # what is compared are ways of choosing, not what they chose here
    assert found["recommendation"].startswith(f"Use {way}, here {names[use]}: ")
    assert [one["unchanged"] for one in found["folds"]] == list(kept)


def test_folds_in_which_the_methods_of_the_workspace_differ_say_so():
    """The ways of choosing are alike; what they chose here is not."""
    said = evidence(2.0, source="folds")
    by_name = {candidate.name: candidate for candidate in said.candidates}
    ways = [replace(by_name["other"], name="best head"), replace(by_name["other"], name="best network")]
    said = replace(said, candidates=[*ways, *said.candidates], head="best head", network="best network")
    found = weigh(said, "head", "net", unchanged=False)
    assert found.verdict.sentence.startswith(
        "Use the best head, here head: no difference to the best network that these"
    )
    assert found.verdict.use == "head"
    (more,) = command._out_of_fold(found, "head", "net")
    assert more.startswith("But in the same folds net itself was clearly better than head (log-loss ")
    assert command._out_of_fold(found, "head", "other") == ()


def test_offers_can_be_run_as_they_are_printed(again, trained):
    settings = json.loads((again.root / "workspace.json").read_text())
    (again.root / "workspace.json").write_text(json.dumps({**settings, "data": "/a folder/data"}))
    found = methods.load(again)
    folded, reserve = command._offers(again, found)
    assert f"vggft compare --cv 5 -w {again.root} (about" in folded
    assert reserve.endswith(f"vggft featurize '/a folder/data' --test 0.2 -w {again.root}")
    few = [s for k in ("birds", "fruit") for s in again.dataset.samples if s.label == k and s.split == "train"][:1]
    again.__dict__["dataset"] = replace(again.dataset, samples=tuple(few))
    assert ["--cv" in offer for offer in command._offers(again, found)] == [False]


def test_probes_take_at_most_so_many_images(again, monkeypatch):
    monkeypatch.setattr(probing, "MOST", 3)
    samples = again.dataset.accepted("validate")
    chosen = probing._spread(samples)
    assert len({sample.digest for sample in chosen}) == 3
    assert probing._spread(samples[::-1]) == chosen
