"""An epoch of fine-tuning block5 with a head, the validation included, after the first, which compiles."""

from benchmarks.contest import VGGFT, Contest, ratios, spread, table
from benchmarks.questions.answer import Answer, numbers

CONTENDERS = ("vggft", "original_corrected", "torchvision_vgg16", "fastai_fine_tune", "keras_guide")
EPOCHS = 3


def ask(contest: Contest) -> Answer:
    """Let each contender train some epochs."""
    contest.prepare((VGGFT,))
    runs = contest.in_turn(CONTENDERS, contest.task("epoch", epochs=EPOCHS))
    rows = []
    best = {name: [min(run.epochs[1:]) for run in each] for name, each in runs.items()}
    for name, seconds in sorted(best.items(), key=lambda pair: min(pair[1])):
        relative = ratios(seconds, best[VGGFT]) if VGGFT in best else "–"
        memory = max(run.memory for run in runs[name])
        first = spread([run.epochs[0] for run in runs[name]])
        rows.append([name, spread(seconds), relative, first, f"{memory / 1e9:.1f} GB"])
    text = table(["", "seconds an epoch", "× vggft", "first epoch", "peak memory"], rows)
    return Answer("An epoch of fine-tuning", text, numbers(runs))
