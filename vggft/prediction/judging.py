"""How methods predict: images of the workspace from what is cached of them, and any pictures from their pixels."""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from featurize import durable, interrupts
from featurize.backbone.network import between
from featurize.backend import load_keras
from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.engines import CPU_BATCH, Engine
from featurize.errors import VggftError
from finetune import examples
from finetune.examples import Rows
from finetune.network import LOGITS_LAYER
from finetune.store import Run
from heads import features
from heads.head import probabilities
from heads.search import Result
from vggft.prediction.models import Model
from vggft.prediction.scoring import Scorer
from vggft.workspace.backbone import start_engine
from vggft.workspace.filling import decoder
from vggft.workspace.workspace import Workspace


def judge(
    methods: Sequence[Model],
    workspace: Workspace,
    cache: FeatureCache,
    samples: Sequence[Sample],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, NDArray[np.float64]]:
    """Return method → class probabilities (n, classes) of images of the workspace, from as far up as they are cached for it.

    Args:
        cache: where their features are; what heads read is read once for all.
        progress: told how many methods are done.

    Raises:
        VggftError: features or, for a network that is tuned from the pixels up, image files are missing.
    """
    found: dict[str, NDArray[np.float64]] = {}
    heads = [method.made.head for method in methods if isinstance(method.made, Result)]
    if heads:
        poolings = list(dict.fromkeys(head.pooling for head in heads))
        read = features.read(cache, samples, workspace.dataset.targets(samples), poolings)
        for head in heads:
            found[head.name] = head.scores(read.pooled[head.pooling])
            progress(len(found))
        del read
    for method in methods:
        if isinstance(method.made, Run):
            found[method.name] = _above(method, method.made.split_point, workspace, cache, samples)
            progress(len(found))
    return found


def _above(
    method: Model, split_point: str | None, workspace: Workspace, cache: FeatureCache, samples: Sequence[Sample]
) -> NDArray[np.float64]:
    """Predict by a tuned network, from its split point up, some batches in memory at a time."""
    digests = [sample.digest for sample in samples]
    if split_point is None:
        files = {sample.digest: [workspace.dataset.root / sample.path] for sample in samples}
        source = examples.from_pixels(files, decoder(cache.fingerprint), cache.fingerprint.size, digests)
    else:
        source = examples.from_cache(cache, split_point, digests)
    part, window = _part(method), 8 * CPU_BATCH
    batches = Rows(source, window).batches(np.arange(len(digests)), window)
    return np.concatenate([_predict(part, rows) for rows in batches])


def from_pixels(method: Model, workspace: Workspace, engine: Engine | None = None) -> Scorer:
    """Return what turns pictures into class probabilities by a method.

    All that is frozen runs on an engine, to the float16 that the cache holds: the numbers are those of `judge`.

    Args:
        engine: one with the workspace's weights that runs already; None: one is started, the fastest here.
    """
    if isinstance(method.made, Result):
        layer, above = workspace.architecture.top, method.made.head.predict
    else:
        above = partial(_predict, _part(method))
        if method.made.split_point is None:
            return Scorer(above)
        layer = method.made.split_point
    if engine is None:
        engine = start_engine(
            workspace.architecture, workspace.settings.fingerprint, workspace.settings.weights_file_path
        )
    frozen = engine

    def score(pictures: NDArray[np.uint8]) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):
            outputs = frozen(pictures, [layer])[0].astype(np.float16)
        return above(outputs)

    return Scorer(score, frozen.batch_size)


def _predict(part: Any, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """Return class probabilities (n, classes), by a network that ends in logits, of inputs of any numeric type, in batches."""
    found = []
    for first in range(0, len(inputs), CPU_BATCH):
        interrupts.check()
        batch = inputs[first : first + CPU_BATCH].astype(np.float32)
        found.append(probabilities(part.predict_on_batch(batch)))
    return np.concatenate(found)


def _part(method: Model) -> Any:
    """Return the part of a tuned network above its split point, up to the logits.

    Raises:
        VggftError: its file is missing or damaged, or another one.
    """
    path = method.network
    assert isinstance(method.made, Run)
    assert path is not None
    try:
        return _loaded(path, path.stat().st_mtime_ns, method.made.network_sha256, method.made.split_point)
    except (ValueError, OSError, TypeError, KeyError, BadZipFile) as error:
        raise VggftError(f"{path}: Keras cannot load it ({error}). Tune again: vggft finetune") from None


@lru_cache(maxsize=1)  # a comparison asks for the same one for each kind of changed picture
def _loaded(path: Path, changed: int, sha256: str, split_point: str | None) -> Any:
    if sha256 and durable.sha256(path) != sha256:
        raise VggftError(
            f"{path}: not the file that was written at the end of its training. Tune again: vggft finetune"
        )
    network = load_keras().saving.load_model(path, compile=False)
    return between(network, split_point, [LOGITS_LAYER])
