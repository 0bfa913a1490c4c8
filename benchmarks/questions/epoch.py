"""An epoch of fine-tuning block5 with a head, validation included, after the first, which compiles."""

from benchmarks.contest import VGGFT, Contest, fastest_first, relative, spread, table
from benchmarks.questions.answer import Answer, memory_of, numbers

TRAINS = {  # contender → what it trains, from what
    "vggft": "block5 and a linear head, from cached block4_pool",
    "vggft_streamed": "the same, with memory for two batches of these",
    "original_corrected": "block5 and a head of 256 units, from pixels",
    "torchvision_vgg16": "block5 and a linear head, from changed pixels",
    "fastai_fine_tune": "block5 and fastai's head, from changed pixels",
    "keras_guide": "all layers and a linear head, from changed pixels",
}
EPOCHS = 3


def ask(contest: Contest) -> Answer:
    """Measure some epochs."""
    contest.prepare((VGGFT, "vggft_streamed"))
    runs = contest.in_turn(tuple(TRAINS), contest.task("epoch", epochs=EPOCHS))
    seconds = {name: [min(run.epochs[1:]) for run in each] for name, each in runs.items()}
    rows = [
        [
            name,
            spread(seconds[name]),
            relative(seconds, name),
            spread([run.epochs[0] for run in runs[name]]),
            memory_of(runs[name]),
            TRAINS[name],
        ]
        for name in fastest_first(seconds)
    ]
    heads = ["", "seconds an epoch", "× vggft", "first epoch", "peak memory", "trains"]
    text = f"{table(heads, rows)}\n\nThe fastest of epochs 2 to {EPOCHS} in each round, with validation; the first one compiles."
    return Answer("An epoch of fine-tuning", text, numbers(runs))
