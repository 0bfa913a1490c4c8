"""What heads are trained on: features of the training and validation images, views among them; and leaks between splits."""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np

from featurize.data.dataset import Dataset, Sample
from featurize.errors import VggftError
from heads import features, leaks, near_duplicates
from heads.features import Features
from heads.leaks import Leak
from heads.specs import DEFAULTS, Pooling, Spec
from vggft.steps import leaderboard
from vggft.ui.console import Ui
from vggft.workspace import maps, views
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace


@dataclass(frozen=True)
class Inputs:
    """Pooled features of the training images (near-duplicates in one group), of the validation images, and leaks."""

    train: Features
    validation: Features
    leaks: Sequence[Leak]


def readable(workspace: Workspace, specs: Sequence[Spec], number: int, ui: Ui, *, named: bool) -> list[Spec]:
    """Return the heads whose inputs are cached: those that read all positions of the last layer are left out where it is not.

    Args:
        number: of views of each training image.
        named: the user has named all of them; else only those that are no default heads.

    Raises:
        VggftError: a head that the user has named would be left out.
    """
    without = [spec.name for spec in specs if spec.pooling == "flatten"]
    if not without or not maps.lacking(workspace, number):
        return list(specs)
    names, top = ", ".join(without), workspace.architecture.top
    if named or not set(without) <= {spec.name for spec in DEFAULTS}:
        raise VggftError(
            f"{names}: needs {top}, but {maps.reason(workspace)}. Compute it from the images: {maps.command(workspace)}"
        )
    ui.say(
        f"left out: {names}, which needs {top}: {maps.reason(workspace)}, {maps.command(workspace)} computes all of it"
    )
    return [spec for spec in specs if spec.name not in without]


def read(workspace: Workspace, wanted: Collection[Pooling], number: int, ui: Ui) -> Inputs:
    """Read what is trained on, training images first; of the test images only what finds leaks.

    Args:
        wanted: poolings, besides "avg".
        number: of views of each training image.

    Raises:
        VggftError: a split without images, or views that cannot be computed.
    """
    dataset = workspace.dataset
    for split in ("train", "validate"):
        if not dataset.accepted(split):
            raise VggftError(
                f"{workspace.manifest}: no usable image in split {split!r}. Add some, and run again: vggft featurize "
                f"{shlex.quote(workspace.settings.data)}{workspace_flag(workspace.root)}"
            )
    poolings = [pooling for pooling in get_args(Pooling) if pooling in {"avg", *wanted}]
    everything = _pooled(workspace, dataset.accepted("train") + dataset.accepted("validate"), poolings, ui)
    test = _of_test(workspace, ui)
    learnt = len(dataset.accepted("train"))
    # The training images by themselves: validation images change nothing here.
    train, grouping = near_duplicates.together(everything.take(slice(0, learnt)))
    for sentence in grouping.about_folds():  # two labels are among the leaks
        ui.warn(sentence)
    train = _with_views(workspace, number, train, ui)
    return Inputs(train, everything.take(slice(learnt, None)), _leaks(dataset, everything, test, ui))


def _of_test(workspace: Workspace, ui: Ui) -> Features | None:
    """Read the test images to search them for leaks; an error there does not stop training."""
    samples = workspace.dataset.accepted("test")
    try:
        return _pooled(workspace, samples, ["avg"], ui) if samples else None
    except VggftError as error:
        ui.warn(f"the test images are not searched for leaks. {error}")
        return None


def _pooled(workspace: Workspace, samples: Sequence[Sample], poolings: Sequence[Pooling], ui: Ui) -> Features:
    targets = workspace.dataset.targets(samples)
    with ui.progress("reading features", len(samples)) as advance:
        return features.read(workspace.cache(), samples, targets, poolings, advance, workspace.settings.layers)


def _with_views(workspace: Workspace, number: int, train: Features, ui: Ui) -> Features:
    """Return the training images with views of each, computed where they are missing."""
    if not number:
        return train
    poolings, kept, targets, pooled = list(train.pooled), workspace.settings.layers, train.targets.tolist(), []
    for cache in views.compute(workspace, number, train.samples, workspace.read_by_heads(poolings), ui):
        with ui.progress("reading views", len(train)) as advance:
            pooled.append(features.read(cache, train.samples, targets, poolings, advance, kept).pooled)
    return replace(train, views=tuple(pooled))


def _leaks(dataset: Dataset, everything: Features, test: Features | None, ui: Ui) -> list[Leak]:
    samples, pooled = list(everything.samples), everything.pooled["avg"]
    if test is not None:
        samples += test.samples
        pooled = np.concatenate([pooled, test.pooled["avg"]])
    exact, near = leaks.exact(dataset.samples), leaks.near(samples, pooled)
    leaderboard.show_leaks(exact, near, ui)
    return [*exact, *near]
