"""What the methods say of pictures that were changed harmlessly: grey, mirrored, compressed, blurred, small, turned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.engines import Engine
from featurize.pixels.perturbations import PERTURBATIONS
from featurize.wording import counted
from finetune.store import Run
from vggft.prediction import judging
from vggft.prediction.models import Model
from vggft.ui.console import Ui
from vggft.workspace.backbone import start_engine
from vggft.workspace.filling import Filling, as_it_was, fill, require
from vggft.workspace.workspace import Workspace

MOST = 500  # images; the standard error of an accuracy of 0.9 on so many is 0.013

PLAIN = "none"  # what the pictures are called as they are


@dataclass(frozen=True)
class Probed:
    """What methods said of n images, as they are (`PLAIN`) and changed.

    Attributes:
        targets: positions of the true classes (n,).
        predicted, scores: method → probe → positions of the predicted classes (n,), and their probabilities.
        left_out: images whose files are gone or changed.
    """

    samples: Sequence[Sample]
    targets: NDArray[np.int64]
    predicted: Mapping[str, Mapping[str, NDArray[np.int64]]]
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]]
    left_out: int

    def accuracy(self, method: str, probe: str) -> float:
        """Return the part of the images of which a method names the right class."""
        return float(np.mean(self.predicted[method][probe] == self.targets))

    def changed(self, method: str, probe: str) -> float:
        """Return the part of the images of which a method says something else than of the picture as it is."""
        return float(np.mean(self.predicted[method][probe] != self.predicted[method][PLAIN]))


def probe(workspace: Workspace, methods: Sequence[Model], samples: Sequence[Sample], ui: Ui) -> Probed | None:
    """Let methods predict changed pictures; what they need is computed into caches of their own, once.

    Args:
        samples: images of the workspace; at most `MOST` of them are taken, spread evenly over their digests.

    Returns:
        None if none of the images can be read.

    Raises:
        VggftError: no room or no weights.
    """
    layers = _layers(methods, workspace.architecture.top)
    chosen = _spread(samples)
    possible = len(chosen)
    if any(isinstance(method.made, Run) and method.made.split_point is None for method in methods):
        chosen = [s for s in chosen if as_it_was(workspace.dataset.root / s.path, s.digest)]  # they read the files anew
    caches = {name: workspace.cache(replace(workspace.settings.fingerprint, probe=name)) for name in PERTURBATIONS}
    chosen = _compute(workspace, caches, layers, chosen, ui)
    left_out = possible - len(chosen)
    if left_out:
        ui.warn(f"probes: {counted(left_out, 'image')} left out: files that are gone or have changed")
    if not chosen:
        return None
    targets = np.asarray(workspace.dataset.targets(chosen), np.int64)
    predicted: dict[str, dict[str, NDArray[np.int64]]] = {}
    scores: dict[str, dict[str, NDArray[np.float64]]] = {}
    plain = {PLAIN: workspace.cache(), **caches}
    networks = [method for method in methods if method.tuned]
    heads = [method for method in methods if not method.tuned]
    parts = [heads, *([network] for network in networks)]  # one network after the other, so that each is loaded once
    with ui.progress("predicting changed pictures", len(parts) * len(plain), "sets") as advance:
        done = 0
        for part in parts:
            for name, cache in plain.items():
                for method, p in judging.judge(part, workspace, cache, chosen).items():
                    predicted.setdefault(method, {})[name] = p.argmax(axis=1)
                    scores.setdefault(method, {})[name] = p.max(axis=1)
                done += 1
                advance(done)
    return Probed(chosen, targets, predicted, scores, left_out)


def _layers(methods: Sequence[Model], top: str) -> list[str]:
    """Return the layers that the methods read."""
    needed = [method.made.split_point if isinstance(method.made, Run) else top for method in methods]
    return sorted({layer for layer in needed if layer})


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    if len(samples) <= MOST:
        return list(samples)
    ordered = sorted(samples, key=lambda sample: (sample.digest, sample.path))
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, MOST).astype(int)]


def _compute(
    workspace: Workspace, caches: Mapping[str, FeatureCache], layers: Sequence[str], chosen: Sequence[Sample], ui: Ui
) -> list[Sample]:
    """Compute what the caches lack; return the images that they hold then. Those whose files are gone may be among them."""
    root, settings = workspace.dataset.root, workspace.settings
    there = [sample for sample in chosen if (root / sample.path).is_file()]
    files = {sample.digest: [root / sample.path] for sample in there}
    filling = Filling(files, layers, settings.weights_file_path)
    lacking = {name: cache.missing(layers, list(files)) for name, cache in caches.items()}
    if any(lacking.values()):
        for cache in caches.values():
            require(cache, filling)
        ui.say(
            f"probes: computing {counted(sum(map(len, lacking.values())), 'changed picture')}, to be kept for the next time"
        )
    engine: Engine | None = None
    for name, cache in caches.items():
        if lacking[name]:
            engine = engine or start_engine(
                workspace.architecture, settings.fingerprint, filling.weights_file, filling.engine, ui
            )
            fill(cache, filling, ui, engine)
    gone = {digest for cache in caches.values() for digest in cache.missing(layers, [s.digest for s in chosen])}
    return [sample for sample in chosen if sample.digest not in gone]
