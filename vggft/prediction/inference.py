"""Predicting with models: images of the workspace from the cache, and any pictures from their pixels."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.engines import Engine
from heads import features
from vggft.prediction.feature_scorer import FeatureScorer
from vggft.prediction.model import CachedImages, Model
from vggft.prediction.scoring import PixelScorer, Scorer
from vggft.workspace.backbone import start_engine
from vggft.workspace.workspace import Workspace


def groups(models: Sequence[Model]) -> list[list[Model]]:
    """Return models as they are best predicted: heads together, as they read the same features; networks one by one.

    Only one network is in memory at a time.
    """
    heads = [model for model in models if not model.tuned]
    return [*([heads] if heads else []), *([model] for model in models if model.tuned)]


def from_cache(
    models: Sequence[Model],
    workspace: Workspace,
    cache: FeatureCache,
    samples: Sequence[Sample],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, NDArray[np.float64]]:
    """Return model → class probabilities (n, classes) of images of the workspace.

    Args:
        cache: where their features are; what several models read is read once.
        progress: called with the number of models that have predicted.

    Raises:
        VggftError: features are missing or, for a network that was tuned from pixels, image files; or a model's own files.
    """
    probabilities: dict[str, NDArray[np.float64]] = {}
    for group in groups(models):
        poolings = list(dict.fromkeys(pooling for model in group for pooling in model.poolings))
        images = CachedImages(workspace, cache, samples, poolings)
        for model in group:
            probabilities[model.name] = model.predict_cached(images)
            progress(len(probabilities))
    return probabilities


def from_pixels(
    model: Model, workspace: Workspace, start: Callable[[], Engine] | None = None, perturbation: str = ""
) -> Scorer:
    """Return what turns pictures, or files whose features are in the cache, into class probabilities.

    The frozen part runs on an engine and is rounded to float16, as in the cache: the numbers are those of `from_cache`.

    Args:
        start: returns a running engine with the workspace's weights when the first picture has to be computed; None: the
            fastest here.
        perturbation: of the pictures; their features are cached apart.

    Raises:
        VggftError: files of the model are missing or damaged.
    """
    predict, layer = model.predictor(), model.layer
    if layer is None:
        return PixelScorer(predict)
    opened = partial(workspace.cache, replace(workspace.settings.fingerprint, probe=perturbation))
    readable = features.layers_of(workspace.architecture, model.poolings[0]) if model.poolings else ()
    return FeatureScorer(predict, workspace, [*readable, layer], start or partial(start_its_engine, workspace), opened)


def start_its_engine(workspace: Workspace) -> Engine:
    """Start the fastest engine with the weights of a workspace.

    Raises:
        VggftError: there are no such weights, or the engine does not start.
    """
    settings = workspace.settings
    return start_engine(workspace.architecture, settings.fingerprint, settings.weights_file_path)
