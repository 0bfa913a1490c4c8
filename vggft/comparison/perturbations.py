"""Predictions for perturbed images: grey, mirrored, compressed, blurred, small, rotated."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.engines import Engine
from featurize.pixels.perturbations import PERTURBATIONS
from featurize.wording import counted
from vggft.prediction import inference
from vggft.prediction.model import Model
from vggft.ui.console import Ui
from vggft.workspace.backbone import start_engine
from vggft.workspace.filling import Filling, as_it_was, copies, fill, require
from vggft.workspace.workspace import Workspace

MOST = 500  # images; the standard error of an accuracy of 0.9 is 0.013 then

UNPERTURBED = "none"  # the name, among the perturbations, of images as they are


@dataclass(frozen=True)
class PerturbedPredictions:
    """Predictions of models for n images, as they are (`UNPERTURBED`) and perturbed.

    Attributes:
        targets: positions of the true classes (n,).
        predicted, scores: model → perturbation → positions of the predicted classes (n,), and their probabilities.
        left_out: number of images whose files are missing or have changed.
    """

    samples: Sequence[Sample]
    targets: NDArray[np.int64]
    predicted: Mapping[str, Mapping[str, NDArray[np.int64]]]
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    left_out: int

    def accuracy(self, model: str, perturbation: str) -> float:
        """Return the accuracy of a model."""
        return float(np.mean(self.predicted[model][perturbation] == self.targets))

    def changed(self, model: str, perturbation: str) -> float:
        """Return the fraction of the images for which a model predicts another class than for the image as it is."""
        return float(np.mean(self.predicted[model][perturbation] != self.predicted[model][UNPERTURBED]))


def predict(
    workspace: Workspace, models: Sequence[Model], samples: Sequence[Sample], ui: Ui
) -> PerturbedPredictions | None:
    """Let models predict perturbed images. Features are computed once, into one cache per perturbation.

    Args:
        samples: images of the workspace; at most `MOST` of them are used, spread evenly over their digests.

    Returns:
        None if none of the images can be read.

    Raises:
        VggftError: disk full, or no weights.
    """
    chosen = spread(samples)
    possible = len(chosen)
    if any(model.layer is None for model in models):  # it reads the files again
        files = copies(workspace.dataset, {sample.digest for sample in chosen})
        chosen = [s for s in chosen if any(as_it_was(path, s.digest) for path in files[s.digest])]
    fingerprint = workspace.settings.fingerprint
    caches = {name: workspace.cache(replace(fingerprint, probe=name)) for name in PERTURBATIONS}
    layers = sorted({model.layer for model in models if model.layer})
    chosen = _compute(workspace, caches, layers, chosen, ui)
    left_out = possible - len(chosen)
    if left_out:
        ui.warn(f"perturbations: {counted(left_out, 'image')} left out, whose files are missing or have changed")
    if not chosen:
        return None
    targets = np.asarray(workspace.dataset.targets(chosen), np.int64)
    predicted: dict[str, dict[str, NDArray[np.int64]]] = {}
    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    all_caches = {UNPERTURBED: workspace.cache(), **caches}
    groups = inference.groups(models)
    with ui.progress("predicting perturbed images", len(groups) * len(all_caches), "sets") as advance:
        done = 0
        for group in groups:
            for name, cache in all_caches.items():
                for model, p in inference.from_cache(group, workspace, cache, chosen).items():
                    predicted.setdefault(model, {})[name] = p.argmax(axis=1)
                    scores.setdefault(model, {})[name] = p.max(axis=1)
                done += 1
                advance(done)
    return PerturbedPredictions(chosen, targets, predicted, scores, left_out)


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """Return at most `MOST` images, spread evenly over their digests, independently of their order."""
    if len(samples) <= MOST:
        return list(samples)
    ordered = sorted(samples, key=lambda sample: (sample.digest, sample.path))
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, MOST).astype(int)]


def _compute(
    workspace: Workspace, caches: Mapping[str, FeatureCache], layers: Sequence[str], samples: Sequence[Sample], ui: Ui
) -> list[Sample]:
    """Compute missing features; return the images that all caches contain, even if their files are gone."""
    settings, known = workspace.settings, copies(workspace.dataset, {sample.digest for sample in samples})
    files = {digest: paths for digest, paths in known.items() if any(path.is_file() for path in paths)}
    filling = Filling(files, layers, settings.weights_file_path)
    missing = {name: cache.missing(layers, list(files)) for name, cache in caches.items()}
    if any(missing.values()):
        for cache in caches.values():
            require(cache, filling)
        images = counted(sum(map(len, missing.values())), "perturbed image")
        ui.say(f"computing features of {images}; they are kept for the next comparison")
    engine: Engine | None = None
    for name, cache in caches.items():
        if missing[name]:
            engine = engine or start_engine(
                workspace.architecture, settings.fingerprint, filling.weights_file, filling.means.engine, ui
            )
            fill(cache, filling, ui, engine)
    digests = [sample.digest for sample in samples]
    lacking = {digest for cache in caches.values() for digest in cache.missing(layers, digests)}
    return [sample for sample in samples if sample.digest not in lacking]
