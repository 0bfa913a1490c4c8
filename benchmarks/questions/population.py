"""Many heads: all that the contender's documentation trains, and the best of them by validation."""

from benchmarks.contest import Contest, ratios, spread, table
from benchmarks.questions.answer import Answer, numbers

CACHED = ("vggft", "keras_npy")  # from features that the task before computed
FROM_PIXELS = ("linear_grid",)  # all heads in one pass over changed pictures


def ask(contest: Contest) -> Answer:
    """Let each contender train its heads."""
    contest.prepare(CACHED)
    runs = contest.in_turn([*CACHED, *FROM_PIXELS], contest.task("population"))
    rows = []
    for name, each in runs.items():
        (score,) = each[-1].scores
        heads = next(event["heads"] for event in each[-1].events if event["event"] == "population")
        seconds = [run.seconds for run in each]
        relative = ratios(seconds, [run.seconds for run in runs["vggft"]]) if "vggft" in runs else "–"
        unseen = [f"{score.unseen[quantity]:.3f}" for quantity in ("log_loss", "accuracy")]
        rows.append([name, str(heads), spread(seconds), relative, *unseen])
    heads = ["", "heads", "seconds", "× vggft", "log-loss of the best, unseen images", "accuracy"]
    return Answer("The population of heads", table(heads, rows), numbers(runs))
