"""Tables and messages about heads: the leaderboard, how certain it is, leaks between splits, suspect labels."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from featurize.wording import counted
from heads import search
from heads.leaks import Leak
from heads.logistic import C_VALUES
from heads.metrics import Metrics
from heads.search import Result
from heads.suspects import Suspect
from vggft.comparison.order import Certainty
from vggft.ui.console import Ui, duration
from vggft.ui.table import auc_text, interval_text

_FEW_VOTERS = 3
_SHOWN = 20  # leaks or suspects: the others are in the file, and in --json


def show(ranked: Sequence[Result], ui: Ui) -> None:
    """Print the leaderboard, and warn of heads that something is wrong with.

    Args:
        ranked: the best first, as `heads.search.best_first` orders them.
    """
    criterion = search.criterion(ranked)
    spread = any(result.spread for result in ranked)
    mixed = criterion != "folds" and any(result.folds for result in ranked)
    rows = []
    for i, result in enumerate(ranked):
        metrics = _ranking_metrics(result, criterion)
        row = [result.head.name + ("  ← best" if i == 0 else ""), f"{result.head.parameters:,}"]
        row += [f"{metrics.accuracy:.3f}", interval_text(metrics), f"{metrics.log_loss:.4f}", auc_text(metrics)]
        if spread:
            seeds = result.spread
            row.append(f"{seeds.log_loss:.4f} ± {seeds.log_loss_sd:.4f} ({seeds.seeds})" if seeds else "–")
        if mixed:
            row.append(f"{result.folds.log_loss:.4f}" if result.folds else "–")
        rows.append([*row, f"{result.seconds:.1f}"])
    columns = ["head", "parameters", "accuracy", "95% interval", "log-loss", "AUC"]
    columns += ["validation, mean ± sd (seeds)"] if spread else []
    columns += ["out of fold"] if mixed else []
    where = "images that they were not trained on" if criterion == "folds" else "validation images"
    order = "lowest mean over seeds" if criterion == "seeds" else "lowest log-loss"
    ui.table(f"Heads on {_ranking_metrics(ranked[0], criterion).n} {where}, {order} first", [*columns, "seconds"], rows)
    for what, uneven in (("folds", mixed), ("seeds", spread and criterion == "validation")):
        if uneven:
            ui.say(
                f"ranked by validation log-loss, because these heads were not all trained with the same number of {what}"
            )
    for result in ranked:
        if result.status != "ok":
            ui.warn(f"{result.head.name}: {result.status}; {result.remark}")


def _ranking_metrics(result: Result, criterion: search.Criterion) -> Metrics:
    return result.folds if criterion == "folds" and result.folds else result.validation


def show_order(first: str, order: Certainty, others: int, ui: Ui) -> None:
    """Print how sure the order of the heads is.

    Args:
        first: name of the best head.
        others: number of other heads.
    """
    of = f"{len(order.alike)} of {counted(others, 'other')}"
    alike = (
        f"{of} {'is' if len(order.alike) == 1 else 'are'} not significantly worse"
        if order.alike
        else ("the other is" if others == 1 else "all others are") + " significantly worse"
    )
    ui.print(f"how sure: {first} ranks first in {order.first:.0%} of bootstrap resamples of the images; {alike}")


def announcement(results: Sequence[Result], number: int) -> str:
    """Return how many heads are cross-validated, and about how long it takes.

    In each fold, dense heads train on fewer images, up to the best epoch (pooled ones together, up to the last of their best
    epochs), and a regression is fitted once instead of searched.
    """
    last: dict[bool, int] = defaultdict(int)
    for result in results:
        if result.history:
            flat = result.head.pooling == "flatten"
            last[flat] = max(last[flat], search.best_epoch(result.history))
    seconds = 0.0
    for result in results:
        if result.history:
            seconds += last[result.head.pooling == "flatten"] * median(epoch.seconds for epoch in result.history)
        else:
            seconds += result.seconds / len(C_VALUES)
    took = duration((number - 1) * seconds)
    return f"cross-validating {counted(len(results), 'head')} with {number} folds, about {took}"


def show_suspects(doubted: Sequence[Suspect], images: int, voters: Sequence[str], path: Path, ui: Ui) -> None:
    """Print the first suspects, and the file that lists them all.

    Args:
        doubted: the suspects, most doubtful first.
        images: number of images that were checked.
        voters: names of the heads that were asked.
    """
    if len(voters) < _FEW_VOTERS:
        number = "1 cross-validated head" if len(voters) == 1 else f"{len(voters)} cross-validated heads"
        ui.warn(
            f"suspects according to {number} only ({', '.join(voters)}); more give fewer false positives: vggft head --cv 5 "
            "--suspects"
        )
    rows = [(s.path, s.label, s.predicted, f"{s.score:.3f}") for s in doubted[:_SHOWN]]
    doubts = f"1 head ({voters[0]}) doubts" if len(voters) == 1 else f"most of {len(voters)} heads doubt"
    shown = f"; {_SHOWN} of {len(doubted)} shown" if len(doubted) > _SHOWN else ""
    title = f"{len(doubted)} of {images} images whose label {doubts}, most doubtful first{shown}"
    ui.table(title, ("image", "label", "predicted", "score"), rows)
    ui.print(f"suspects: {path}")


def show_leaks(exact: Sequence[Leak], near: Sequence[Leak], ui: Ui) -> None:
    """Warn about images that occur in two splits or under two labels."""
    for leak in exact[:_SHOWN]:
        ui.warn(f"{leak.kind.replace('-', ' ')}: {', '.join(leak.paths)}")
    across = {
        kind: [leak for leak in near if leak.kind == kind] for kind in ("near-duplicate", "near-duplicate-two-labels")
    }
    if across["near-duplicate"]:
        ui.warn(
            f"{counted(len(across['near-duplicate']), 'image')} with a near-duplicate in another split (below, with cosine "
            "similarity): metrics on them are optimistic. Keep them in one split: vggft featurize --group-by REGEX"
        )
    else:
        ui.say("no near-duplicates across splits")
    for leak in across["near-duplicate"][:_SHOWN]:
        ui.warn(f"  {leak.similarity:.3f}  {', '.join(leak.paths)}")
    if across["near-duplicate-two-labels"]:
        ui.warn("near-duplicates under two labels (below, with cosine similarity): one of the labels may be wrong")
    for leak in across["near-duplicate-two-labels"][:_SHOWN]:
        ui.warn(f"  {leak.similarity:.3f}  {', '.join(leak.paths)}")
    if max(len(exact), *map(len, across.values())) > _SHOWN:
        ui.warn(f"{len(exact) + len(near)} such images in total; --json lists them")
