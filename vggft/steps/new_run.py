"""A new fine-tuning run: what it needs, its name and settings; beginning and training it."""

import platform
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from featurize import backend
from featurize.cache.feature_cache import FeatureCache
from featurize.data.shares import Shares
from featurize.errors import VggftError
from featurize.options.choices import FULL_PRECISION, MIXED_PRECISION
from featurize.process import cores
from featurize.wording import counted
from finetune import examples, removal, store
from finetune.plan import SCRATCH, Plan
from finetune.recipes import RECIPES, RecipeName
from finetune.store import Settings
from heads.head import Head
from heads.specs import DEFAULTS, NAME, NAMES, UNTRAINED
from vggft.steps import starts
from vggft.steps.job import Job
from vggft.steps.options import MEMORY, FinetuneOptions
from vggft.steps.training_inputs import Inputs, files_of, require_maps
from vggft.steps.tuning import prepare, train
from vggft.ui.console import Ui
from vggft.workspace import filling, provenance, views
from vggft.workspace.filling import Filling
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

RESUME = "vggft finetune --resume"


@dataclass(frozen=True)
class Training:
    """What is to be trained, all of it decided.

    Attributes:
        name: that of its run.
        head: the initial head.
        start: the value of `--from` that chose the head.
        recipe: the value of `--recipe`.
        split_point: the layer below the tuned ones; None for pixels.
        memory: bytes of inputs in memory.
    """

    name: str
    head: Head
    start: str
    unfreeze: str
    split_point: str | None
    plan: Plan
    memory: int
    recipe: RecipeName | None = None

    @property
    def key(self) -> tuple[str, Plan, str]:
        """What decides the result."""
        return self.unfreeze, self.plan, self.head.digest


def run(workspace: Workspace, options: FinetuneOptions, ui: Ui) -> dict[str, Any]:
    """Train one new run.

    Raises:
        VggftError: as `vggft.steps.finetune.run`.
    """
    check(workspace, options)
    with workspace.writing():
        training = numbered(workspace, decide(workspace, options, ui))
        where = workspace_flag(workspace.root)
        for other in store.unfinished(workspace.finetune):
            unfinished = other.folder.name
            ui.warn(
                f"run {unfinished} is unfinished ({RESUME} --name {unfinished}{where} continues it, vggft runs --remove "
                f"{unfinished}{where} deletes it); this starts a new run: {training.name}"
            )
        return begin(workspace, training, Inputs(), ui, lambda: keep(workspace, training.name, ui))


def check(workspace: Workspace, options: FinetuneOptions) -> None:
    """Check what needs no file.

    Raises:
        VggftError: an unknown layer, a name that no folder can have, or features or layers other than the recipe's.
    """
    if options.recipe is not None:
        _require_preprocess(workspace, options.recipe)
    workspace.architecture.split_point(_unfrozen(workspace, options))
    if options.name is not None and not NAME.fullmatch(options.name):
        raise VggftError(f"--name {options.name!r}: expected {NAMES}.")


def decide(workspace: Workspace, options: FinetuneOptions, ui: Ui, head: Head | None = None) -> Training:
    """Return what options mean in this workspace, after checking that it can be trained. The lock must be held.

    Args:
        head: the one that `options.start` names, if it is known already.

    Raises:
        VggftError: no such head, a name that is taken, too little memory, or images that are gone.
    """
    memory = options.memory or MEMORY
    unfreeze = _unfrozen(workspace, options)
    split_point = workspace.architecture.split_point(unfreeze)
    plan = replace(options.plan, views=views.wanted(workspace, options.views))
    if options.precision != "auto":
        plan = replace(plan, precision=options.precision)
    head = head or starts.choose(workspace, options.start, lambda error: ui.warn(f"left out: {error}"))
    if options.name is not None:
        _require_free(workspace, options.name)
    name = options.name or _readable(unfreeze, plan, head.name if head else SCRATCH, options.recipe)
    cache = workspace.cache()
    require_maps(workspace)
    require_memory(workspace, memory, split_point, plan.batch_size)
    _require_images(workspace, cache, split_point)
    if options.precision == "auto":
        plan = replace(plan, precision=MIXED_PRECISION if backend.gpus() else FULL_PRECISION)
    spec = RECIPES[options.recipe].head if options.recipe else UNTRAINED
    head = head or starts.scratch(workspace, cache, plan.seed, spec)
    return Training(name, head, options.start, unfreeze, split_point, plan, memory, options.recipe)


def numbered(workspace: Workspace, training: Training) -> Training:
    """Return the training with a number at the end of its name where that is taken."""
    return replace(training, name=store.free_name([workspace.finetune, workspace.heads], training.name))


def begin(
    workspace: Workspace, training: Training, inputs: Inputs, ui: Ui, on_begun: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """Begin and train a run. The lock must be held.

    Args:
        inputs: those of an earlier run, if it had the same.
        on_begun: called as soon as the run is on disk.

    Raises:
        VggftError: required images are missing, or the parity gate fails; then there is no such run.
    """
    origin = {
        **provenance.current(workspace),
        **provenance.versions(),
        "features": asdict(workspace.settings.fingerprint),
        "devices": backend.gpus() or [f"{platform.machine()}, {cores.usable()} cores"],
    }
    t = training
    settings = Settings(t.name, t.unfreeze, t.split_point, t.plan, t.memory, t.start, origin, t.recipe)
    begun = store.begin(workspace.finetune, settings, t.head)
    on_begun()
    try:
        job = Job.of(workspace, workspace.cache(), begun)
        prepared = prepare(job, ui, inputs)
    except Exception:  # nothing was trained yet that could be resumed
        removal.remove(begun.folder)
        raise
    return {"resumed": False, **train(job, prepared, ui)}


def keep(workspace: Workspace, name: str, ui: Ui) -> None:
    """Set what an interruption keeps from now on."""
    ui.keep(
        f"The run {name} is kept, with any finished epochs. Continue with: {RESUME} --name {name}"
        f"{workspace_flag(workspace.root)}"
    )


def _unfrozen(workspace: Workspace, options: FinetuneOptions) -> str:
    """Return the block or layer from which on the network is tuned."""
    architecture = workspace.architecture
    if options.recipe is None:
        return options.unfreeze or architecture.unfreeze
    layer = RECIPES[options.recipe].unfreeze(architecture)
    if options.unfreeze not in (None, layer):
        raise VggftError(
            f"--recipe {options.recipe} with --unfreeze {options.unfreeze}: the recipe tunes {layer} and all layers above it. "
            "Leave out one of them."
        )
    return layer


def _require_preprocess(workspace: Workspace, recipe: RecipeName) -> None:
    """Check that the features here are of pixels that were preprocessed as in a recipe.

    All models of a workspace read the same features, so that `compare` can compare them: other features need another workspace.
    """
    settings, wanted = workspace.settings, RECIPES[recipe].preprocess
    here = settings.fingerprint.preprocess
    if here == wanted:
        return
    beside = Path(f"{workspace.root}-{recipe}")
    where, shares, usual = workspace_flag(beside), settings.shares, Shares()
    options = {
        "labels": (settings.labels, None),
        "layout": (settings.layout, "auto"),
        "preprocess": (wanted, None),
        "validation": (shares.validate, usual.validate),
        "test": (shares.test, usual.test),
        "seed": (shares.seed, usual.seed),
        "group-by": (settings.group_by, None),
        "weights": (settings.weights_file, None),
    }
    words = ["vggft", "featurize", settings.data]
    for name, (value, default) in options.items():
        words += [f"--{name}", str(value)] if value != default else []
    commands = [
        shlex.join(["mkdir", str(beside)]),
        shlex.join(["cp", str(workspace.splits), f"{beside}/"]),
        f"{shlex.join(words)}{where}",
        f"vggft finetune --recipe {recipe}{where}",
    ]
    raise VggftError(
        f"--recipe {recipe}: the features in {workspace.root} are those of {here} pixels, expected {wanted}. Compute these in a "
        f"workspace beside it, with the same splits: {' && '.join(commands)}"
    )


def _require_free(workspace: Workspace, name: str) -> None:
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


# Settings that appear in a run's name when they differ from the defaults, and their abbreviations.
_SHORT = {"learning_rate": "lr", "momentum": "m", "schedule": "", "layer_decay": "decay", "l2_sp": "l2sp"}
_SHORT |= {"label_smoothing": "smooth", "class_weight": "", "clip": "clip", "batch_size": "batch", "epochs": "epochs"}
_SHORT |= {"dropout": "dropout", "patience": "patience", "seed": "seed", "views": "views"}


def _readable(unfreeze: str, plan: Plan, start: str, recipe: RecipeName | None) -> str:
    """Return a name of recipe or layer and head, and the settings that differ from the recipe's or from the defaults."""
    usual = RECIPES[recipe].plan if recipe else Plan(optimizer=plan.optimizer)
    parts: list[str] = [recipe] if recipe else [unfreeze, start]
    parts += [plan.optimizer] if plan.optimizer != Plan.optimizer else []
    for name, short in _SHORT.items():
        value = getattr(plan, name)
        if value != getattr(usual, name):
            parts.append(value if isinstance(value, str) else f"{short}{value:g}".replace("+", ""))
    return "-".join(parts)


def require_memory(workspace: Workspace, memory: int, split_point: str | None, batch_size: int) -> None:
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
