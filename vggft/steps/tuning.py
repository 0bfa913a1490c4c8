"""One fine-tuning run, from where it is to its end: network, parity gate, training, report."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize import runner
from featurize.backbone import layers
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Dataset, Sample
from featurize.errors import VggftError
from featurize.wording import counted
from finetune import examples, store
from finetune import network as networks
from finetune.examples import Examples, Rows
from finetune.network import PARITY_IMAGES
from finetune.plan import Plan
from finetune.store import Run, Unfinished
from finetune.tensorboard import Log
from finetune.train import State, Watch, train
from heads.predictions import Predictions
from vggft.ui.console import Ui
from vggft.workspace.filling import Filling, decoder, fill, load_weights
from vggft.workspace.workspace import Workspace


def files_of(dataset: Dataset) -> Mapping[str, Sequence[Path]]:
    """Return digest → files, of all images that are used."""
    files: dict[str, list[Path]] = defaultdict(list)
    for sample in dataset.accepted():
        files[sample.digest].append(dataset.root / sample.path)
    return files


def _silent(done: int) -> None:
    """Show nothing."""


class Tuning:
    """Works on one run, under the lock."""

    def __init__(
        self, workspace: Workspace, cache: FeatureCache, begun: Unfinished, ui: Ui, memory: int | None = None
    ) -> None:
        """Take a run up; `memory`: bytes of inputs in memory, if other than it was begun with."""
        self.workspace, self.cache, self.begun, self.ui = workspace, cache, begun, ui
        self.dataset = workspace.dataset
        self.settings, self.head = begun.settings, begun.head
        if memory is not None:
            self.settings = replace(self.settings, memory=memory)
        self.weights = load_weights(workspace.settings)

    def prepare(self) -> None:
        """Compute what the cache lacks, put the network together, check it, and read the images."""
        settings, split_point = self.settings, self.settings.split_point
        if split_point is not None:
            self._fill(split_point)
        tuned = networks.tuned_layers(split_point)
        span = tuned[0] if len(tuned) == 1 else f"{tuned[0]} to {tuned[-1]}"
        source = f"cached {split_point}" if split_point else "pixels"
        self.ui.say(f"{settings.name}: tuning {span} from {source}, starting from {self.head.name}")
        fingerprint = self.cache.fingerprint
        self.network = networks.assemble(self.weights, fingerprint.preprocess, fingerprint.size, self.head)
        self.parity = self._parity_gate()
        self.training, self.validation = self._examples()

    def train(self) -> dict[str, Any]:
        """Train what is left to train, save and report."""
        from finetune.program import Program  # Keras is loaded by now

        plan, split_point, network = self.settings.plan, self.settings.split_point, self.network
        part = networks.above(network, split_point)
        program = Program(part, plan, self.training.targets, self.weights.arrays)
        state = self._train(program)
        moved, tuned = networks.moved_layers(network, self.weights, split_point), networks.tuned_layers(split_point)
        if state.best_epoch and moved != tuned:
            still = ", ".join(name for name in tuned if name not in moved)
            self.ui.warn(f"did not move: {still}. The steps were too small for float32; try a higher --lr")
        made = Run(
            settings=self.settings,
            start=self.head.name,
            start_digest=self.head.digest,
            start_provenance=self.head.provenance,
            classes=self.dataset.classes,
            parameters=networks.parameters(network),
            images={"train": len(self.training.targets), "validate": len(self.validation.targets)},
            best_epoch=state.best_epoch,
            ended=str(state.ended(plan)),
            diverged=state.diverged,
            parity=self.parity,
            seconds=sum(epoch.seconds for epoch in state.history),
            validation=state.validation,
            start_validation=state.start,
            moved=tuple(moved),
            history=state.history,
        )
        self.begun.finish(made, network, self._judged(program))
        return report(self.workspace, made, self.ui)

    def _fill(self, split_point: str) -> None:
        """Compute what the cache lacks of the split point."""
        files = files_of(self.dataset)
        done = fill(self.cache, Filling(files, [split_point], self.workspace.settings.weights_file_path), self.ui)
        if done.rejected:
            digest, reason = next(iter(done.rejected.items()))
            raise VggftError(
                f"{split_point} is not cached for all images, and {len(done.rejected)} of them cannot be computed (the first: "
                f"{files[digest][0]}: {reason}). Put the images back, or run vggft featurize to go on without them."
            )

    def _parity_gate(self) -> float:
        """Check the network on images spread evenly over the training and validation splits, from their pixels."""
        samples = [s for s in self.dataset.accepted() if s.split in ("train", "validate")]
        files = files_of(self.dataset)
        spread = [samples[i] for i in np.linspace(0, len(samples) - 1, PARITY_IMAGES).astype(int)]
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
        precision = self.cache.fingerprint.precision
        parity = networks.check_parity(self.network, np.stack(pictures), expected, precision)
        limit = networks.PARITY_BOUNDS[precision]
        self.ui.say(f"parity gate passed: largest difference of a probability {parity:.1e} (limit {limit:g})")
        return parity

    def _examples(self) -> tuple[Examples, Examples]:
        """Read, or get ready to stream, the inputs of training and validation."""
        split_point, size, files = self.settings.split_point, self.cache.fingerprint.size, files_of(self.dataset)
        splits = [self._samples(split) for split in ("train", "validate")]
        sources = []
        for samples in splits:
            digests = [sample.digest for sample in samples]
            if split_point is None:
                sources.append(examples.from_pixels(files, decoder(self.cache.fingerprint), size, digests))
            else:
                sources.append(examples.from_cache(self.cache, split_point, digests))
        found = []
        windows = examples.windows(sources, self.settings.memory, self.settings.plan.batch_size)
        if windows[0]:
            self.ui.say(f"the inputs do not fit into --memory: they are read a window of {windows[0]} images ahead")
        for samples, source, window in zip(splits, sources, windows, strict=True):
            with self.ui.progress("reading", source.n) if window is None else nullcontext(_silent) as advance:
                rows = Rows(source, window, advance)
            found.append(Examples(rows, np.asarray(self.dataset.targets(samples), np.int64)))
        return found[0], found[1]

    def _samples(self, split: str) -> list[Sample]:
        """Return the images of a split in the order of their contents: no run changes with the names of files."""
        return sorted(self.dataset.accepted(split), key=lambda sample: (sample.digest, sample.label))

    def _judged(self, program: Any) -> Predictions:
        """Predict the validation images with the best epoch, whose weights training leaves in the network."""
        targets, parts = self.validation.targets, []
        with self.ui.progress("predicting validation images", len(targets)) as advance:
            for inputs in self.validation.rows.batches(np.arange(len(targets)), self.settings.plan.batch_size):
                parts.append(program.predict(inputs))
                advance(sum(map(len, parts)))
        return Predictions(self._samples("validate"), targets, np.concatenate(parts))

    def _train(self, program: Any) -> State:
        plan, begun, state = self.settings.plan, self.begun, self.begun.state
        n, before = len(self.training.targets), state.epoch if state else 0
        if state is not None:
            self.ui.say(f"going on after epoch {state.epoch} of {plan.epochs}")
        log = Log(begun.folder / store.TENSORBOARD, state.history if state else ())
        with self.ui.progress(f"tuning {self.settings.unfreeze}", (plan.epochs - before) * n) as advance:

            def on_step(epoch: int, done: int, loss: float) -> None:
                doing = f"loss {loss:.4f}" if done < n else "validation"
                advance((epoch - 1 - before) * n + done, what=f"epoch {epoch}/{plan.epochs}, {doing}")

            def on_epoch(now: State) -> None:
                begun.keep(now)
                if not now.diverged:
                    try:
                        log.write(now.history[-1])
                    except OSError as error:
                        self.ui.warn(f"{error}: going on without it")
                    self.ui.say(_line(now, plan))

            state = train(program, (self.training, self.validation), plan, state, Watch(on_step, on_epoch))
        log.close()
        return state


def _line(state: State, plan: Plan) -> str:
    row = state.history[-1]
    judged = f"validation log-loss {row.val_log_loss:.4f}, accuracy {row.val_accuracy:.3f}"
    if row.loss is None:
        return f"epoch 0 (the head as it is): {judged}"
    best = " ← best so far" if state.best_epoch == row.epoch else ""
    return f"epoch {row.epoch}/{plan.epochs}: training loss {row.loss:.4f}, {judged}, {row.seconds:.1f} s{best}"


def report(workspace: Workspace, run: Run, ui: Ui) -> dict[str, Any]:
    """Say what came of a run; return it for programs."""
    folder, plan = workspace.finetune / run.name, run.settings.plan
    v, s, trained = run.validation, run.start_validation, run.history[-1].epoch
    failed = []
    if run.diverged:
        where = "epoch {}, step {}".format(*run.diverged)
        lower = f"--lr {plan.learning_rate / 10:g}"
        failed = [f"the loss or a weight became NaN or infinite at {where}"]
        ui.warn(
            f"{failed[0]}: training stopped there, and epoch {run.best_epoch} is kept. Try a tenth of the rate: {lower}"
        )
    elif run.ended == "patience":
        ui.say(
            f"stopped after epoch {trained}: {counted(plan.patience, 'epoch')} without a lower validation log-loss (--patience)"
        )
    ui.print(
        f"{run.name}: best epoch {run.best_epoch} of {trained}; on {v.n} validation images accuracy {v.accuracy:.3f} (head "
        f"{s.accuracy:.3f}), log-loss {v.log_loss:.4f} (head {s.log_loss:.4f})"
    )
    if run.best_epoch == 0:
        ui.print(f"no epoch beat {run.start}: the network is the head on the pretrained weights")
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
