"""The classic head on the outputs of the frozen network: 50 epochs."""

from statistics import median

from benchmarks.contest import VGGFT, Contest, Run, ratios, spread, table
from benchmarks.questions.answer import Answer, numbers

EPOCHS = 50
CACHED = ("vggft", "keras_npy")  # from features that the task before computed
FROM_PIXELS = "original"  # the frozen network runs again in every epoch
MEASURED = 2  # epochs from pixels that are measured; the first compiles


def ask(contest: Contest) -> Answer:
    """Train the head with each contender."""
    epochs = 2 if contest.quick else EPOCHS
    contest.prepare(CACHED)
    runs = contest.in_turn(CACHED, contest.task("classic", epochs=epochs))
    measured = contest.in_turn([FROM_PIXELS], contest.task("classic", epochs=MEASURED))
    seconds = {name: [run.seconds for run in each] for name, each in runs.items()}
    seconds |= {name: [_whole(run, epochs) for run in each] for name, each in measured.items()}
    rows = [
        [name, spread(each), ratios(each, seconds[VGGFT]), "" if name in runs else f"{MEASURED} epochs measured"]
        for name, each in sorted(seconds.items(), key=lambda pair: median(pair[1]))
    ]
    text = table(["", "seconds", "× vggft", ""], rows)
    return Answer(f"{epochs} epochs of the classic head", text, numbers(runs | measured))


def _whole(run: Run, epochs: int) -> float:
    """Return the seconds of all epochs, from those of the last one measured, with start and first epoch as they were."""
    return run.seconds + (epochs - len(run.epochs)) * run.epochs[-1]
