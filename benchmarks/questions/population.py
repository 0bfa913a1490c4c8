"""Many heads: all that a contender's documentation trains, and the best of them by validation."""

from benchmarks.contenders.entry import listed
from benchmarks.contest import Contest
from benchmarks.questions.answer import Answer, numbers, seconds_table, unseen_of

CACHED = ("vggft", "keras_npy")  # from features that were computed before
FROM_PIXELS = "linear_grid"  # all heads in passes over changed pictures, until the first of the race's times is up


def ask(contest: Contest) -> Answer:
    """Measure the training of all heads, the start of the program included."""
    contest.prepare(CACHED)
    limited = contest.task("population", seconds=60 * contest.minutes[0])
    runs = contest.in_turn(
        (*CACHED, FROM_PIXELS), dict.fromkeys(CACHED, contest.task("population")) | {FROM_PIXELS: limited}
    )
    trained = {
        name: next(event for event in each[-1].events if event["event"] == "population") for name, each in runs.items()
    }
    columns = {"heads": {name: str(event["heads"]) for name, event in trained.items()}}
    for number, title in enumerate(("log-loss of the best", "accuracy")):
        columns[title] = {name: unseen_of(each)[number] for name, each in runs.items()}
    text = f"{seconds_table(runs, columns)}\n\n{' and '.join(CACHED)} read features that were computed before."
    if FROM_PIXELS in runs:
        text += (
            f" {FROM_PIXELS} gets {contest.minutes[0]:g} minutes, enough for {trained[FROM_PIXELS]['steps']} of the 12,500 "
            "steps that its documentation takes."
        )
    return Answer(
        f"The population of heads; scores on {len(listed(contest.unseen)[0])} unseen images", text, numbers(runs)
    )
