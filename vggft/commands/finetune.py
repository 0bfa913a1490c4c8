"""A head → a tuned network, trained from the cached outputs of the split point; and going on with what was interrupted."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import backend, layers, runner
from featurize.cache import FeatureCache
from featurize.dataset import Dataset
from featurize.errors import VggftError
from featurize.fingerprint import FULL_PRECISION, MIXED_PRECISION
from finetune import examples, store
from finetune import network as networks
from finetune.examples import Examples
from finetune.network import PARITY_IMAGES
from finetune.plan import RATES, Plan
from finetune.store import Run, Settings, Unfinished
from finetune.tensorboard import Log
from finetune.train import State, Watch, train
from heads.specs import BEST, NAME, NAMES
from vggft import features, methods, starts
from vggft.console import Ui
from vggft.features import Filling, decoder, fill, load_weights
from vggft.workspace import Workspace

AUTO = "auto"
MEMORY = 2_000_000_000
RESUME = "vggft finetune --resume"


@dataclass(frozen=True)
class Options:
    """What to tune and how.

    Attributes:
        unfreeze: see `featurize.layers.split_point`.
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
        name = _free(workspace, options, plan)
        cache = workspace.cache()
        _require_images(workspace, cache, split_point)
        for other in store.unfinished(workspace.finetune):
            ui.warn(f"{other.folder.name} is not finished; {RESUME} goes on with it. This is another run: {name}")
        if options.precision == AUTO:
            plan = replace(plan, precision=MIXED_PRECISION if backend.gpus() else FULL_PRECISION)
        head = head or starts.scratch(workspace, cache, plan.seed)
        made = {
            **methods.provenance(workspace),
            **methods.versions(),
            "features": asdict(workspace.settings.fingerprint),
        }
        settings = Settings(name, options.unfreeze, split_point, plan, options.memory, options.start, made)
        begun = store.begin(workspace.finetune, settings, head)
        try:
            return {"resumed": False, **_Session(workspace, cache, begun, ui).run()}
        except VggftError:
            begun.give_up()
            raise


def resume(workspace: Workspace, name: str | None, ui: Ui) -> dict[str, Any]:
    """Go on with a run that was interrupted; with nothing to go on with, report the last run.

    Args:
        name: of the run; None: the one that is unfinished.

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
        begun = found.get(name) if name else next(iter(found.values()), None)
        if begun is None:
            return _nothing_to_resume(workspace, name, ui)
        _require_same(workspace, begun.settings)
        return {"resumed": True, **_Session(workspace, workspace.cache(), begun, ui).run()}


def _nothing_to_resume(workspace: Workspace, name: str | None, ui: Ui) -> dict[str, Any]:
    finished = store.load_all(workspace.finetune)
    if name is not None:
        finished = [run for run in finished if run.name == name]
        if not finished:
            raise VggftError(f"--resume --name {name}: no such run. Begin it: vggft finetune --name {name}")
    ui.print("nothing is unfinished here" if name is None else f"{name} is finished")
    if not finished:
        return {"resumed": False, "name": None}
    last = max(finished, key=lambda run: (workspace.finetune / run.name / store.RUN).stat().st_mtime_ns)
    return {"resumed": False, **_report(workspace, last, ui)}


def _require_same(workspace: Workspace, settings: Settings) -> None:
    """See that a run can go on to what it would have come to undisturbed."""
    made, now = settings.provenance, {**methods.provenance(workspace), **methods.versions()}
    folder = workspace.finetune / settings.name
    for key in methods.provenance(workspace):
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


def _free(workspace: Workspace, options: Options, plan: Plan) -> str:
    """Return the name of a new run."""
    if options.name is None:
        return store.free_name(workspace.finetune, _readable(options, plan, workspace))
    if (workspace.finetune / options.name).exists():
        raise VggftError(
            f"--name {options.name}: there is such a run, and runs are never overwritten. Choose another name."
        )
    if (workspace.heads / options.name).exists():
        raise VggftError(f"--name {options.name}: a head is called so. Choose another name.")
    return options.name


# Settings that are in a run's name where they are not the usual ones, and how they are called there.
_SHORT = {"learning_rate": "lr", "momentum": "m", "schedule": "", "layer_decay": "decay", "l2_sp": "l2sp"}
_SHORT |= {"label_smoothing": "smooth", "class_weight": "", "clip": "clip", "batch_size": "batch", "epochs": "epochs"}
_SHORT |= {"patience": "patience", "seed": "seed"}


def _readable(options: Options, plan: Plan, workspace: Workspace) -> str:
    """Return a name that says what is tuned from where, and which settings are not the usual ones."""
    start = methods.fresh_heads(workspace)[0].name if options.start == BEST else options.start
    parts = [options.unfreeze, start]
    usual = Plan(optimizer=plan.optimizer, learning_rate=RATES[plan.optimizer])
    parts += [plan.optimizer] if plan.optimizer != Plan.optimizer else []
    for name, short in _SHORT.items():
        value = getattr(plan, name)
        if value != getattr(usual, name):
            parts.append(value if isinstance(value, str) else f"{short}{value:g}")
    return "-".join(parts)


def _files(dataset: Dataset) -> Mapping[str, Sequence[Path]]:
    files: dict[str, list[Path]] = defaultdict(list)
    for sample in dataset.accepted():
        files[sample.digest].append(dataset.root / sample.path)
    return files


def _require_images(workspace: Workspace, cache: FeatureCache, split_point: str | None) -> None:
    """See that all pictures are there that have to be decoded; of changed ones the hash will tell."""
    files = _files(workspace.dataset)
    wanted: list[str] = []
    if split_point is None:
        wanted = [s.digest for split in ("train", "validate") for s in workspace.dataset.accepted(split)]
    else:
        steps = features.plan(cache, Filling(files, [split_point]), frozenset())
        wanted = [digest for step, digests in steps.items() if step.below is None for digest in digests]
    gone = [digest for digest in wanted if not any(path.is_file() for path in files[digest])]
    if gone:
        what = f"{split_point} is not cached for all images" if split_point else "all layers are tuned from pixels"
        raise VggftError(
            f"{what}, and {len(gone)} images are gone (the first: {files[gone[0]][0]}). Put them back, or run vggft featurize "
            "to go on without them."
        )


class _Session:
    """Works on one run, from where it is, under the lock."""

    def __init__(self, workspace: Workspace, cache: FeatureCache, begun: Unfinished, ui: Ui) -> None:
        self.workspace, self.cache, self.begun, self.ui = workspace, cache, begun, ui
        self.dataset = workspace.dataset
        self.settings, self.head = begun.settings, begun.head
        self.weights = load_weights(workspace.settings)

    def run(self) -> dict[str, Any]:
        """Train what is left to train, save and report."""
        settings, state, split_point = self.settings, self.begun.state, self.settings.split_point
        if split_point is not None:
            self._fill(split_point)
        source = f"cached {split_point}" if split_point else "pixels"
        tuned = networks.tuned_layers(split_point)
        span = tuned[0] if len(tuned) == 1 else f"{tuned[0]} to {tuned[-1]}"
        self.ui.say(f"{settings.name}: tuning {span} from {source}, starting from {self.head.name}")
        fingerprint = self.cache.fingerprint
        network = networks.assemble(self.weights, fingerprint.preprocess, fingerprint.size, self.head)
        parity = self._parity_gate(network)
        part = networks.above(network, split_point)
        training, validation = self._examples()
        from finetune.program import Program  # Keras is loaded by now

        program = Program(part, settings.plan, training.targets, self.weights.arrays)
        if state is not None:
            self.ui.say(f"going on after epoch {state.epoch} of {settings.plan.epochs}")
        state = self._train(program, (training, validation), state)
        moved = networks.moved_layers(network, self.weights, split_point)
        if state.best_epoch and moved != tuned:
            still = ", ".join(name for name in tuned if name not in moved)
            self.ui.warn(f"did not move: {still}. The steps were too small for float32; try a higher --lr")
        made = Run(
            settings=settings,
            start=self.head.name,
            start_digest=self.head.digest,
            start_provenance=self.head.provenance,
            classes=self.dataset.classes,
            parameters=networks.parameters(network, split_point),
            images={"train": len(training.targets), "validate": len(validation.targets)},
            best_epoch=state.best_epoch,
            ended=str(state.ended(settings.plan)),
            diverged=state.diverged,
            parity=parity,
            seconds=sum(epoch.seconds for epoch in state.history),
            validation=state.validation,
            start_validation=state.start,
            moved=tuple(moved),
            history=state.history,
        )
        self.begun.finish(made, network)
        return _report(self.workspace, made, self.ui)

    def _fill(self, split_point: str) -> None:
        """Compute what the cache lacks of the split point."""
        files = _files(self.dataset)
        done = fill(self.cache, Filling(files, [split_point], self.workspace.settings.weights_file_path), self.ui)
        if done.rejected:
            digest, reason = next(iter(done.rejected.items()))
            raise VggftError(
                f"{split_point} is not cached for all images, and {len(done.rejected)} of them cannot be computed (the first: "
                f"{files[digest][0]}: {reason}). Put the images back, or run vggft featurize to go on without them."
            )

    def _parity_gate(self, network: Any) -> float:
        """Check the network on images spread evenly over the training and validation splits, from their pixels."""
        samples = [s for s in self.dataset.accepted() if s.split in ("train", "validate")]
        files = _files(self.dataset)
        spread = samples[:: max(1, len(samples) // PARITY_IMAGES)]
        candidates = {s.digest: files[s.digest] for s in [*spread, *samples]}
        pictures: list[NDArray[np.uint8]] = []
        digests: list[str] = []
        for digest, picture in runner.decoded(candidates, decoder(self.cache.fingerprint), PARITY_IMAGES):
            if not isinstance(picture, str):
                pictures.append(picture)
                digests.append(digest)
            if len(digests) == PARITY_IMAGES:
                break
        if not digests:
            raise VggftError(
                f"parity gate: none of the {len(samples)} images below {self.dataset.root} can be read as they were. It needs a "
                "few, to check the network from pixels. Put them back, or run vggft featurize with the folder where they are now."
            )
        expected = self.head.predict(self.cache.read(layers.TOP, digests))
        parity = networks.check_parity(network, np.stack(pictures), expected)
        limit = f"limit {networks.PARITY_BOUND:g}"
        self.ui.say(f"parity gate passed: largest difference of a probability {parity:.1e} ({limit})")
        return parity

    def _examples(self) -> tuple[Examples, Examples]:
        """Read, or get ready to stream, the inputs of training and validation."""
        split_point, size = self.settings.split_point, self.cache.fingerprint.size
        splits = [self.dataset.accepted(split) for split in ("train", "validate")]
        sources = []
        for samples in splits:
            digests = [sample.digest for sample in samples]
            if split_point is None:
                decode = decoder(self.cache.fingerprint)
                sources.append(examples.from_pixels(_files(self.dataset), decode, size, digests))
            else:
                sources.append(examples.from_cache(self.cache, split_point, digests))
        rows = examples.share(sources, self.settings.memory, self.settings.plan.batch_size)
        if rows[0].window:
            self.ui.say(f"the inputs do not fit into --memory: they are read a window of {rows[0].window} images ahead")
        targets = [np.asarray(self.dataset.targets(samples), np.int64) for samples in splits]
        return Examples(rows[0], targets[0]), Examples(rows[1], targets[1])

    def _train(self, program: Any, data: tuple[Examples, Examples], state: State | None) -> State:
        plan, begun = self.settings.plan, self.begun
        n, before = len(data[0].targets), state.epoch if state else 0
        log = Log(begun.folder / store.TENSORBOARD, state.history if state else ())
        with self.ui.progress(f"tuning {self.settings.unfreeze}", (plan.epochs - before) * n) as advance:

            def on_step(epoch: int, done: int, loss: float) -> None:
                advance((epoch - 1 - before) * n + done, what=f"epoch {epoch}/{plan.epochs}, loss {loss:.4f}")

            def on_epoch(now: State) -> None:
                begun.keep(now)
                if not now.diverged:
                    log.write(now.history[-1])
                    self.ui.say(_line(now, plan))

            state = train(program, data, plan, state, Watch(on_step, on_epoch))
        log.close()
        return state


def _line(state: State, plan: Plan) -> str:
    row = state.history[-1]
    judged = f"validation log-loss {row.val_log_loss:.4f}, accuracy {row.val_accuracy:.3f}"
    if row.loss is None:
        return f"epoch 0 (the head as it is): {judged}"
    best = " ← best so far" if state.best_epoch == row.epoch else ""
    return f"epoch {row.epoch}/{plan.epochs}: training loss {row.loss:.4f}, {judged}, {row.seconds:.1f} s{best}"


def _report(workspace: Workspace, run: Run, ui: Ui) -> dict[str, Any]:
    """Say what came of a run; return it for programs."""
    folder, plan = workspace.finetune / run.name, run.settings.plan
    v, s, trained = run.validation, run.start_validation, run.history[-1].epoch
    failed = []
    if run.diverged:
        where = "epoch {}, step {}".format(*run.diverged)
        lower = f"--lr {plan.learning_rate / 10:g}"
        failed = [f"the loss is no number at {where}"]
        ui.warn(
            f"{failed[0]}: training stopped there, and epoch {run.best_epoch} is kept. Try a tenth of the rate: {lower}"
        )
    elif run.ended == "patience":
        ui.say(
            f"stopped after epoch {trained}: {plan.patience} epochs without a lower validation log-loss (--patience)"
        )
    ui.print(
        f"{run.name}: best epoch {run.best_epoch} of {trained}; on {v.n} validation images accuracy {v.accuracy:.3f} (head "
        f"{s.accuracy:.3f}), log-loss {v.log_loss:.4f} (head {s.log_loss:.4f})"
    )
    if run.best_epoch == 0:
        ui.print(f"no epoch beat {run.start}: the network is the head on the published weights")
    ui.print(f"network: {folder / store.NETWORK}")
    return {
        "name": run.name,
        "start": run.start,
        "unfreeze": run.settings.unfreeze,
        "split_point": run.split_point,
        "epochs": trained,
        "best_epoch": run.best_epoch,
        "ended": run.ended,
        "failed": failed,
        "parity": run.parity,
        "seconds": run.seconds,
        "network": str(folder / store.NETWORK),
        "validation": v.as_json(),
        "start_validation": s.as_json(),
        "moved": list(run.moved),
    }
