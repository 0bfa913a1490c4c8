"""The whole original experiment, as many epochs for each contender, the start of the program included."""

from benchmarks.contenders.entry import listed
from benchmarks.contest import Contest
from benchmarks.questions.answer import Answer, memory_of, numbers, seconds_table, unseen_of

CONTENDERS = ("vggft", "original", "original_corrected")


def ask(contest: Contest) -> Answer:
    """Measure the whole experiment."""
    runs = contest.in_turn(CONTENDERS, contest.task("experiment", epochs=contest.epochs), contest.clear)
    columns = {
        title: {name: unseen_of(each)[number] for name, each in runs.items()}
        for number, title in enumerate(("log-loss", "accuracy"))
    }
    columns["peak memory"] = {name: memory_of(each) for name, each in runs.items()}
    title = (
        f"The original experiment, {contest.epochs} epochs; scores on {len(listed(contest.unseen)[0])} unseen images"
    )
    text = (
        f"{seconds_table(runs, columns)}\n\nIn an epoch, original trains on half of the training images, or on a batch where "
        "that is more, as its script did; the others train on all of them."
    )
    return Answer(title, text, numbers(runs))
