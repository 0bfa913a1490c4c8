"""From files to features on disk, the start of the program included."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.contenders.entry import TRAIN, VALIDATE, listed
from benchmarks.contest import VGGFT, Contest
from benchmarks.questions.answer import Answer, numbers, seconds_table
from featurize.backbone.vgg16 import VGG16
from featurize.disk import durable
from vggft.workspace.workspace import Workspace

CONTENDERS = ("vggft", "keras_npy", "torchvision_vgg16")
COMPARABLE = ("keras_npy",)  # reads pictures as vggft does, but for the programs that decode and resize
ARRAY = f"features-{VALIDATE}.npy"  # what it stores: (images, 7, 7, 512), in the order of `listed`
_SAME = 2e-3  # relative difference of the features of an image, of pictures that every program reads alike


def ask(contest: Contest) -> Answer:
    """Let each contender compute and store the features of all pictures."""
    runs = contest.in_turn(CONTENDERS, contest.task("features"), contest.clear)
    images = sum(len(listed(contest.data / split)[0]) for split in (TRAIN, VALIDATE))
    text, measured = seconds_table(runs, images), numbers(runs)
    others = [name for name in COMPARABLE if name in runs]
    if VGGFT in runs and others:
        apart = {name: difference(contest, name) for name in others}
        wrong = [f"{name}: {value:.1e}" for name, value in apart.items() if contest.quick and value > _SAME]
        if wrong:
            sys.exit(f"features of the same pixels differ: {', '.join(wrong)}; expected {_SAME:.0e} at most")
        lines = [f"{name} {value:.1e}" for name, value in apart.items()]
        text += (
            f"\n\nFeatures of an image differ from those of vggft by a relative error of at most (validation images): "
            f"{', '.join(lines)}. Programs decode JPEG files and resize differently; of PNG files of 224 × 224 pixels (--quick), "
            f"they may differ by {_SAME:.0e}."
        )
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
