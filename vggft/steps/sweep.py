"""Many fine-tuning runs, one for each combination of settings, ranked.

Nothing but its runs is kept of a sweep: the same command skips those that are finished, and resumes the one that was interrupted.
"""

import itertools
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from featurize.backbone.architecture import Architecture
from featurize.cluster.cluster import Cluster
from featurize.disk import durable
from featurize.errors import VggftError
from featurize.process import interrupts
from featurize.wording import counted
from finetune import store
from finetune.plan import Plan
from finetune.store import Run, Settings
from heads.head import Head
from heads.search import merit
from vggft.comparison.plots import curves
from vggft.prediction import models
from vggft.steps import new_run, resumption
from vggft.steps.new_run import Training
from vggft.steps.options import FinetuneOptions
from vggft.steps.run_report import as_json
from vggft.steps.training_inputs import Inputs, compute_inputs
from vggft.ui.collecting import Collecting
from vggft.ui.console import Ui
from vggft.ui.table import interval_text
from vggft.workspace import provenance
from vggft.workspace.filling import Means
from vggft.workspace.workspace import Workspace

Decided = tuple[Training, FinetuneOptions]
Attempt = dict[str, Any] | str  # a run as in `new_run.begin`, or why there is none

PICTURE = "sweep.png"  # of the last sweep, in the report folder


def run(workspace: Workspace, combinations: Sequence[FinetuneOptions], ui: Ui, on: str | None = None) -> dict[str, Any]:
    """Train a run for each combination that has none yet, and rank them all. One that fails does not stop the others.

    Args:
        on: the address of a cluster whose workers train, a run a task; None: this process trains one after the other.

    Raises:
        VggftError: an option does not fit the workspace (then nothing was changed), or no run could be trained.
    """
    for options in combinations:
        new_run.check(workspace, options)
    with workspace.writing():
        decided = _decide(workspace, combinations, ui)
        trainings = [training for training, _ in decided]
        picture = workspace.report_folder() / PICTURE
        names = _finished(workspace, trainings, ui)
        kept = [name for name in names if name]
        ui.keep("Finished runs and epochs are kept. Run the same command to continue.")
        todo = [i for i, name in enumerate(names) if not name]
        todo.sort(key=lambda i: Inputs.needed_by(trainings[i]))  # runs with the same inputs follow one another
        wanted, failed = {i: decided[i] for i in todo}, []
        for i, found in _attempts_on(on, workspace, wanted, ui) if on and wanted else _attempts(workspace, wanted, ui):
            if isinstance(found, str):
                failed.append({"name": trainings[i].name, "reason": found})
                ui.warn(f"{trainings[i].name}: {found}")
            else:
                names[i] = found["name"]
                failed += [{"name": found["name"], "reason": reason} for reason in found["failed"]]
        if not any(names):
            raise VggftError(f"--sweep: no run could be trained. {failed[0]['name']}: {failed[0]['reason']}")
        here = {entry.name: entry for entry in models.load_runs(workspace, on_damage=lambda error: None)}
        gone = [name for name in names if name and name not in here]
        if gone:
            raise VggftError(
                f"{workspace.finetune / gone[0]}: a worker has trained it, and it is not there. All machines must see the same "
                "folder under this path, such as on a network file system."
            )
        runs = [here[name] for name in names if name]
        plot = curves.draw_runs(_ranked(runs))
        for name, content in plot.files.items():
            durable.write_bytes(picture.parent / name, content)
        ui.print(f"curves: {picture}")
        return {**_report(workspace, runs, kept, failed, ui), "curves": str(picture)}


def _decide(workspace: Workspace, combinations: Sequence[FinetuneOptions], ui: Ui) -> list[Decided]:
    """Return what the combinations mean here; those that mean the same, such as best and the name of that head, only once."""
    starts: dict[Any, Head] = {}
    decided: dict[Any, Decided] = {}
    for options in combinations:
        start = (options.start, options.recipe, options.plan.seed)
        training = new_run.decide(workspace, options, ui, starts.get(start))
        starts[start] = training.head
        decided.setdefault(training.key, (training, options))
    return list(decided.values())


def _is(settings: Settings, head_digest: str, training: Training) -> bool:
    """Return whether a run with these settings, from this head, is the training."""
    return (settings.unfreeze, settings.plan, head_digest) == training.key


def _finished(workspace: Workspace, trainings: Sequence[Training], ui: Ui) -> list[str]:
    """Return the name of the finished, fresh run of each training; empty where there is none."""
    present = provenance.current(workspace)
    runs = models.load_runs(workspace, on_damage=lambda error: ui.warn(f"left out: {error}"))
    fresh = [entry for entry in runs if provenance.matches(present, entry.settings.provenance)]
    return [
        next((entry.name for entry in fresh if _is(entry.settings, entry.start_digest, training)), "")
        for training in trainings
    ]


def _attempts(workspace: Workspace, wanted: Mapping[int, Decided], ui: Ui) -> Iterator[tuple[int, Attempt]]:
    """Train one after the other; yield each number and what came of it."""
    inputs = Inputs()
    for count, (i, (training, _)) in enumerate(wanted.items(), start=1):
        ui.say(f"run {count} of {len(wanted)}: {training.name}")
        yield i, _attempt(workspace, new_run.numbered(workspace, training), inputs, ui)


def _attempt(workspace: Workspace, training: Training, inputs: Inputs, ui: Ui) -> Attempt:
    try:
        return _train(workspace, training, inputs, ui)
    except Exception as error:
        if interrupts.heard():  # Ctrl-C also ends child processes, which causes an error here
            raise
        known = isinstance(error, (VggftError, OSError))
        return str(error) if known else f"unexpected: {type(error).__name__}: {error}"


def _attempts_on(
    address: str, workspace: Workspace, wanted: Mapping[int, Decided], ui: Ui
) -> Iterator[tuple[int, Attempt]]:
    """Train on the workers of a cluster, as they become free; yield each number and what came of it.

    Workers read the workspace, which all machines share, and write their runs' folders; this process holds the lock.
    """
    inputs = {(t.split_point, t.plan.views) for t, _ in wanted.values() if t.split_point is not None}
    root = workspace.root.absolute()
    call: Callable[[_Task], tuple[Sequence[str], Attempt]] = partial(_attempt_there, workspace.architecture, root)
    with Cluster(address, ui.say) as cluster:
        for split_point, number in sorted(inputs):
            compute_inputs(workspace, workspace.cache(), split_point, number, ui, Means(on=cluster))
        with ui.progress("training runs", len(wanted), "runs") as advance:
            for count, task in enumerate(cluster.run(call, _tasks(workspace, wanted)), start=1):
                dead = (), "every worker that ran it died, even with nothing else running, probably out of memory"
                warnings, found = task.result or dead
                for warning in warnings:
                    ui.warn(warning)
                advance(count)
                ui.say(f"run {count} of {len(wanted)}: {task.item.name}")
                yield task.item.number, found


@dataclass(frozen=True)
class _Task:
    """A run for a worker, which decides again what the options mean: `key` is what they have to mean."""

    number: int
    name: str
    options: FinetuneOptions
    key: tuple[str, Plan, str]


def _tasks(workspace: Workspace, wanted: Mapping[int, Decided]) -> Iterator[_Task]:
    """Yield the tasks, with names that are free and that no two of them share: they begin at the same time."""
    given: set[str] = set()
    for i, (training, options) in wanted.items():
        numbered = (f"{training.name}-{number}" for number in itertools.count(2))
        name = next(
            name for name in itertools.chain([training.name], numbered) if name not in given and _free(workspace, name)
        )
        given.add(name)
        yield _Task(i, name, replace(options, precision=training.plan.precision), training.key)


def _free(workspace: Workspace, name: str) -> bool:
    return store.free_name([workspace.finetune, workspace.heads], name) == name


def _attempt_there(architecture: Architecture, root: Path, task: _Task) -> tuple[Sequence[str], Attempt]:
    """Train on a worker; return warnings, and what came of it. A run that was begun there before a worker died is resumed."""
    ui, workspace = Collecting(), Workspace(root, architecture)
    training = new_run.decide(workspace, task.options, ui)
    if training.key != task.key:
        where = f"{socket.gethostname()} sees other heads or features in {root}"
        return ui.warnings, f"{where}. All machines must see the same folder under this path."
    return ui.warnings, _attempt(workspace, replace(training, name=task.name), Inputs(), ui)


def _train(workspace: Workspace, training: Training, inputs: Inputs, ui: Ui) -> dict[str, Any]:
    """Resume the run of a training, or begin it."""
    for begun in store.unfinished(workspace.finetune):
        try:
            settings, head = begun.settings, begun.head
            if not _is(settings, head.digest, training):
                continue
            resumption.require_same(workspace, settings, head.classes)
        except VggftError as error:
            ui.warn(str(error))
            continue
        return resumption.train(workspace, begun, inputs, ui, training.memory)
    return new_run.begin(workspace, training, inputs, ui)


def _ranked(runs: Sequence[Run]) -> list[Run]:
    return sorted(runs, key=lambda entry: merit(entry.validation, entry.parameters))


def _report(
    workspace: Workspace, runs: Sequence[Run], kept: Sequence[str], failed: Sequence[dict[str, str]], ui: Ui
) -> dict[str, Any]:
    """Print the runs, best first, and return them for --json."""
    ranked = _ranked(runs)
    rows = []
    for entry in ranked:
        v = entry.validation
        numbers = [f"{v.log_loss:.4f}", f"{v.accuracy:.3f}", interval_text(v)]
        epochs = f"{entry.best_epoch} of {entry.history[-1].epoch}"
        rows.append([entry.name + ("  ← best" if entry is ranked[0] else ""), *numbers, epochs, f"{entry.seconds:.1f}"])
    ui.table(
        f"{counted(len(ranked), 'run')} on {ranked[0].validation.n} validation images, lowest log-loss first",
        ["run", "log-loss", "accuracy", "95% interval", "epoch kept", "seconds"],
        rows,
    )
    if kept:
        ui.say(f"kept: {counted(len(kept), 'run')} trained with these settings before")
    return {
        "sweep": [as_json(workspace, entry) for entry in ranked],
        "best": ranked[0].name,
        "kept": list(kept),
        "failed": list(failed),
    }
