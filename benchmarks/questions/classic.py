"""The classic head on the outputs of the frozen network: 50 epochs."""

from benchmarks.contest import Contest, Run, fastest_first, relative, spread, table
from benchmarks.questions.answer import Answer, numbers

EPOCHS = 50
CACHED = ("vggft", "keras_npy")  # from features that were computed before
FROM_PIXELS = "original"  # the frozen network runs again in every epoch
MEASURED = 2  # epochs from pixels that are measured; the first compiles


def ask(contest: Contest) -> Answer:
    """Measure the training of the head, the start of the program included."""
    epochs = 2 if contest.quick else EPOCHS
    contest.prepare(CACHED)
    tasks = {name: contest.task("classic", epochs=epochs) for name in CACHED}
    runs = contest.in_turn((*CACHED, FROM_PIXELS), {**tasks, FROM_PIXELS: contest.task("classic", epochs=MEASURED)})
    seconds = {
        name: [_whole(run, epochs) if name == FROM_PIXELS else run.seconds for run in each]
        for name, each in runs.items()
    }
    rows = [[name, spread(seconds[name]), relative(seconds, name)] for name in fastest_first(seconds)]
    text = (
        f"{table(['', 'seconds', '× vggft'], rows)}\n\n{' and '.join(CACHED)} read features that were computed before. "
        f"{FROM_PIXELS} computes them again in every epoch: {MEASURED} epochs were measured, and the second "
        "one counts for the others."
    )
    return Answer(f"{epochs} epochs of the classic head", text, numbers(runs))


def _whole(run: Run, epochs: int) -> float:
    """Return the seconds of all epochs, from those of the last one measured, with start and first epoch as they were."""
    return run.seconds + (epochs - len(run.epochs)) * run.epochs[-1]
