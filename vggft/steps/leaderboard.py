"""What a person sees of heads: the leaderboard and how sure it is, leaks, suspect labels."""

from collections.abc import Sequence
from pathlib import Path

from featurize.wording import counted
from heads import leaks, search
from heads.leaks import Leak
from heads.metrics import Metrics
from heads.search import Result
from heads.suspects import Suspect
from vggft.ui.console import Ui
from vggft.ui.table import auc_text, interval_text

_FEW_VOTERS = 3
_SHOWN = 20  # leaks or suspects: the others are in the file, and in --json


def show(ranked: Sequence[Result], ui: Ui) -> None:
    """Print the leaderboard, and warn of heads that something is wrong with.

    Args:
        ranked: the best first, as `heads.search.best_first` orders them.
    """
    by = search.criterion(ranked)
    spread = any(result.spread for result in ranked)
    mixed = by != "folds" and any(result.folds for result in ranked)
    rows = []
    for i, result in enumerate(ranked):
        m = _measured(result, by)
        row = [result.head.name + ("  ← best" if i == 0 else ""), f"{result.head.parameters:,}"]
        row += [f"{m.accuracy:.3f}", interval_text(m), f"{m.log_loss:.4f}", auc_text(m)]
        if spread:
            own = result.spread
            row.append(f"{own.log_loss:.4f} ± {own.log_loss_sd:.4f} ({own.seeds})" if own else "–")
        if mixed:
            row.append(f"{result.folds.log_loss:.4f}" if result.folds else "–")
        rows.append([*row, f"{result.seconds:.1f}"])
    columns = ["head", "parameters", "accuracy", "95% interval", "log-loss", "AUC"]
    columns += ["validation, mean ± sd (seeds)"] if spread else []
    columns += ["out of fold"] if mixed else []
    where = "images, out of fold" if by == "folds" else "validation images"
    order = "lowest mean over seeds" if by == "seeds" else "lowest log-loss"
    ui.table(f"Heads on {_measured(ranked[0], by).n} {where}, {order} first", [*columns, "seconds"], rows)
    for what, there in (("folds", mixed), ("seeds", spread and by == "validation")):
        if there:
            ui.say(
                f"ranked on validation: not all of these heads have the same {what} (--cv and --seeds of the same numbers)"
            )
    for result in ranked:
        if result.status != "ok":
            ui.warn(f"{result.head.name}: {result.status}; {result.remark}")


def _measured(result: Result, by: search.Criterion) -> Metrics:
    return result.folds if by == "folds" and result.folds else result.validation


def show_width(best: Metrics, images: int, ui: Ui) -> None:
    """Say how little a few validation images can tell, and what tells more.

    Args:
        best: the best head on the validation images; images: that cross-validation would judge on.
    """
    low, high = best.accuracy_interval
    ui.print(
        f"only {counted(best.n, 'validation image')}: they leave the accuracy of the best within {low:.2f}–{high:.2f} (95%), "
        f"and have chosen it, too. --cv 5 judges on all {images}, each image out of its fold."
    )


def show_suspects(found: Sequence[Suspect], images: int, voters: Sequence[str], path: Path, ui: Ui) -> None:
    """Print the first suspects of so many images, doubted by so many heads, and the file with all of them."""
    if len(voters) < _FEW_VOTERS:
        ui.warn(
            f"suspects by {', '.join(voters)} alone: more heads agree on less that is chance (vggft head --cv 5 --suspects)"
        )
    rows = [(s.path, s.label, s.predicted, f"{s.score:.3f}") for s in found[:_SHOWN]]
    title = f"{len(found)} of {images} images whose label most of {len(voters)} heads doubt, worst first"
    ui.table(title, ("image", "label", "predicted", "score"), rows)
    ui.print(f"suspects: {path}")


def show_leaks(exact: Sequence[Leak], near: Sequence[Leak], ui: Ui) -> None:
    """Warn of images that are in two places."""
    for leak in exact[:_SHOWN]:
        ui.warn(f"{leak.kind.replace('-', ' ')}: {', '.join(leak.paths)}")
    if near:
        ui.warn(
            f"nearly the same as one in another split (cosine similarity {leaks.THRESHOLD} or more): "
            f"{counted(len(near), 'image')}. Numbers measured on such images flatter. Keep them "
            "together: vggft featurize --group-by REGEX"
        )
    for leak in near[:_SHOWN]:
        ui.warn(f"  {leak.similarity:.3f}  {', '.join(leak.paths)}")
    if not near:
        ui.say(f"no near-duplicates across splits (cosine similarity of {leaks.THRESHOLD} or more)")
    if max(len(exact), len(near)) > _SHOWN:
        ui.warn(f"{len(exact) + len(near)} such images in all: --json lists them")
