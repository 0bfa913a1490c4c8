"""One fine-tuning run, new or resumed: network, parity gate, training, report.

`prepare` returns what `train` needs, so nothing is trained that has not passed the parity gate.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import finetune.network
import finetune.train
from featurize import backend, runner
from featurize.backbone.weights import Weights
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Dataset, Sample
from featurize.errors import VggftError
from featurize.wording import counted
from finetune import examples, stages, store
from finetune.examples import Examples, Rows
from finetune.network import PARITY_IMAGES
from finetune.picture import draw
from finetune.plan import Plan
from finetune.store import Run, Settings, Unfinished
from finetune.tensorboard import Log
from finetune.train import Callbacks, State
from heads.head import Head
from heads.predictions import Predictions
from vggft.comparison.plots import curves
from vggft.ui.console import Ui
from vggft.workspace import filling, maps, views
from vggft.workspace.backbone import decoder, load_weights
from vggft.workspace.filling import Filling, Means, fill
from vggft.workspace.folder import workspace_flag
from vggft.workspace.workspace import Workspace

# Of the GPU's memory, for inputs; weights, activations and their gradients need the rest.
_INPUTS_ON_GPU = 1 / 4
_THIS_PROCESS = Means()


def files_of(dataset: Dataset) -> Mapping[str, Sequence[Path]]:
    """Return digest → files, of all accepted images."""
    return filling.files_of(dataset.root, dataset.accepted())


def require_maps(workspace: Workspace) -> None:
    """Check that the outputs of the last layer are cached, or will be.

    Raises:
        VggftError: only averages and maxima are; the message says how to compute them.
    """
    if maps.lacking(workspace):
        needed = " and ".join(workspace.architecture.cached)
        raise VggftError(
            f"{workspace.root}: fine-tuning needs {needed}, but {maps.reason(workspace)}. Compute them from the images: "
            f"{maps.command(workspace)}"
        )


@dataclass(frozen=True)
class Job:
    """An unfinished run and its training data. The workspace's lock must be held.

    Attributes:
        begun: the run on disk.
        settings: its settings, with the memory for inputs of this command.
        head: the initial head.
    """

    workspace: Workspace
    cache: FeatureCache
    begun: Unfinished
    settings: Settings
    head: Head
    weights: Weights

    @classmethod
    def of(cls, workspace: Workspace, cache: FeatureCache, begun: Unfinished, memory: int | None = None) -> "Job":
        """Read the settings, head and weights of a run; `memory`: bytes for inputs, None for what its settings say."""
        settings = begun.settings if memory is None else replace(begun.settings, memory=memory)
        weights = load_weights(cache.architecture, cache.fingerprint, workspace.settings.weights_file_path)
        return cls(workspace, cache, begun, settings, begun.head, weights)

    @property
    def dataset(self) -> Dataset:
        """The images."""
        return self.workspace.dataset


class Inputs:
    """The inputs that were read last: the next run uses them if it needs the same."""

    def __init__(self) -> None:
        self._key: Any = None
        self._read: tuple[Examples, Examples] | None = None

    @staticmethod
    def needed_by(run: Any) -> tuple[str, int, int, int]:
        """Return what decides the inputs of a run, from anything with `split_point`, `plan` and `memory`."""
        return run.split_point or "", run.plan.views, run.plan.batch_size, run.memory

    def of(self, job: Job, ui: Ui) -> tuple[Examples, Examples]:
        """Return the inputs of training and validation of a run; those of the run before are dropped if they differ."""
        key = self.needed_by(job.settings)
        if self._read is None or key != self._key:
            self._read = None
            self._key, self._read = key, _examples(job, ui)
        return self._read


@dataclass(frozen=True)
class Prepared:
    """A run that is ready to train: the network has passed the parity gate, and the inputs are read or can be streamed.

    Attributes:
        head: the initial head, with the dropout of the run.
    """

    network: Any
    head: Head
    parity: float
    training: Examples
    validation: Examples


def prepare(job: Job, ui: Ui, inputs: Inputs) -> Prepared:
    """Compute what the cache lacks, assemble the network, check it, and read the inputs.

    Raises:
        VggftError: required images are missing, or the parity gate fails.
    """
    settings, split_point = job.settings, job.settings.split_point
    require_maps(job.workspace)
    if split_point is not None:
        compute_inputs(job.workspace, job.cache, split_point, settings.plan.views, ui)
    tuned = finetune.network.tuned_layers(job.weights.architecture, split_point)
    span = tuned[0] if len(tuned) == 1 else f"{tuned[0]} to {tuned[-1]}"
    source = f"cached {split_point}" if split_point else "pixels"
    ui.say(f"{settings.name}: tuning {span} from {source}, starting from {job.head.name}")
    fingerprint, dropout = job.cache.fingerprint, settings.plan.dropout
    head = job.head if dropout is None else replace(job.head, dropout=dropout)
    network = finetune.network.assemble(job.weights, fingerprint.preprocess, fingerprint.size, head)
    parity = _parity_gate(job, network, ui)
    training, validation = inputs.of(job, ui)
    return Prepared(network, head, parity, training, validation)


def train(job: Job, prepared: Prepared, ui: Ui) -> dict[str, Any]:
    """Train the remaining epochs, save the network, and report."""
    from finetune.program import Program  # Keras is loaded by now

    plan, split_point, network = job.settings.plan, job.settings.split_point, prepared.network
    part = finetune.network.above(network, job.weights.architecture, split_point)
    inputs = [prepared.training.rows, prepared.validation.rows]
    in_memory = all(rows.window is None for rows in inputs)
    if in_memory and sum(rows.bytes for rows in inputs) <= _INPUTS_ON_GPU * backend.gpu_memory():
        for rows in inputs:
            rows.to_device()
    program = Program(part, plan, prepared.training.targets, job.weights)
    state = _train_epochs(job, prepared, program, ui)
    moved = finetune.network.moved_layers(network, job.weights, split_point)
    tuned = finetune.network.tuned_layers(job.weights.architecture, split_point)
    kept_epoch = state.kept_epoch(plan)
    if kept_epoch and moved != tuned:
        unmoved = ", ".join(name for name in tuned if name not in moved)
        ui.warn(f"unchanged after training: {unmoved}. The steps were too small for float32; try a higher --lr")
    run = Run(
        settings=job.settings,
        start=job.head.name,
        start_digest=job.head.digest,
        start_provenance=job.head.provenance,
        classes=job.dataset.classes,
        parameters=finetune.network.parameters(network),
        images={"train": len(prepared.training.targets), "validate": len(prepared.validation.targets)},
        best_epoch=kept_epoch,
        ended=state.ended(plan) or "epochs",
        diverged=state.diverged,
        parity=prepared.parity,
        seconds=sum(epoch.seconds for epoch in state.history),
        validation=state.validation,
        start_validation=state.start,
        moved=tuple(moved),
        history=state.history,
    )
    job.begun.finish(run, network, _pictures(job, prepared, run), _predict_validation(job, prepared, program, ui))
    return report(job.workspace, run, ui)


def _pictures(job: Job, prepared: Prepared, run: Run) -> dict[str, bytes]:
    """Draw the network of a run, and its learning curves; return file name → contents, none where nobody will see them."""
    if not job.workspace.draws_runs:
        return {}
    fingerprint, split_point = job.cache.fingerprint, job.settings.split_point
    layers = stages.of(job.weights.architecture, fingerprint.preprocess, fingerprint.size, prepared.head, split_point)
    loss, accuracy = curves.draw_run(run)
    return {**draw(job.settings.name, layers, split_point).files(), **loss.files, **accuracy.files}


def compute_inputs(
    workspace: Workspace, cache: FeatureCache, split_point: str, number: int, ui: Ui, means: Means = _THIS_PROCESS
) -> None:
    """Compute the outputs of the split point that the cache lacks, also of the first `number` views of training images.

    Raises:
        VggftError: images are missing, have changed or cannot be decoded; no weights; or too little disk space.
    """
    files = files_of(workspace.dataset)
    filled = fill(cache, Filling(files, [split_point], workspace.settings.weights_file_path, means=means), ui)
    if filled.rejected:
        digest, reason = next(iter(filled.rejected.items()))
        raise VggftError(
            f"{split_point} is not cached for all images, and {len(filled.rejected)} of them cannot be computed (the first: "
            f"{files[digest][0]}: {reason}). Put the images back, or run vggft featurize to continue without them."
        )
    views.compute(workspace, number, workspace.dataset.accepted("train"), [split_point], ui, means)


def _parity_gate(job: Job, network: Any, ui: Ui) -> float:
    """Check the network on images spread evenly over the training and validation splits, from their pixels."""
    samples = [s for s in job.dataset.accepted() if s.split in ("train", "validate")]
    files = files_of(job.dataset)
    spread = [samples[i] for i in np.linspace(0, len(samples) - 1, PARITY_IMAGES).astype(int)]
    candidates = {s.digest: files[s.digest] for s in [*spread, *samples]}
    pictures: list[NDArray[np.uint8]] = []
    digests: list[str] = []
    for digest, picture in runner.decoded(candidates, decoder(job.cache.fingerprint), PARITY_IMAGES):
        if not isinstance(picture, str):
            pictures.append(picture)
            digests.append(digest)
        if len(digests) == PARITY_IMAGES:
            break
    if not digests:
        raise VggftError(
            f"parity gate: none of the {len(samples)} images below {job.dataset.root} is readable and unchanged; the check of "
            "the network from pixels needs a few. Put them back, or run vggft featurize on the folder where they are now."
        )
    top, precision = job.cache.architecture.top, job.cache.fingerprint.precision
    cached = job.cache.read(top, digests)
    parity = finetune.network.check_parity(network, np.stack(pictures), job.head, cached, top, precision)
    ui.say(f"parity gate passed: largest difference of a probability {parity:.1e}")
    return parity


def _examples(job: Job, ui: Ui) -> tuple[Examples, Examples]:
    """Read the inputs of training and validation, or prepare to stream them."""
    split_point, size, files = job.settings.split_point, job.cache.fingerprint.size, files_of(job.dataset)
    splits = [_samples(job.dataset, split) for split in ("train", "validate")]
    changed = views.caches(job.workspace, job.settings.plan.views)
    sources = []
    for samples, caches in zip(splits, ([job.cache, *changed], [job.cache]), strict=True):
        digests = [sample.digest for sample in samples]
        if split_point is None:
            of_caches = [examples.from_pixels(files, decoder(cache.fingerprint), size, digests) for cache in caches]
        else:
            of_caches = [examples.from_cache(cache, split_point, digests) for cache in caches]
        sources.append(examples.joined(of_caches))
    windows = examples.windows(sources, job.settings.memory, job.settings.plan.batch_size)
    if windows[0]:
        ui.say(f"the inputs do not fit into --memory: {windows[0]} images at a time are read ahead of training")
    inputs, read = [], 0
    kept = sum(source.n for source, window in zip(sources, windows, strict=True) if window is None)
    with ui.progress("reading inputs", kept) if kept else nullcontext() as advance:
        numbers = (job.settings.plan.views, 0)
        for samples, source, window, number in zip(splits, sources, windows, numbers, strict=True):

            def show(rows: int, before: int = read) -> None:
                if advance:
                    advance(before + rows)

            rows = Rows(source, window, show)
            read += source.n if window is None else 0
            inputs.append(Examples(rows, np.asarray(job.dataset.targets(samples), np.int64), number))
    return inputs[0], inputs[1]


def _samples(dataset: Dataset, split: str) -> list[Sample]:
    """Return the images of a split ordered by content, so that file names do not change a run."""
    return sorted(dataset.accepted(split), key=lambda sample: (sample.digest, sample.label))


def _predict_validation(job: Job, prepared: Prepared, program: Any, ui: Ui) -> Predictions:
    """Predict the validation images with the epoch that is kept, whose weights training leaves in the network."""
    validation, parts = prepared.validation, []
    with ui.progress("predicting validation images", len(validation.targets)) as advance:
        for inputs in validation.rows.batches(np.arange(len(validation.targets)), job.settings.plan.batch_size):
            parts.append(program.predict(inputs))
            advance(sum(map(len, parts)))
    return Predictions(_samples(job.dataset, "validate"), validation.targets, np.concatenate(parts))


def _train_epochs(job: Job, prepared: Prepared, program: Any, ui: Ui) -> State:
    plan, begun, state = job.settings.plan, job.begun, job.begun.state
    n, before = len(prepared.training.targets), state.epoch if state else 0
    if begun.lost:
        ui.warn(begun.lost)
    if state is not None:
        shapes = [array.shape for array in program.weights()]
        for arrays in (state.weights, state.best):
            if [array.shape for array in arrays] != shapes:
                where = workspace_flag(job.workspace.root)
                raise VggftError(
                    f"{job.settings.name}: its checkpoint is not of this network. Start a new run: vggft finetune{where} "
                    f"(vggft runs --remove {job.settings.name}{where} deletes this one)"
                )
        begun.write_curve(state)
        ui.say(f"resuming after epoch {state.epoch} of {plan.epochs}")
    log = Log(begun.folder / store.TENSORBOARD, state.history if state else ())
    with ui.progress(f"tuning {job.settings.unfreeze}", (plan.epochs - before) * n) as advance:

        def on_step(epoch: int, images: int, loss: float) -> None:
            doing = f"loss {loss:.4f}" if images < n else "validation"
            advance((epoch - 1 - before) * n + images, what=f"epoch {epoch}/{plan.epochs}, {doing}")

        def on_epoch(now: State) -> None:
            begun.save(now)
            if not now.diverged:
                try:
                    log.write(now.history[-1])
                except OSError as error:
                    ui.warn(f"{error}: training continues without curves for TensorBoard")
                ui.say(_line(now, plan))

        state = finetune.train.train(
            program, (prepared.training, prepared.validation), plan, state, Callbacks(on_step, on_epoch)
        )
    log.close()
    return state


def _line(state: State, plan: Plan) -> str:
    row = state.history[-1]
    metrics = f"validation log-loss {row.val_log_loss:.4f}, accuracy {row.val_accuracy:.3f}"
    if row.loss is None:
        return f"epoch 0 (the untuned head): {metrics}"
    best = " ← best so far" if plan.keep == "best" and state.kept_epoch(plan) == row.epoch else ""
    return f"epoch {row.epoch}/{plan.epochs}: training loss {row.loss:.4f}, {metrics}, {row.seconds:.1f} s{best}"


def report(workspace: Workspace, run: Run, ui: Ui) -> dict[str, Any]:
    """Print the result of a run, and return it for --json."""
    result, plan = as_json(workspace, run), run.settings.plan
    v, s, trained = run.validation, run.start_validation, run.history[-1].epoch
    if run.diverged:
        lower = f"--lr {plan.learning_rate / 10:g}"
        ui.warn(
            f"{result['failed'][0]}: training stopped, and epoch {run.best_epoch} is kept. Try a tenth of the learning rate: "
            f"{lower}"
        )
    elif run.ended == "patience":
        ui.say(
            f"stopped after epoch {trained}: {counted(plan.patience, 'epoch')} without a lower validation log-loss (--patience)"
        )
    kept = "last" if plan.keep == "last" else "best"
    ui.print(
        f"{run.name}: {kept} epoch {run.best_epoch} of {trained}; on {v.n} validation images accuracy {v.accuracy:.3f} (head "
        f"{s.accuracy:.3f}), log-loss {v.log_loss:.4f} (head {s.log_loss:.4f})"
    )
    if run.best_epoch == 0 and plan.keep == "best":
        ui.print(f"no epoch was better than {run.start}: the network is that head on the pretrained backbone")
    ui.print(f"network: {result['network']}")
    return result


def as_json(workspace: Workspace, run: Run) -> dict[str, Any]:
    """Return what --json says of a finished run."""
    failed = []
    if run.diverged:
        failed = ["the loss or a weight became NaN or infinite at epoch {}, step {}".format(*run.diverged)]
    return {
        "name": run.name,
        "recipe": run.settings.recipe,
        "start": run.start,
        "unfreeze": run.settings.unfreeze,
        "split_point": run.split_point,
        "epochs": run.history[-1].epoch,
        "best_epoch": run.best_epoch,
        "ended": run.ended,
        "failed": failed,
        "parity": run.parity,
        "seconds": run.seconds,
        "network": str(workspace.finetune / run.name / store.NETWORK),
        "validation": run.validation.as_json(),
        "start_validation": run.start_validation.as_json(),
        "moved": list(run.moved),
    }
