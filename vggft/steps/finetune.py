"""A head → a tuned network, trained from the cached outputs of the split point; and resuming interrupted runs."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from featurize import backend
from featurize.cache.feature_cache import FeatureCache
from featurize.errors import VggftError
from featurize.options.choices import FULL_PRECISION, MIXED_PRECISION
from featurize.wording import counted
from finetune import examples, removal, store
from finetune.plan import SCRATCH, Plan
from finetune.store import Settings, Unfinished
from heads.specs import DEFAULTS, NAME, NAMES
from vggft.prediction import models
from vggft.steps import starts
from vggft.steps.options import MEMORY, FinetuneOptions
from vggft.steps.tuning import Job, files_of, prepare, report, train
from vggft.ui.console import Ui
from vggft.workspace import filling, provenance
from vggft.workspace.filling import Filling
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

RESUME = "vggft finetune --resume"


def run(workspace: Workspace, options: FinetuneOptions, ui: Ui) -> dict[str, Any]:
    """Tune the layers from `options.unfreeze` up, together with a head, and keep the network of the best epoch; or resume.

    Raises:
        VggftError: no such head, unknown layer, a name that is taken, images that are gone, or the parity gate.
    """
    if options.resume:
        return _resume(workspace, options.name, ui, options.memory)
    memory = options.memory or MEMORY
    unfreeze = options.unfreeze or workspace.architecture.unfreeze
    split_point = workspace.architecture.split_point(unfreeze)
    plan = options.plan if options.precision == "auto" else replace(options.plan, precision=options.precision)
    if options.name is not None and not NAME.fullmatch(options.name):
        raise VggftError(f"--name {options.name!r}: expected {NAMES}.")
    with workspace.writing():
        head = starts.choose(workspace, options.start, lambda error: ui.warn(f"left out: {error}"))
        name = _free(workspace, options.name, _readable(unfreeze, plan, head.name if head else SCRATCH))
        cache = workspace.cache()
        _require_memory(workspace, memory, split_point, plan.batch_size)
        _require_images(workspace, cache, split_point)
        where = workspace_flag(workspace.root)
        for other in store.unfinished(workspace.finetune):
            unfinished = other.folder.name
            ui.warn(
                f"run {unfinished} is unfinished ({RESUME} --name {unfinished}{where} continues it, vggft runs --remove "
                f"{unfinished}{where} deletes it); this starts a new run: {name}"
            )
        if options.precision == "auto":
            plan = replace(plan, precision=MIXED_PRECISION if backend.gpus() else FULL_PRECISION)
        head = head or starts.scratch(workspace, cache, plan.seed)
        origin = {
            **provenance.current(workspace),
            **provenance.versions(),
            "features": asdict(workspace.settings.fingerprint),
            "devices": backend.gpus() or [f"{platform.machine()}, {os.cpu_count()} cores"],
        }
        settings = Settings(name, unfreeze, split_point, plan, memory, options.start, origin)
        begun = store.begin(workspace.finetune, settings, head)
        _keep(workspace, name, ui)
        try:
            job = Job.of(workspace, cache, begun)
            prepared = prepare(job, ui)
        except Exception:  # nothing was trained yet that could be resumed
            removal.remove(begun.folder)
            raise
        return {"resumed": False, **train(job, prepared, ui)}


def _resume(workspace: Workspace, name: str | None, ui: Ui, memory: int | None = None) -> dict[str, Any]:
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
        _keep(workspace, settings.name, ui)
        if memory is not None:
            _require_memory(workspace, memory, settings.split_point, settings.plan.batch_size)
        job = Job.of(workspace, workspace.cache(), begun, memory)
        return {"resumed": True, **train(job, prepare(job, ui), ui)}


def _keep(workspace: Workspace, name: str, ui: Ui) -> None:
    """Set what an interruption keeps from now on."""
    ui.keep(
        f"The run {name} is kept, with any finished epochs. Continue with: {RESUME} --name {name}"
        f"{workspace_flag(workspace.root)}"
    )


def _resumable(workspace: Workspace, unfinished: Sequence[Unfinished], ui: Ui) -> Unfinished:
    """Return the last of some unfinished runs that can be resumed, and name those that are left as they are.

    Raises:
        VggftError: none can be; why the last one cannot.
    """
    failure: VggftError | None = None
    for run in reversed(unfinished):
        try:
            _require_same(workspace, run.settings, run.head.classes)
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


def _require_same(workspace: Workspace, settings: Settings, classes: Sequence[str]) -> None:
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


def _free(workspace: Workspace, name: str | None, otherwise: str) -> str:
    """Return the name of a new run: the one that was asked for, or else `otherwise`, with a number where it is taken."""
    if name is None:
        return store.free_name([workspace.finetune, workspace.heads], otherwise)
    if any(run.folder.name == name for run in store.unfinished(workspace.finetune)):
        raise VggftError(
            f"--name {name}: that run is unfinished. Continue it: {RESUME} --name {name}{workspace_flag(workspace.root)}"
        )
    if (workspace.finetune / name).exists():
        raise VggftError(
            f"--name {name}: a run of that name exists, and runs are never overwritten. Choose another name."
        )
    if (workspace.heads / name).exists() or name in [spec.name for spec in DEFAULTS]:
        raise VggftError(f"--name {name}: a head has that name. Choose another name.")
    return name


# Settings that appear in a run's name when they differ from the defaults, and their abbreviations.
_SHORT = {"learning_rate": "lr", "momentum": "m", "schedule": "", "layer_decay": "decay", "l2_sp": "l2sp"}
_SHORT |= {"label_smoothing": "smooth", "class_weight": "", "clip": "clip", "batch_size": "batch", "epochs": "epochs"}
_SHORT |= {"dropout": "dropout", "patience": "patience", "seed": "seed"}


def _readable(unfreeze: str, plan: Plan, start: str) -> str:
    """Return a name of what is tuned, the head it starts from, and the settings that differ from the defaults."""
    default = Plan(optimizer=plan.optimizer)
    parts = [unfreeze, start]
    parts += [plan.optimizer] if plan.optimizer != Plan.optimizer else []
    for name, short in _SHORT.items():
        value = getattr(plan, name)
        if value != getattr(default, name):
            parts.append(value if isinstance(value, str) else f"{short}{value:g}".replace("+", ""))
    return "-".join(parts)


def _require_memory(workspace: Workspace, memory: int, split_point: str | None, batch_size: int) -> None:
    """Check that two batches, or all images of a split where there are fewer, fit into memory."""
    size, dataset = workspace.settings.fingerprint.size, workspace.dataset
    most = max(len(dataset.accepted(split)) for split in ("train", "validate"))
    row = (
        examples.cached_bytes(workspace.architecture, split_point, size)
        if split_point
        else examples.picture_bytes(size)
    )
    examples.require_memory(memory, row, min(batch_size, most))


def _require_images(workspace: Workspace, cache: FeatureCache, split_point: str | None) -> None:
    """Check that what has to be computed can be: files are there (changed ones are found by their hash), weights, disk space."""
    files = files_of(workspace.dataset)
    wanted: list[str] = []
    if split_point is None:
        wanted = [s.digest for split in ("train", "validate") for s in workspace.dataset.accepted(split)]
    else:
        needed = Filling(files, [split_point], workspace.settings.weights_file_path)
        steps = filling.plan(cache, needed, frozenset())
        wanted = [digest for step, digests in steps.items() if step.below is None for digest in digests]
    gone = [digest for digest in wanted if not any(path.is_file() for path in files[digest])]
    if gone:
        what = f"{split_point} is not cached for all images" if split_point else "all layers are trained from pixels"
        raise VggftError(
            f"{what}, and {counted(len(gone), 'image')} missing (the first: {files[gone[0]][0]}). Put them back, or run vggft "
            "featurize to continue without them."
        )
    if split_point is not None:
        filling.require(cache, needed)
