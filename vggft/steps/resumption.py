"""Resuming an interrupted fine-tuning run."""

from collections.abc import Sequence
from typing import Any

from featurize.errors import VggftError
from finetune import store
from finetune.store import Settings, Unfinished
from vggft.prediction import models
from vggft.steps import new_run, tuning
from vggft.steps.job import Job
from vggft.steps.run_report import report
from vggft.steps.training_inputs import Inputs
from vggft.steps.tuning import prepare
from vggft.ui.console import Ui
from vggft.workspace import provenance
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, name: str | None, ui: Ui, memory: int | None = None) -> dict[str, Any]:
    """Resume an interrupted run; where there is none, report the last run.

    Args:
        name: run name; None: the unfinished run that was trained last.
        memory: bytes of inputs in memory, if other than before: it makes no difference to the numbers.

    Raises:
        VggftError: no run of that name, or images or a backend other than at its start.
    """
    with workspace.writing():
        unfinished = sorted(store.unfinished(workspace.finetune), key=lambda run: run.changed)
        if name is not None:
            unfinished = [run for run in unfinished if run.folder.name == name]
        if not unfinished:
            return _nothing_to_resume(workspace, name, ui)
        begun = _resumable(workspace, unfinished, ui)
        settings = begun.settings
        new_run.keep(workspace, settings.name, ui)
        if memory is not None:
            new_run.require_memory(workspace, memory, settings.split_point, settings.plan.batch_size)
        return train(workspace, begun, Inputs(), ui, memory)


def train(workspace: Workspace, begun: Unfinished, inputs: Inputs, ui: Ui, memory: int | None = None) -> dict[str, Any]:
    """Train the remaining epochs of a run that `require_same` lets pass. The lock must be held.

    Args:
        inputs: those of an earlier run, if it had the same.
        memory: bytes of inputs in memory, if other than before.

    Raises:
        VggftError: images that are gone, or the parity gate.
    """
    job = Job.of(workspace, workspace.cache(), begun, memory)
    return {"resumed": True, **tuning.train(job, prepare(job, ui, inputs), ui)}


def _resumable(workspace: Workspace, unfinished: Sequence[Unfinished], ui: Ui) -> Unfinished:
    """Return the last of some unfinished runs that can be resumed, and name those that are left as they are.

    Raises:
        VggftError: none can be; why the last one cannot.
    """
    failure: VggftError | None = None
    for run in reversed(unfinished):
        try:
            require_same(workspace, run.settings, run.head.classes)
        except VggftError as error:
            failure = failure or error
            continue
        for other in unfinished:
            if other is not run:
                ui.say(
                    f"run {other.folder.name} stays unfinished: this resumes {run.folder.name}. vggft runs"
                    f"{workspace_flag(workspace.root)} lists them"
                )
        return run
    assert failure is not None  # there is a run
    raise failure


def _nothing_to_resume(workspace: Workspace, name: str | None, ui: Ui) -> dict[str, Any]:
    finished = models.load_runs(workspace, on_damage=lambda error: ui.warn(f"left out: {error}"))
    if name is not None:
        finished = [run for run in finished if run.name == name]
        if not finished:
            raise VggftError(
                f"--resume --name {name}: no such run. Start it: vggft finetune --name {name}"
                f"{workspace_flag(workspace.root)}"
            )
    ui.print("no unfinished run here" if name is None else f"{name} is finished")
    if not finished:
        return {"resumed": False, "name": None}
    last = max(finished, key=lambda run: (workspace.finetune / run.name / store.RUN).stat().st_mtime_ns)
    if not provenance.matches(provenance.current(workspace), last.settings.provenance):
        why = provenance.difference(workspace, last.classes, last.settings.provenance)
        ui.warn(f"{last.name} is stale: {why}. To tune again: vggft finetune{workspace_flag(workspace.root)}")
    return {"resumed": False, **report(workspace, last, ui), "failed": []}  # its failure was reported when it happened


def require_same(workspace: Workspace, settings: Settings, classes: Sequence[str]) -> None:
    """Check that a resumed run gives the result of an uninterrupted one.

    Args:
        classes: those of the head that it starts from.

    Raises:
        VggftError: the run is stale, or was begun on another backend.
    """
    begun_with, current = settings.provenance, {**provenance.current(workspace), **provenance.versions()}
    where = workspace_flag(workspace.root)
    instead = f"start a new run: vggft finetune{where} (vggft runs --remove {settings.name}{where} deletes this one)"
    if not models.split_fits(workspace, settings):
        raise VggftError(
            f"--resume: the run {settings.name} is damaged: {settings.unfreeze} does not lie above {settings.split_point}. "
            f"To go on, {instead}"
        )
    if not provenance.is_fresh(workspace, classes, begun_with):
        why = provenance.difference(workspace, classes, begun_with, "begun")
        raise VggftError(
            f"--resume: the run {settings.name} is stale: {why}. Restore the data and run vggft featurize, or {instead}"
        )
    backend_then = begun_with.get("backend")
    if backend_then != current["backend"]:
        raise VggftError(
            f"{settings.name}: begun on {backend_then}; on {current['backend']} its weights would differ. "
            f"Set KERAS_BACKEND={backend_then}, or {instead}"
        )
