"""The best model that each contender has after some minutes, by images that chose nothing; and how long that takes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from statistics import median

from benchmarks.contenders.entry import listed
from benchmarks.contest import VGGFT, Contest, Run, Score, spread, table
from benchmarks.questions.answer import Answer, memory_of, numbers

CONTENDERS = (
    "vggft",
    "keras_npy",
    "original",
    "original_corrected",
    "keras_guide",
    "torchvision_vgg16",
    "torchvision_fixed",
    "fastai_fine_tune",
    "linear_grid",
)
PLANNING = ("fastai_fine_tune", "linear_grid")  # their schedules end with the time: they train for each of the times
REFERENCE = "original_corrected"  # whose best model the others are to reach

Runs = Mapping[str, Sequence[Run]]


def ask(contest: Contest) -> Answer:
    """Let all contenders train for the longest of the times."""
    times = [minutes * 60 for minutes in contest.minutes]
    by_time: dict[float, dict[str, list[Run]]] = {}
    for seconds in reversed(times):
        names = CONTENDERS if seconds == times[-1] else PLANNING
        runs = contest.in_turn(names, contest.task("race", seconds=seconds), contest.clear)
        others = {name: run for name, run in by_time.get(times[-1], {}).items() if name not in PLANNING}
        by_time[seconds] = others | runs
    longest = by_time[times[-1]]
    unseen = len(listed(contest.unseen)[0])
    text = f"{_reached(by_time)}\n\n{_times(longest)}"
    measured = {f"{seconds / 60:g} min": numbers(runs) for seconds, runs in by_time.items()}
    return Answer(f"The best model within a time limit; scores on {unseen} unseen images", text, measured)


def best_until(scores: Sequence[Score], seconds: float) -> Score | None:
    """Return the model with the lowest validation log-loss of those that existed by then."""
    existing = [score for score in scores if score.clock <= seconds]
    return min(existing, key=lambda score: score.validation["log_loss"], default=None)


def reached(scores: Sequence[Score], enough: Callable[[Score], bool]) -> float | None:
    """Return the seconds until the model that validation selects is good enough."""
    for score in scores:
        best = best_until(scores, score.clock)
        if best and enough(best):
            return score.clock
    return None


def _reached(by_time: Mapping[float, Runs]) -> str:
    """Return log-loss and accuracy on unseen images after each time, the best after the longest time first."""
    times = sorted(by_time)
    selected = {
        (name, seconds): [best_until(run.scores, seconds) for run in runs]
        for seconds in times
        for name, runs in by_time[seconds].items()
    }
    longest = by_time[times[-1]]

    def rank(name: str) -> float:
        scores = selected[name, times[-1]]
        return median(score.unseen["log_loss"] if score else inf for score in scores)

    rows = []
    for name in sorted(longest, key=rank):
        cells = [_shown(selected.get((name, seconds), [None])) for seconds in times]
        last = " / ".join(score.name if score else "–" for score in selected[name, times[-1]])
        rows.append([name, *cells, last, memory_of(longest[name])])
    heads = [f"after {seconds / 60:g} min" for seconds in times]
    return table(["log-loss, accuracy on unseen images", *heads, "selected model", "peak memory"], rows)


def _shown(scores: Sequence[Score | None]) -> str:
    present = [score for score in scores if score]
    if len(present) < len(scores):
        return "–"
    return ", ".join(
        spread([score.unseen[quantity] for score in present], ".3f") for quantity in ("log_loss", "accuracy")
    )


def _times(runs: Runs) -> str:
    """Return after how many seconds each contender was as good as the best model of the reference in the same round."""
    if REFERENCE not in runs:
        return f"Without {REFERENCE}, there is nothing to reach."
    targets = [best_until(run.scores, inf) for run in runs[REFERENCE]]
    if not all(targets):
        return f"{REFERENCE} has finished no epoch."
    goals: dict[str, Callable[[Score, Score], bool]] = {
        "validation log-loss": lambda target, score: score.validation["log_loss"] <= target.validation["log_loss"],
        "unseen log-loss": lambda target, score: score.unseen["log_loss"] <= target.unseen["log_loss"],
        "unseen accuracy": lambda target, score: score.unseen["accuracy"] >= target.unseen["accuracy"],
    }
    seconds = {
        (name, goal): [
            reached(run.scores, partial(better, target)) for run, target in zip(each, targets, strict=True) if target
        ]
        for name, each in runs.items()
        for goal, better in goals.items()
    }

    def rank(name: str) -> float:
        first, *_ = goals
        reached_in = [inf if each is None else each for each in seconds[name, first]]
        return median(reached_in)

    rows = [[name, *(_seconds(seconds[name, goal]) for goal in goals)] for name in sorted(runs, key=rank)]
    text = table([f"seconds until as good as the best of {REFERENCE}", *goals], rows)
    ratios = []
    for goal in goals if VGGFT in runs else ():
        pairs = zip(seconds[REFERENCE, goal], seconds[VGGFT, goal], strict=True)
        values = [a / b for a, b in pairs if a is not None and b is not None]
        ratios += [f"{goal}: {spread(values)}"] if len(values) == len(targets) else []
    return f"{text}\n\n{REFERENCE} relative to {VGGFT}: {'; '.join(ratios) or 'not reached'}."


def _seconds(values: Sequence[float | None]) -> str:
    present = [value for value in values if value is not None]
    return spread(present, ".0f") if len(present) == len(values) else "not reached"
