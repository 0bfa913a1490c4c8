"""Training the folds of nested cross-validation on the workers of a cluster: a task is a fold.

Workers read the workspace, which all machines share, and write in the folds' own folders; this process holds the lock, and keeps
the results.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from featurize.backbone.architecture import Architecture
from featurize.cluster.cluster import Cluster
from featurize.errors import VggftError
from vggft.comparison.fold_files import FoldResult
from vggft.comparison.nested import NestedCrossValidation, Trainers
from vggft.prediction import models
from vggft.ui.collecting import Collecting
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


@dataclass(frozen=True)
class _Job:
    """What a worker needs to find the same folds; `folder`: of the folds, whose name is a hash of all that decides them."""

    architecture: Architecture
    root: Path
    number: int
    trainers: Trainers
    folder: Path


def train(cluster: Cluster, nested: NestedCrossValidation, ui: Ui, wanted: Sequence[int]) -> None:
    """Train folds (numbers from 0) on the workers, and keep their results.

    Raises:
        VggftError: the scheduler is gone, every worker that trained a fold died, or a worker finds other folds.
    """
    if not wanted:
        return
    workspace = nested.workspace
    job = _Job(
        workspace.architecture, workspace.root.absolute(), nested.number, nested.trainers, nested.folder.absolute()
    )
    call: Callable[[int], tuple[FoldResult, Sequence[str]]] = functools.partial(_train, job)
    with ui.progress("training folds", len(wanted), "folds") as advance:
        for count, task in enumerate(cluster.run(call, wanted), start=1):
            if task.result is None:  # its workers died
                raise VggftError(
                    f"fold {task.item + 1} of {nested.number}: every worker that ran it died, even with nothing else running, "
                    "probably out of memory. Finished folds are kept. Run the command again with larger workers, or without --on."
                )
            result, warnings = task.result
            for warning in warnings:
                ui.warn(warning)
            nested.keep(task.item, result, 0)
            advance(count)


def _train(job: _Job, k: int) -> tuple[FoldResult, Sequence[str]]:
    """Train a fold on a worker; return its result, and the warnings."""
    ui = Collecting()
    workspace = Workspace(job.root, job.architecture)
    present = models.load(workspace, on_damage=lambda error: None)  # reported by the process that holds the lock
    nested = NestedCrossValidation(workspace, present, job.number, job.trainers, lambda what: None, ui)
    ui.warnings.clear()  # of grouping: the other process has given them
    if nested.folder.absolute() != job.folder:
        raise VggftError(
            f"finds other folds in {job.root} than the process that compares. It needs the same files and the same KERAS_BACKEND."
        )
    return nested.train(k), ui.warnings
