"""One fine-tuning run, new or resumed: network, parity gate, training.

`prepare` returns what `train` needs, so nothing is trained that has not passed the parity gate.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import finetune.network
import finetune.train
from featurize import backend, runner
from featurize.errors import VggftError
from finetune import stages, store
from finetune.examples import Examples
from finetune.network import PARITY_IMAGES
from finetune.picture import draw
from finetune.plan import Plan
from finetune.store import Run
from finetune.tensorboard import Log
from finetune.train import Callbacks, State
from heads.head import Head
from heads.predictions import Predictions
from vggft.comparison.plots import curves
from vggft.steps.job import Job
from vggft.steps.run_report import report
from vggft.steps.training_inputs import Inputs, compute_inputs, files_of, require_maps, samples_of
from vggft.ui.console import Ui
from vggft.workspace.backbone import decoder
from vggft.workspace.folder import workspace_flag

# Of the GPU's memory, for inputs; weights, activations and their gradients need the rest.
_INPUTS_ON_GPU = 1 / 4


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


def _predict_validation(job: Job, prepared: Prepared, program: Any, ui: Ui) -> Predictions:
    """Predict the validation images with the epoch that is kept, whose weights training leaves in the network."""
    validation, parts = prepared.validation, []
    with ui.progress("predicting validation images", len(validation.targets)) as advance:
        for inputs in validation.rows.batches(np.arange(len(validation.targets)), job.settings.plan.batch_size):
            parts.append(program.predict(inputs))
            advance(sum(map(len, parts)))
    return Predictions(samples_of(job.dataset, "validate"), validation.targets, np.concatenate(parts))


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
