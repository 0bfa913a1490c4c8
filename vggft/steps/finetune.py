"""A head → a tuned network, trained from the cached outputs of the split point; and going on with what was interrupted."""

import os
import platform
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from featurize import backend
from featurize.backbone import layers
from featurize.cache.feature_cache import FeatureCache
from featurize.cache.fingerprint import FULL_PRECISION, MIXED_PRECISION
from featurize.errors import VggftError
from featurize.wording import counted
from finetune import examples, store
from finetune.plan import RATES, Plan
from finetune.store import Settings
from heads.specs import BEST, NAME, NAMES, SCRATCH
from vggft.steps import starts
from vggft.steps.tuning import Tuning, files_of, report
from vggft.ui.console import Ui
from vggft.workspace import filling, provenance
from vggft.workspace.filling import Filling
from vggft.workspace.workspace import Workspace

AUTO = "auto"
MEMORY = 2_000_000_000
RESUME = "vggft finetune --resume"


@dataclass(frozen=True)
class Options:
    """What to tune and how.

    Attributes:
        unfreeze: see `featurize.backbone.layers.split_point`.
        start: "best", "scratch" or the name of a head.
        name: of the run; None: made from the settings.
        precision: of training; "auto": mixed on a GPU, float32 elsewhere. It replaces that of the plan.
        memory: bytes of inputs in memory.
    """

    unfreeze: str = "block5"
    start: str = BEST
    name: str | None = None
    plan: Plan = field(default_factory=Plan)
    precision: str = AUTO
    memory: int = MEMORY


def run(workspace: Workspace, options: Options, ui: Ui) -> dict[str, Any]:
    """Tune the layers from `options.unfreeze` up, together with a head, and keep the network of the best epoch.

    Raises:
        VggftError: no such head, unknown layer, a name that is taken, images that are gone, or the parity gate.
    """
    split_point = layers.split_point(options.unfreeze)
    plan = options.plan if options.precision == AUTO else replace(options.plan, precision=options.precision)
    if options.name is not None and not NAME.fullmatch(options.name):
        raise VggftError(f"--name {options.name!r}: expected {NAMES}.")
    _ = workspace.settings  # before the lock makes a folder: is there anything here?
    with workspace.writing():
        head = starts.choose(workspace, options.start)
        name = _free(workspace, options, plan, head.name if head else SCRATCH)
        cache = workspace.cache()
        _require_memory(workspace, options.memory, split_point, plan.batch_size)
        _require_images(workspace, cache, split_point)
        for other in store.unfinished(workspace.finetune):
            ui.warn(f"{other.folder.name} is not finished; {RESUME} goes on with it. This is another run: {name}")
        if options.precision == AUTO:
            plan = replace(plan, precision=MIXED_PRECISION if backend.gpus() else FULL_PRECISION)
        head = head or starts.scratch(workspace, cache, plan.seed)
        made = {
            **provenance.current(workspace),
            **provenance.versions(),
            "features": asdict(workspace.settings.fingerprint),
            "devices": backend.gpus() or [f"{platform.machine()}, {os.cpu_count()} cores"],
        }
        settings = Settings(name, options.unfreeze, split_point, plan, options.memory, options.start, made)
        begun = store.begin(workspace.finetune, settings, head)
        try:
            session = Tuning(workspace, cache, begun, ui)
            session.prepare()
        except Exception:  # whatever it is, nothing was trained yet that could be gone on with
            begun.give_up()
            raise
        return {"resumed": False, **session.train()}


def resume(workspace: Workspace, name: str | None, ui: Ui, memory: int | None = None) -> dict[str, Any]:
    """Go on with a run that was interrupted; with nothing to go on with, report the last run.

    Args:
        name: of the run; None: the one that is unfinished.
        memory: bytes of inputs in memory, if other than before: it makes no difference to the numbers.

    Raises:
        VggftError: no run of that name, several without a name, or one that was begun with other images or another backend.
    """
    _ = workspace.settings
    with workspace.writing():
        found = {one.folder.name: one for one in store.unfinished(workspace.finetune)}
        if name is None and len(found) > 1:
            raise VggftError(
                f"--resume: {len(found)} runs are unfinished. Say which: --name {' or --name '.join(found)}"
            )
        begun = next(iter(found.values()), None) if name is None else found.get(name)
        if begun is None:
            return _nothing_to_resume(workspace, name, ui)
        settings = begun.settings
        _require_same(workspace, settings)
        if memory is not None:
            _require_memory(workspace, memory, settings.split_point, settings.plan.batch_size)
        session = Tuning(workspace, workspace.cache(), begun, ui, memory)
        session.prepare()
        return {"resumed": True, **session.train()}


def _nothing_to_resume(workspace: Workspace, name: str | None, ui: Ui) -> dict[str, Any]:
    finished = store.load_all(workspace.finetune, on_damage=lambda error: ui.warn(str(error)))
    if name is not None:
        finished = [run for run in finished if run.name == name]
        if not finished:
            raise VggftError(f"--resume --name {name}: no such run. Begin it: vggft finetune --name {name}")
    ui.print("nothing is unfinished here" if name is None else f"{name} is finished")
    if not finished:
        return {"resumed": False, "name": None}
    last = max(finished, key=lambda run: (workspace.finetune / run.name / store.RUN).stat().st_mtime_ns)
    return {"resumed": False, **report(workspace, last, ui), "failed": []}  # its failure was told when it happened


def _require_same(workspace: Workspace, settings: Settings) -> None:
    """See that a run can go on to what it would have come to undisturbed."""
    made, now = settings.provenance, {**provenance.current(workspace), **provenance.versions()}
    folder = workspace.finetune / settings.name
    for key in provenance.current(workspace):
        if made[key] != now[key]:
            raise VggftError(
                f"{settings.name}: begun with another {key} ({made[key][:12]}…, now {now[key][:12]}…): images, labels, splits or "
                f"features have changed since. Put them back, or delete {folder} and tune anew: vggft finetune"
            )
    if made["backend"] != now["backend"]:
        raise VggftError(
            f"{settings.name}: begun on {made['backend']}, and this is {now['backend']}, which would come to other weights. Set "
            f"KERAS_BACKEND={made['backend']}, or delete {folder} and tune anew."
        )


def _free(workspace: Workspace, options: Options, plan: Plan, start: str) -> str:
    """Return the name of a new run."""
    name = options.name
    if name is None:
        return store.free_name([workspace.finetune, workspace.heads], _readable(options.unfreeze, plan, start))
    if any(one.folder.name == name for one in store.unfinished(workspace.finetune)):
        raise VggftError(f"--name {name}: that run is not finished. Go on with it: {RESUME} --name {name}")
    if (workspace.finetune / name).exists():
        raise VggftError(f"--name {name}: there is such a run, and runs are never overwritten. Choose another name.")
    if (workspace.heads / name).exists():
        raise VggftError(f"--name {name}: a head is called so. Choose another name.")
    return name


# Settings that are in a run's name where they are not the usual ones, and how they are called there.
_SHORT = {"learning_rate": "lr", "momentum": "m", "schedule": "", "layer_decay": "decay", "l2_sp": "l2sp"}
_SHORT |= {"label_smoothing": "smooth", "class_weight": "", "clip": "clip", "batch_size": "batch", "epochs": "epochs"}
_SHORT |= {"patience": "patience", "seed": "seed"}


def _readable(unfreeze: str, plan: Plan, start: str) -> str:
    """Return a name that says what is tuned from where, and which settings are not the usual ones."""
    usual = Plan(optimizer=plan.optimizer, learning_rate=RATES[plan.optimizer])
    parts = [unfreeze, start]
    parts += [plan.optimizer] if plan.optimizer != Plan.optimizer else []
    for name, short in _SHORT.items():
        value = getattr(plan, name)
        if value != getattr(usual, name):
            parts.append(value if isinstance(value, str) else f"{short}{value:g}".replace("+", ""))
    return "-".join(parts)


def _require_memory(workspace: Workspace, memory: int, split_point: str | None, batch_size: int) -> None:
    """See that two batches, or all images of a split where they are fewer, fit into memory."""
    if isinstance(memory, bool) or not isinstance(memory, int):
        raise VggftError(f"--memory {memory}: expected a whole number of bytes; on the command line also such as 2GB.")
    size, dataset = workspace.settings.fingerprint.size, workspace.dataset
    most = max(len(dataset.accepted(split)) for split in ("train", "validate"))
    row = examples.cached_bytes(split_point, size) if split_point else examples.picture_bytes(size)
    examples.require_memory(memory, row, min(batch_size, most))


def _require_images(workspace: Workspace, cache: FeatureCache, split_point: str | None) -> None:
    """See that all is there that has to be computed: pictures (of changed ones the hash will tell), weights, and room."""
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
        what = f"{split_point} is not cached for all images" if split_point else "all layers are tuned from pixels"
        raise VggftError(
            f"{what}, and {counted(len(gone), 'image')} gone (the first: {files[gone[0]][0]}). Put them back, or run vggft "
            "featurize to go on without them."
        )
    if split_point is not None:
        filling.require(cache, needed)
