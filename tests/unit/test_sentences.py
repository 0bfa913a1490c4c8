"""The sentence of each outcome of a comparison."""

import math
from dataclasses import replace

import pytest
from small_compare import pair, predictions

from vggft.comparison.advice import CrossValidate, ReserveTest, SelectionUnreliable, TuneAgain
from vggft.comparison.comparison import Comparison, Contrast, NoPValue
from vggft.comparison.report import sentences
from vggft.comparison.report.sentences import PROVISOS
from vggft.comparison.verdict import decide

SAME = "(log-loss 0.0500 higher, 95% interval of the difference -0.1000 to +0.2000), and it is cheaper"
MORE, FEWER = (0.02, 0.08), (-0.08, -0.02)  # intervals of the accuracy


def said(contrast_pair, source="test", contrast=None, no_p_value=None):
    contrast = contrast or Contrast("head", "net")
    of = replace(predictions(0, n=4), source=source)
    verdict = decide(contrast_pair, contrast.unchanged)
    return sentences.recommendation(Comparison(of, contrast, [], [contrast_pair], verdict, no_p_value))


@pytest.mark.parametrize(
    ("contrast_pair", "sentence"),
    [
        (
            pair((-0.2, -0.1)),
            "Use net: fine-tuning beats head (log-loss 0.1500 lower, 95% interval of the difference -0.2000 to -0.1000)",
        ),
        (
            pair((-0.2, -0.1), FEWER, (1, 11)),
            "Use net: fine-tuning beats head (log-loss 0.1500 lower, 95% interval of the difference -0.2000 to -0.1000), "
            "although its accuracy is 5.0 points lower",
        ),
        (
            pair((-0.2, -0.1), only=(0, 0)),
            "Use net: fine-tuning beats head (log-loss 0.1500 lower, 95% interval of the difference -0.2000 to -0.1000), "
            "although both classify the same images correctly",
        ),
        (
            pair((-0.009, -0.001)),
            "Use head: net lowers log-loss by less than 0.01, too little for its cost (log-loss 0.0050 lower, 95% interval "
            "of the difference -0.0090 to -0.0010)",
        ),
        (
            pair((-0.009, -0.001), MORE, (11, 1)),
            "Use head: net lowers log-loss by less than 0.01, too little for its cost (log-loss 0.0050 lower, 95% interval "
            "of the difference -0.0090 to -0.0010), although its accuracy is 5.0 points higher",
        ),
        (
            pair((0.1, 0.2)),
            "Use head: net is worse (log-loss 0.1500 higher, 95% interval of the difference +0.1000 to +0.2000)",
        ),
        (
            pair((0.1, 0.2), MORE, (11, 1)),
            "Use head: net is worse (log-loss 0.1500 higher, 95% interval of the difference +0.1000 to +0.2000), although its "
            "accuracy is 5.0 points higher",
        ),
        (
            pair((-0.2, -0.1), independent=8),
            "Use head: 200 images, which count for 8.0 independent ones, are too few for a comparison with net (at least 10 are "
            "needed), and it is cheaper",
        ),
        (
            replace(pair((-0.2, -0.1), independent=8), n=8),
            "Use head: 8 images are too few for a comparison with net (at least 10 are needed), and it is cheaper",
        ),
        (
            pair((-0.1, 0.2)),
            f"Use head: these 200 images show no difference from net {SAME} (showing a difference in accuracy would "
            "take about 10,987 images like these)",
        ),
        (
            pair((-0.1, 0.2), only=(5, 5)),
            f"Use head: these 200 images show no difference from net {SAME} (both classify equally many correctly; "
            "showing a difference in accuracy would take more than 100,000 images like these)",
        ),
        (
            pair((-0.1, 0.2), independent=40, counted=(2, 1)),
            f"Use head: these 200 images show no difference from net {SAME} (showing a difference in accuracy would "
            "take about 940 independent images)",
        ),
        (
            pair((-0.1, 0.2), independent=40, counted=(2, 2)),
            f"Use head: these 200 images show no difference from net {SAME} (both classify equally many independent "
            "ones correctly; showing a difference in accuracy would take more than 100,000 independent images)",
        ),
        (
            pair((-0.1, 0.2), only=(18, 2)),
            f"Use head: these 200 images show no difference from net {SAME}",
        ),
        (
            pair((-0.1, 0.2), MORE, (11, 1)),
            f"Use head: these 200 images show no difference in log-loss from net {SAME}; but the accuracy of net is "
            "5.0 points higher: use that one if only the class matters",
        ),
        (
            pair((-0.1, 0.2), FEWER, (1, 11)),
            f"Use head: these 200 images show no difference in log-loss from net {SAME}; but the accuracy of net is "
            "5.0 points lower",
        ),
    ],
)
def test_recommendations(contrast_pair, sentence):
    assert said(contrast_pair) == f"{sentence}; both were selected without these images."


def test_an_unchanged_network_is_named_after_the_head_it_started_from():
    same, other = (Contrast("head", "net", start, unchanged=True) for start in ("head", "other"))
    assert said(pair((-2e-6, -1e-6)), contrast=same) == (
        "Use head: no epoch of fine-tuning was better than it, so net is the same model; both were selected without these images."
    )
    assert said(pair((0.1, 0.2)), contrast=other) == (
        "Use head: no epoch of fine-tuning was better than other, the head that net started from, so net is the same model as "
        "other, which the leaderboard ranks below head; both were selected without these images."
    )


def test_the_same_model_twice_has_no_difference_to_show():
    of, a_pair = predictions(0, n=4), pair((-0.1, 0.1))
    for contrast, shown in (
        (Contrast("head", "net", "head", unchanged=True), None),
        (Contrast("head", "net", "other", unchanged=True), a_pair),
        (Contrast("head", "net", "head"), a_pair),
        (Contrast("head", "net", unchanged=True), a_pair),  # folds: the heads of folds are not that of the workspace
    ):
        comparison = Comparison(of, contrast, [], [a_pair], decide(a_pair, contrast.unchanged), None)
        assert comparison.difference is shown
        assert comparison.first is a_pair


def test_with_folds_ways_of_selecting_are_compared():
    ways = replace(pair((-0.2, -0.1)), a="best network", b="best head")
    assert said(ways, "folds").startswith(
        "Use the best network, here net: fine-tuning beats the best head (log-loss 0.1500 lower, "
    )
    worse = replace(ways, log_loss_interval=(0.1, 0.2))
    assert said(worse, "folds").startswith("Use the best head, here head: the best network is worse (log-loss ")
    assert said(ways, "folds", Contrast("head", "net", unchanged=True)) == (
        "Use the best head, here head: in no fold was an epoch of fine-tuning better than the head it started from; in every "
        "fold, head, network and epochs were selected without the held-out images."
    )


def test_images_that_selected_the_models_are_named():
    assert said(pair((0.1, 0.2)), "validation").endswith(
        "; these images also selected the models, so differences are optimistic and no p-value is given."
    )
    assert set(PROVISOS) == {"test", "folds", "validation"}


def test_the_first_pair():
    tested = replace(pair((-0.2, -0.1)), p_value=0.0123, accuracy_difference=0.005)
    assert sentences.first_pair(tested, None) == (
        "net against head: accuracy +0.5 points (-1.0 to +1.0), log-loss -0.1500 (-0.2000 to -0.1000); 95% bootstrap intervals; "
        "McNemar's exact p 0.0123"
    )
    grouped = replace(tested, independent=40)
    assert sentences.first_pair(grouped, None).endswith(
        "McNemar's exact p 0.0123 (40 images, one of each set of near-duplicates)"
    )
    for reason, words in (
        (NoPValue.SELECTED, "these images also selected the models"),
        (NoPValue.GROUPED, "these images are in groups, and McNemar's test assumes that they are independent"),
    ):
        assert sentences.first_pair(replace(tested, p_value=None), reason).endswith(f"; no p-value: {words}")
        assert sentences.no_p_value(reason) == words
    assert sentences.no_p_value(None) is None


@pytest.mark.parametrize(
    ("advice", "sentence"),
    [
        (
            CrossValidate("vggft compare --cv 5", 1234.5),
            "For a verdict on all images, run nested cross-validation (about 21 min here): vggft compare --cv 5",
        ),
        (
            ReserveTest("vggft featurize data --test 0.2"),
            "For a verdict on images that selected nothing, reserve a test split and train again: vggft featurize data "
            "--test 0.2",
        ),
        (
            SelectionUnreliable("net", "head", 0.12345),
            "Out of fold, net is better than head (log-loss 0.1235 lower): selection on few validation images is "
            "unreliable. compare.csv has the numbers of all models.",
        ),
        (
            TuneAgain("net"),
            "But net kept epoch 0, and is still the head it started from. Tune again with another --seed or --lr.",
        ),
    ],
)
def test_advice(advice, sentence):
    assert sentences.advise(advice) == sentence


def test_no_number_is_infinite():
    assert not any(str(math.inf) in said(pair((-0.1, 0.2), only=only)) for only in ((0, 0), (5, 5)))
