"""Heat maps of a model: for files, and for images of a workspace from the cache."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from featurize.backbone.architecture import Architecture
from featurize.cache.feature_cache import FeatureCache
from featurize.engines import CPU_BATCH, Engine
from featurize.process import interrupts
from featurize.process.per_process import PerProcess
from vggft.explanation import grad_cam
from vggft.explanation.frozen import Files, FrozenOutputs
from vggft.prediction.inference import start_its_engine
from vggft.prediction.model import CachedImages, Model
from vggft.workspace.filling import files_of

AT_ONCE = (
    2 * CPU_BATCH
)  # images in memory: 100 MB where the cache holds only VGG16's lowest layers, 13 MB from block4_pool


class Explainer:
    """A model that shows where it sees a class."""

    def __init__(self, model: Model, cache: FeatureCache, start: Callable[[], Engine]) -> None:
        """Read the model's files.

        Args:
            cache: where features may be; what is not there is computed.
            start: returns a running engine with the cache's weights; called each time something has to be computed.

        Raises:
            VggftError: the model's files are missing or damaged.
        """
        dissected = model.dissected(last_convolution(cache.architecture))
        self._activations, self._head = dissected.activations, dissected.head
        self.outputs = FrozenOutputs(cache, dissected.layer, start)

    def __call__(self, files: Files, wanted: Sequence[tuple[str, int]]) -> NDArray[np.float32]:
        """Return a map for each pair of image and class, float32 (pairs, height, width), as `grad_cam.maps`.

        Args:
            files: all are in memory at once, see `AT_ONCE`.
            wanted: digest of one of the files, and position of a class in the model's order.

        Raises:
            VggftError: as in `FrozenOutputs`.
        """
        outputs = self.outputs(files)
        activations = self._activations(np.stack([outputs[digest] for digest in files]))
        order = {digest: i for i, digest in enumerate(files)}
        at = np.asarray([order[digest] for digest, _ in wanted])
        targets = np.asarray([target for _, target in wanted])
        batches = (slice(first, first + AT_ONCE) for first in range(0, len(wanted), AT_ONCE))
        return np.concatenate([grad_cam.maps(self._head, activations[at[some]], targets[some]) for some in batches])


def last_convolution(architecture: Architecture) -> str:
    """Return the name of the layer whose activations are explained."""
    return architecture.convolutions[-1].name


def maps(
    model: Model,
    images: CachedImages,
    targets: Sequence[int],
    start: Callable[[], Engine] | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Return the map of one class of each image of a workspace, float32 (n, height, width), as `grad_cam.maps`.

    Read from the cache: for a tuned network its split point; for a head the deepest cached layer below the last convolution, from
    which an engine runs the frozen layers up to it. `AT_ONCE` images are in memory.

    Args:
        targets: for each image the position of the class whose map is wanted, in the model's order (n,).
        start: returns a running engine with the workspace's weights; None: the fastest here, started when it is needed.
        progress: called with the number of images done.

    Raises:
        VggftError: the model's files, or features and image files, are missing or damaged; no weights, or no engine.
    """
    engine = PerProcess(start or partial(start_its_engine, images.workspace))
    explainer = Explainer(model, images.cache, engine)
    height, width, _ = images.cache.architecture.convolutions[-1].shape(images.cache.fingerprint.size)
    result = np.empty((len(images.samples), height, width), np.float32)
    for first in range(0, len(result), AT_ONCE):
        interrupts.check()
        some = images.samples[first : first + AT_ONCE]
        files = files_of(images.workspace.dataset.root, some)
        pairs = zip((sample.digest for sample in some), targets[first : first + AT_ONCE], strict=True)
        result[first : first + AT_ONCE] = explainer(files, list(pairs))
        progress(first + len(some))
    return result
