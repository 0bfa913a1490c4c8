"""The comparison in words: every sentence that the terminal, the report and its JSON share."""

from collections.abc import Mapping

from vggft.comparison.advice import Advice, CrossValidate, ReserveTest, SelectionUnreliable, Tune, TuneAgain
from vggft.comparison.candidates import Source
from vggft.comparison.comparison import Comparison, Contrast, NoPValue
from vggft.comparison.verdict import CAP, FEWEST, RELEVANT, Favours, Outcome, Pair, Verdict
from vggft.ui.console import duration

# What has to be known about the images; the end of every recommendation.
PROVISOS: Mapping[Source, str] = {
    "test": "both were selected without these images",
    "folds": "in every fold, head, network and epochs were selected without the held-out images",
    "validation": "these images also selected the models, so differences are optimistic and no p-value is given",
}

_HEADS_PROVISOS = {
    True: "the heads were selected without these images",
    False: "these images also selected the heads, so its numbers are optimistic and no p-value is given",
}

_NO_P_VALUE = {
    NoPValue.SELECTED: "these images also selected the models",
    NoPValue.GROUPED: "these images are in groups, and McNemar's test assumes that they are independent",
}


def recommendation(comparison: Comparison) -> str:
    """Return which model to use, why, and what has to be known about the images, in one sentence."""
    contrast, pair, use = comparison.contrast, comparison.first, comparison.use
    head, network = contrast.head, contrast.network
    if network is None and len(comparison.rows) == 1:
        return f"Use {head}, the only head{'' if comparison.predictions.fair else '; these images may have selected its epochs'}."
    if network is None:
        return f"Use {_best_of_heads(comparison)}; {_HEADS_PROVISOS[comparison.predictions.fair]}."
    assert pair
    if (
        comparison.predictions.source == "folds"
    ):  # ways of selecting are compared, not what they select in the workspace
        head, network = f"the {pair.b}", f"the {pair.a}"
        use = f"{network if comparison.verdict.use_network else head}, here {use}"
    reason = _reason(comparison.verdict, pair, head, network, contrast)
    return f"Use {use}: {reason}; {PROVISOS[comparison.predictions.source]}."


def _best_of_heads(comparison: Comparison) -> str:
    """Return which head to use, and how it compares with the best head of the other kind."""
    head, pair, number = comparison.contrast.head, comparison.first, len(comparison.rows)
    best = f"{head}, the best of {number} heads"
    if pair is None:
        return best
    low, high = pair.log_loss_interval
    other = {row.name: row.candidate.kind for row in comparison.rows}[pair.b]
    other = f"{pair.b}, the best {'logistic regression' if other == 'logistic' else 'dense head'}"
    if pair.effective < FEWEST:
        return f"{best}: {pair.n} images are too few for a comparison with {other} (at least {FEWEST} are needed)"
    if low <= 0 <= high:
        return f"{best}: these {pair.n} images show no difference in log-loss from {other} ({_log_loss(pair)})"
    than = "better than" if high < 0 else "although on these images it is worse than"
    return f"{best}, {than} {other} ({_log_loss(pair)})"


def _reason(verdict: Verdict, pair: Pair, head: str, network: str, contrast: Contrast) -> str:
    match verdict.outcome:
        case Outcome.UNCHANGED:
            return _unchanged(head, network, contrast)
        case Outcome.TOO_FEW:
            count = f", which count for {pair.effective:.1f} independent ones," if pair.grouped else ""
            few = f"{pair.n} images{count} are too few for a comparison with {network} (at least {FEWEST} are needed)"
            return f"{few}, and it is cheaper"
        case Outcome.NO_DIFFERENCE:
            return _no_difference(verdict, pair, network)
        case _:
            return _difference(verdict, pair, head, network)


def _difference(verdict: Verdict, pair: Pair, head: str, network: str) -> str:
    reason = {
        Outcome.NETWORK_WINS: f"fine-tuning beats {head}",
        Outcome.BELOW_RELEVANT: f"{network} lowers log-loss by less than {RELEVANT}, too little for its cost",
        Outcome.HEAD_WINS: f"{network} is worse",
    }[verdict.outcome]
    reason = f"{reason} ({_log_loss(pair)})"
    against = Favours.HEAD if verdict.use_network else Favours.NETWORK
    if verdict.accuracy is against:
        return f"{reason}, although its {_accuracy(verdict, pair)}"
    if verdict.use_network and not (pair.only_a or pair.only_b):
        return f"{reason}, although both classify the same images correctly"
    return reason


def _unchanged(head: str, network: str, contrast: Contrast) -> str:
    if contrast.start is None:
        return "in no fold was an epoch of fine-tuning better than the head it started from"
    if contrast.start == contrast.head:
        return f"no epoch of fine-tuning was better than it, so {network} is the same model"
    return (
        f"no epoch of fine-tuning was better than {contrast.start}, the head that {network} started from, so {network} is the "
        f"same model as {contrast.start}, which the leaderboard ranks below {head}"
    )


def _no_difference(verdict: Verdict, pair: Pair, network: str) -> str:
    if verdict.accuracy is not Favours.NEITHER:
        same = f"these {pair.n} images show no difference in log-loss from {network} ({_log_loss(pair)}), and it is cheaper"
        advice = ": use that one if only the class matters" if verdict.accuracy is Favours.NETWORK else ""
        return f"{same}; but the {_accuracy(verdict, pair, of=network)}{advice}"
    reason = f"these {pair.n} images show no difference from {network} ({_log_loss(pair)}), and it is cheaper"
    if verdict.needed is None:  # an interval may need a little more than the formula says
        return reason
    number = f"about {verdict.images_needed:,}" if verdict.images_needed else f"more than {CAP:,}"
    which = "independent images" if pair.grouped else "images like these"
    equal = ""
    if pair.counted[0] == pair.counted[1]:
        equal = f"both classify equally many {'independent ones ' if pair.grouped else ''}correctly; "
    return f"{reason} ({equal}showing a difference in accuracy would take {number} {which})"


def _log_loss(pair: Pair) -> str:
    low, high = pair.log_loss_interval
    side = "lower" if pair.log_loss_difference < 0 else "higher"
    difference = abs(pair.log_loss_difference)
    return f"log-loss {difference:.4f} {side}, 95% interval of the difference {low:+.4f} to {high:+.4f}"


def _accuracy(verdict: Verdict, pair: Pair, of: str = "") -> str:
    side = "higher" if verdict.accuracy is Favours.NETWORK else "lower"
    return f"accuracy{f' of {of}' if of else ''} is {100 * abs(pair.accuracy_difference):.1f} points {side}"


def no_p_value(reason: NoPValue | None) -> str | None:
    """Return why there is no p-value; None where there is one."""
    return None if reason is None else _NO_P_VALUE[reason]


def first_pair(pair: Pair, reason: NoPValue | None) -> str:
    """Return the differences of the first pair, with their intervals, and the p-value or why there is none."""
    low, high = (100 * value for value in pair.accuracy_interval)
    accuracy = f"accuracy {100 * pair.accuracy_difference:+.1f} points ({low:+.1f} to {high:+.1f})"
    low, high = pair.log_loss_interval
    loss = f"log-loss {pair.log_loss_difference:+.4f} ({low:+.4f} to {high:+.4f})"
    apart = f" ({pair.independent} images, one of each set of near-duplicates)" if pair.grouped else ""
    p = f"no p-value: {no_p_value(reason)}"
    if pair.p_value is not None:
        p = f"McNemar's exact p {pair.p_value:.3g}{apart}"
    return f"{pair.a} against {pair.b}: {accuracy}, {loss}; 95% bootstrap intervals; {p}"


def notes(comparison: Comparison, ranked_by: str) -> list[str]:
    """Return what has to be known to read the table of all models.

    Args:
        ranked_by: what the heads are ranked by (`heads.search.Criterion`).
    """
    head, predictions = comparison.contrast.head, comparison.predictions
    heads = [row.name for row in comparison.rows if row.candidate.kind != "tuned"]
    found = []
    if ranked_by == "folds" and predictions.source != "folds" and heads[:1] != [head]:
        found.append(f"{head} is the best head by cross-validation (vggft head), which uses more images.")
    if predictions.grouped:
        found.append(
            "Some of these images belong together. The intervals in this table ignore that, and are too narrow."
        )
    return found


def advise(advice: Advice) -> str:
    """Return what to do next."""
    match advice:
        case CrossValidate(command, seconds):
            return (
                f"For a verdict on all images, run nested cross-validation (about {duration(seconds)} here): {command}"
            )
        case ReserveTest(command):
            return f"For a verdict on images that selected nothing, reserve a test split and train again: {command}"
        case SelectionUnreliable(better, worse, log_loss):
            return (
                f"Out of fold, {better} is better than {worse} (log-loss {log_loss:.4f} lower): selection on few validation "
                "images is unreliable. compare.csv has the numbers of all models."
            )
        case Tune(command):
            return f"No tuned network was compared. To tune one from the cached features, and compare again: {command}"
        case TuneAgain(network):
            return f"But {network} kept epoch 0, and is still the head it started from. Tune again with another --seed or --lr."
