"""Fine-tuning runs: which there are, what they take on the disk, and removing them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from featurize.cache.upkeep import occupied
from featurize.errors import VggftError
from featurize.wording import counted, size
from finetune import removal, store
from finetune.store import Run, Unfinished
from vggft.prediction import models
from vggft.steps.confirmation import confirmed
from vggft.steps.options import RunsOptions
from vggft.ui.console import Ui
from vggft.workspace import provenance
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace


@dataclass(frozen=True)
class Listed:
    """A run as it is listed.

    Attributes:
        state: a damaged run cannot be read; a copy has the name of another run.
        stale: made from an earlier state of the data; None where it is not known.
        epochs: trained so far, without epoch 0.
        of: maximum number of epochs.
        log_loss: of the epoch that is kept, on validation; None before the first checkpoint.
        bytes: on the disk.
    """

    name: str
    state: Literal["finished", "unfinished", "damaged", "copy"]
    stale: bool | None
    start: str | None
    epochs: int | None
    of: int | None
    log_loss: float | None
    bytes: int


def run(workspace: Workspace, options: RunsOptions, ui: Ui) -> dict[str, Any]:
    """List the runs, or remove some.

    Raises:
        VggftError: no such run, `yes` without a run, a folder that is not provably one, or not interactive and no `yes`.
    """
    _ = workspace.settings
    where = workspace_flag(workspace.root)
    if not options.remove:
        if options.yes:
            raise VggftError(f"--yes: no run was named. Expected: vggft runs --remove NAME --yes{where}")
        listed = _listed(workspace, ui)
        _show(workspace, listed, ui)
        return {
            "runs": [asdict(entry) for entry in listed],
            "bytes": sum(entry.bytes for entry in listed),
            "removed": [],
        }
    with workspace.writing():
        return _remove(workspace, options, ui)


def _listed(workspace: Workspace, ui: Ui) -> list[Listed]:
    finished = {entry.name: entry for entry in models.load_runs(workspace, lambda error: ui.warn(str(error)))}
    unfinished = {entry.folder.name: entry for entry in store.unfinished(workspace.finetune)}
    listed = []
    for folder in sorted(workspace.finetune.glob("[!.]*/")):
        if folder.name in finished:
            listed.append(_finished(workspace, finished[folder.name]))
        elif folder.name in unfinished:
            listed.append(_unfinished(workspace, unfinished[folder.name], ui))
        elif any((folder / name).exists() for name in (store.RUN, store.UNFINISHED, store.NETWORK)):
            listed.append(_unreadable(folder))
    return listed


def _finished(workspace: Workspace, entry: Run) -> Listed:
    stale = not provenance.matches(provenance.current(workspace), entry.settings.provenance)
    taken = occupied(workspace.finetune / entry.name)
    epochs, plan = entry.history[-1].epoch if entry.history else None, entry.settings.plan
    return Listed(entry.name, "finished", stale, entry.start, epochs, plan.epochs, entry.validation.log_loss, taken)


def _unfinished(workspace: Workspace, entry: Unfinished, ui: Ui) -> Listed:
    try:
        settings, head, state = entry.settings, entry.head, entry.state
    except VggftError as error:
        ui.warn(str(error))
        return _unreadable(entry.folder)
    stale = not provenance.matches(provenance.current(workspace), settings.provenance)
    if entry.lost:
        ui.warn(entry.lost)
    log_loss = min(row.val_log_loss for row in state.history) if state else None
    taken = occupied(entry.folder)
    epochs = state.epoch if state else 0
    return Listed(entry.folder.name, "unfinished", stale, head.name, epochs, settings.plan.epochs, log_loss, taken)


def _unreadable(folder: Path) -> Listed:
    names = removal.recorded_names(folder)
    state: Literal["damaged", "copy"] = "copy" if names and folder.name not in names else "damaged"
    return Listed(folder.name, state, None, None, None, None, None, occupied(folder))


def _show(workspace: Workspace, listed: Sequence[Listed], ui: Ui) -> None:
    """Print the runs, and the commands that continue or delete one."""
    where = workspace_flag(workspace.root)
    if not listed:
        ui.print(f"no runs here yet: vggft finetune{where} starts one")
        return
    rows = []
    for entry in listed:
        state = f"{entry.state}, stale" if entry.stale else entry.state
        epochs = "–" if entry.epochs is None else f"{entry.epochs} of {entry.of}"
        log_loss = "–" if entry.log_loss is None else f"{entry.log_loss:.4f}"
        rows.append((entry.name, size(entry.bytes), state, epochs, log_loss, entry.start or "–"))
    title = f"{counted(len(listed), 'run')}, {size(sum(entry.bytes for entry in listed))}"
    ui.table(title, ("run", "on disk", "state", "epochs", "log-loss", "from"), rows)
    resumable = [entry.name for entry in listed if entry.state == "unfinished" and not entry.stale]
    if resumable:
        ui.print(f"To continue a run: vggft finetune --resume --name {resumable[0]}{where}")
    useless = [entry.name for entry in listed if entry.state in ("damaged", "copy") or entry.stale]
    removable = [name for name in (*useless, *resumable) if removal.is_run(workspace.finetune / name)]
    if removable:
        ui.print(f"To delete one: vggft runs --remove {removable[0]}{where}")


def _remove(workspace: Workspace, options: RunsOptions, ui: Ui) -> dict[str, Any]:
    listed = {entry.name: entry for entry in _listed(workspace, ui)}
    names = list(dict.fromkeys(options.remove))
    for name in names:
        if name not in listed:
            known = ", ".join(listed) or "none"
            raise VggftError(f"--remove {name}: no such run. Expected one of the runs here: {known}.")
    taken = sum(listed[name].bytes for name in names)
    for name in names:
        ui.say(f"{workspace.finetune / name}: {size(listed[name].bytes)}, {listed[name].state}")
    removed: list[str] = []
    if options.yes or confirmed("vggft runs --remove", "Delete these?", ui):
        for name in names:
            for path in removal.remove(workspace.finetune / name):
                ui.warn(f"not deleted, because vggft may not have written it: {path}")
            removed.append(name)
        left = sum(occupied(workspace.finetune / name) for name in names)
        ui.print(f"removed {counted(len(removed), 'run')}; {size(taken - left)} freed")
        taken -= left
    else:
        ui.print("Nothing was removed.")
        taken = 0
    remaining = _listed(workspace, ui)
    return {
        "runs": [asdict(entry) for entry in remaining],
        "bytes": sum(entry.bytes for entry in remaining),
        "removed": removed,
        "bytes_freed": taken,
    }
