"""From files to features on disk, the start of the program included."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.entry import TRAIN, VALIDATE, listed
from benchmarks.contest import VGGFT, Contest
from benchmarks.questions.answer import Answer, disk_of, memory_of, numbers, seconds_table
from featurize.backbone.vgg16 import VGG16
from featurize.disk import durable
from vggft.workspace.workspace import Workspace

CONTENDERS = ("vggft", "keras_npy", "torchvision_vgg16")
COMPARABLE = ("keras_npy",)  # reads pictures as vggft does, but for the programs that decode and resize
ARRAY = f"features-{VALIDATE}.npy"  # what it stores: (images, 7, 7, 512), in the order of `listed`
_SAME = 2e-3  # relative difference of the features of an image, of pictures that every program reads alike


def ask(contest: Contest) -> Answer:
    """Measure what it takes to compute and store the features of all pictures."""
    runs = contest.in_turn(CONTENDERS, contest.task("features"), contest.clear)
    images = sum(len(listed(contest.data / split)[0]) for split in (TRAIN, VALIDATE))
    memory = {name: memory_of(each) for name, each in runs.items()}
    disk = {name: disk_of(each, images) for name, each in runs.items()}
    text, measured = seconds_table(runs, {"peak memory": memory, "on disk an image": disk}), numbers(runs)
    if VGGFT in runs:
        engines = {event["engine"] for run in runs[VGGFT] for event in run.events if event["event"] == "features"}
        text += (
            f"\n\nvggft stores {' and '.join(VGG16.cached)} as float16, computed by {', '.join(sorted(engines))}; the others "
            f"store {VGG16.top} as float32."
        )
        apart = {name: difference(contest, name) for name in COMPARABLE if name in runs}
        text += "".join(
            f" Features of {name} differ by a relative error of up to {value:.1e} from those of vggft, on validation images."
            for name, value in apart.items()
        )
        if contest.quick and any(value > _SAME for value in apart.values()):
            sys.exit(f"features of the same pixels differ: {apart}; expected {_SAME:.0e} at most")
        measured["apart"] = apart
    return Answer(f"Features of {images} images, files to disk", text, measured)


def difference(contest: Contest, name: str) -> float:
    """Return the largest relative difference of the features of a validation image from those of vggft."""
    stored = np.load(contest.work(name) / ARRAY)
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(stored, _of_vggft(contest), strict=True)
    )


def _of_vggft(contest: Contest) -> NDArray[np.float32]:
    workspace = Workspace(contest.work(VGGFT) / "vggft-work", VGG16)
    digests = [durable.sha256(Path(file)) for file in listed(contest.data / VALIDATE)[0]]
    return np.asarray(workspace.cache().read(VGG16.top, digests), np.float32)
