"""The whole original experiment, with as many epochs for each contender, the start of the program included."""

from benchmarks.contest import Contest, ratios, spread, table
from benchmarks.questions.answer import Answer, numbers

CONTENDERS = ("vggft", "original", "original_corrected")


def ask(contest: Contest) -> Answer:
    """Let each contender repeat the experiment; once, because it takes long."""
    runs = contest.in_turn(CONTENDERS, contest.task("experiment", epochs=contest.epochs), contest.clear, rounds=1)
    rows = []
    for name, each in runs.items():
        score, seconds = each[-1].scores[-1], [run.seconds for run in each]
        relative = ratios(seconds, [run.seconds for run in runs["vggft"]]) if "vggft" in runs else "–"
        unseen = [f"{score.unseen[quantity]:.3f}" for quantity in ("log_loss", "accuracy")]
        memory = max(run.memory for run in each)
        rows.append([name, spread(seconds), relative, *unseen, f"{memory / 1e9:.1f} GB"])
    heads = ["", "seconds", "× vggft", "log-loss, unseen images", "accuracy", "peak memory"]
    return Answer(f"The original experiment, {contest.epochs} epochs", table(heads, rows), numbers(runs))
