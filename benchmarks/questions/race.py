"""What each contender reaches in the same time, on images that chose nothing; and how long it takes to reach what another did."""

from collections.abc import Mapping, Sequence

from benchmarks.contest import VGGFT, Contest, Run, Score, table
from benchmarks.questions.answer import Answer, numbers

CONTENDERS = (
    "vggft",
    "keras_npy",
    "original",
    "original_corrected",
    "keras_guide",
    "torchvision_vgg16",
    "fastai_fine_tune",
    "linear_grid",
)
REFERENCE = "original_corrected"  # whose best validation log-loss the others are to reach


def ask(contest: Contest) -> Answer:
    """Let each contender train for the longest of the times, once."""
    seconds = [minutes * 60 for minutes in contest.minutes]
    runs = {
        name: each[0]
        for name, each in contest.in_turn(
            CONTENDERS, contest.task("race", seconds=seconds[-1]), contest.clear, rounds=1
        ).items()
    }
    text = f"{_reached(runs, seconds)}\n\n{_times(runs, seconds[-1])}"
    return Answer("The best in the same time", text, numbers({name: [run] for name, run in runs.items()}))


def best_until(scores: Sequence[Score], seconds: float) -> Score | None:
    """Return the model with the lowest validation log-loss of those that existed by then."""
    existed = [score for score in scores if score.clock <= seconds]
    return min(existed, key=lambda score: score.validation["log_loss"], default=None)


def reached(scores: Sequence[Score], log_loss: float) -> float | None:
    """Return the seconds until a model had this validation log-loss or a lower one."""
    return next((score.clock for score in scores if score.validation["log_loss"] <= log_loss), None)


def _reached(runs: Mapping[str, Run], times: Sequence[float]) -> str:
    """Return log-loss and accuracy on unseen images of the model that validation images select after each time."""
    rows = []
    for name, run in runs.items():
        row = [name]
        for seconds in times:
            score = best_until(run.scores, seconds)
            row.append(f"{score.unseen['log_loss']:.3f}, {score.unseen['accuracy']:.3f}" if score else "–")
        last = best_until(run.scores, times[-1])
        rows.append([*row, last.name if last else "–", f"{run.memory / 1e9:.1f} GB"])
    heads = [f"after {seconds / 60:g} min" for seconds in times]
    return table(["log-loss, accuracy on unseen images", *heads, "selected", "peak memory"], rows)


def _times(runs: Mapping[str, Run], limit: float) -> str:
    """Return when each contender reached the best validation log-loss that the reference reached in its time."""
    if REFERENCE not in runs or (best := best_until(runs[REFERENCE].scores, limit)) is None:
        return f"{REFERENCE} has finished no epoch."
    log_loss = best.validation["log_loss"]
    rows = []
    for name, run in runs.items():
        seconds = reached(run.scores, log_loss)
        rows.append([name, "not reached" if seconds is None else f"{seconds:.0f} s"])
    text = table([f"validation log-loss {log_loss:.3f} or lower", "after"], rows)
    own, ours = reached(runs[REFERENCE].scores, log_loss), VGGFT in runs and reached(runs[VGGFT].scores, log_loss)
    return f"{text}\n\n{REFERENCE} took {own / ours:.1f} times as long as vggft." if own and ours else text
