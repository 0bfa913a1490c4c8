"""From files to features on disk, the start of the program included."""

from benchmarks.contenders.entry import TRAIN, VALIDATE, listed
from benchmarks.contest import Contest
from benchmarks.questions.answer import Answer, numbers, seconds_table

CONTENDERS = ("vggft", "keras_npy")


def ask(contest: Contest) -> Answer:
    """Let each contender compute and store the features of all pictures."""
    runs = contest.in_turn(CONTENDERS, contest.task("features"), contest.clear)
    images = sum(len(listed(contest.data / split)[0]) for split in (TRAIN, VALIDATE))
    title = f"Features of {images} images, files to disk"
    return Answer(title, seconds_table(runs, images), numbers(runs))
