"""The inputs of fine-tuning: computed where the cache lacks them, and read into memory or streamed."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Dataset, Sample
from featurize.errors import VggftError
from finetune import examples
from finetune.examples import Examples, Rows
from vggft.steps.job import Job
from vggft.ui.console import Ui
from vggft.workspace import filling, maps, views
from vggft.workspace.backbone import decoder
from vggft.workspace.filling import Filling, Means, fill
from vggft.workspace.workspace import Workspace

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


def _examples(job: Job, ui: Ui) -> tuple[Examples, Examples]:
    """Read the inputs of training and validation, or prepare to stream them."""
    split_point, size, files = job.settings.split_point, job.cache.fingerprint.size, files_of(job.dataset)
    splits = [samples_of(job.dataset, split) for split in ("train", "validate")]
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


def samples_of(dataset: Dataset, split: str) -> list[Sample]:
    """Return the images of a split ordered by content, so that file names do not change a run."""
    return sorted(dataset.accepted(split), key=lambda sample: (sample.digest, sample.label))
