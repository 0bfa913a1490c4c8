"""A comparison of synthetic models, and an independent recomputation of every number of a report."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn import metrics as sk

from featurize.data.dataset import Sample
from vggft.comparison import statistics
from vggft.comparison.candidates import Candidate, CandidatePredictions
from vggft.comparison.comparison import Contrast, compare_candidates
from vggft.comparison.report import record
from vggft.comparison.report.record import Record
from vggft.comparison.verdict import Pair


def predictions(gain, *, n=300, classes=2, source="test", groups=None, declared=False, seed=0):
    """Return predictions for n images: of a head, a tuned network `gain` better in logits, and two more heads."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, classes, n)
    truth = np.eye(classes)[targets]
    shared = 1.2 * rng.normal(size=(n, classes)) + 2.2 * truth

    def predicted(better):
        return softmax(shared + better * truth + 0.7 * rng.normal(size=(n, classes)), axis=1)

    named = {"net": predicted(gain), "head": predicted(0), "other": predicted(0), "poor": predicted(-1.5)}
    samples = [
        Sample(f"{i}.png", f"class{t}", group=groups[i] if groups else str(i), digest=f"{i:064x}")
        for i, t in enumerate(targets)
    ]
    candidates = [Candidate(name, "dense", p) for name, p in named.items()]
    return CandidatePredictions(
        source, [f"class{c}" for c in range(classes)], samples, targets, candidates, "head", "net", declared
    )


def pair(log_loss, accuracy=(-0.01, 0.01), only=(4, 3), independent=200, counted=None, effective=None):
    """Return a network against a head on 200 images, with these intervals."""
    difference = (only[0] - only[1]) / 200
    middle, effective = sum(log_loss) / 2, effective or independent
    return Pair(
        "net", "head", 200, difference, accuracy, middle, log_loss, *only, effective, independent, counted or only
    )


def compared(of, head="head", network="net", unchanged=False):
    """Compare the candidates; `head` and `network` are the names of the first two in the workspace."""
    return compare_candidates(of, Contrast(head, network if of.network else None, unchanged=unchanged))


def by_model(path):
    """Read per-image predictions: model → rows."""
    found = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(row["method"], []).append(row)
    return found


def arrays(rows, classes):
    """Return targets and probabilities of one model's rows."""
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
    """Compute every number of the models and pairs again from predictions.csv."""
    classes, rows = result["classes"], by_model(folder / "predictions.csv")
    assert set(rows) == {model["name"] for model in result["methods"]}
    loss, other, right = {}, {}, {}
    for model in result["methods"]:
        t, p = arrays(rows[model["name"]], classes)
        said, names = p.argmax(axis=1), np.array(classes)
        assert [row["predicted"] for row in rows[model["name"]]] == names[said].tolist()
        right[model["name"]] = said == t
        every = -np.log(np.clip(p, np.finfo(float).eps, 1))
        loss[model["name"]] = every[np.arange(len(t)), t]
        other[model["name"]] = np.ma.array(every, mask=np.eye(len(classes), dtype=bool)[t]).mean(axis=1).data
        assert model["n"] == len(t) == result["images"]
        assert model["accuracy"] == sk.accuracy_score(t, said)
        interval = binomtest(int((said == t).sum()), len(t)).proportion_ci(method="wilson")
        assert model["accuracy_interval"] == pytest.approx([interval.low, interval.high], abs=1e-9)
        assert model["balanced_accuracy"] == pytest.approx(
            sk.recall_score(t, said, average="macro", labels=np.unique(t))
        )
        assert model["log_loss"] == pytest.approx(loss[model["name"]].mean())
        assert model["calibration_error"] == pytest.approx(top_label_calibration(p, t))
        assert model["confusion"] == sk.confusion_matrix(t, said, labels=range(len(classes))).tolist()
        onehot = np.eye(len(classes))[t]
        brier = ((p[:, 1] - t) ** 2).mean() if len(classes) == 2 else ((p - onehot) ** 2).sum(axis=1).mean()
        assert model["brier"] == pytest.approx(brier)
        if len(set(t.tolist())) == len(classes):
            own = (onehot[:, 1], p[:, 1]) if len(classes) == 2 else (onehot, p)
            assert model["auc"] == pytest.approx(sk.roc_auc_score(*own))
            assert model["average_precision"] == pytest.approx(sk.average_precision_score(*own))
        else:
            assert model["auc"] is model["average_precision"] is None
        for c, one in enumerate(model["per_class"]):
            if one["recall"] is not None:
                assert one["recall"] == pytest.approx(sk.recall_score(t == c, said == c))
            if one["precision"] is not None:
                assert one["precision"] == pytest.approx(sk.precision_score(t == c, said == c))
    recompute_pairs(result, rows[model["name"]], loss, other, right)
    return right


def holds_95_of_100(interval, draws):
    """See that an interval leaves 2.5 of 100 draws on either side; draws of few images are lumps, which may lie on its ends."""
    low, high = interval
    slack = 5 * np.sqrt(0.025 * 0.975 / len(draws)) + 1e-9
    for beyond, up_to in ((draws < low - 1e-9, draws <= low + 1e-9), (draws > high + 1e-9, draws >= high - 1e-9)):
        assert beyond.mean() <= 0.025 + slack
        assert up_to.mean() >= 0.025 - slack


def recompute_pairs(result, rows, loss, other, right):
    """Compute every number of the pairs again; `rows` are those of any model."""
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


def heads_alone(of, *kinds):
    """Return the predictions of the heads only, of these kinds."""
    heads = [candidate for candidate in of.candidates if candidate.name != of.network]
    return replace(of, candidates=[replace(c, kind=kind) for c, kind in zip(heads, kinds, strict=False)], network=None)


def written(found, tmp_path):
    kept = Record(found, {}, "validation", {}, None)
    return kept, record.write(tmp_path / "report", kept, {})
