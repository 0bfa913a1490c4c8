"""Common interface of heads and tuned networks: description and prediction."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from featurize.cache.feature_cache import FeatureCache
from featurize.data.dataset import Sample
from featurize.engines import CPU_BATCH
from featurize.errors import VggftError
from finetune import examples
from finetune.examples import Rows
from heads import features, predictions
from heads.head import Head
from heads.history import Epoch
from heads.metrics import Metrics, losses
from heads.predictions import Predictions
from heads.search import merit
from heads.specs import Pooling
from vggft.workspace.backbone import decoder
from vggft.workspace.filling import copies
from vggft.workspace.workspace import Workspace

Kind = Literal["logistic", "dense", "tuned"]

# Largest difference between the log-loss of stored validation predictions and the recorded one. For tuned networks the
# predictions are computed once more after training, and a GPU does not sum in the same order twice.
_SAME_LOSS = 1e-3

# Outputs as cached, float16 (n, height, width, filters) or, of `POOLED`, (n, 2, filters); or pictures uint8 (n, size, size, 3) →
# class probabilities (n, classes).
Predictor = Callable[[NDArray[Any]], NDArray[np.float64]]

_ROWS_AT_ONCE = 8 * CPU_BATCH  # cached outputs or pictures in memory at once


@dataclass(frozen=True)
class CachedImages:
    """Images of a workspace and their cached features.

    Attributes:
        poolings: those of the heads that are to predict; all are read in one pass, when the first is asked for.
    """

    workspace: Workspace
    cache: FeatureCache
    samples: Sequence[Sample]
    poolings: Sequence[Pooling]

    @cached_property
    def pooled(self) -> Mapping[Pooling, NDArray[Any]]:
        """Pooling → pooled features (n, inputs), as `heads.features.read` returns them."""
        targets = self.workspace.dataset.targets(self.samples)
        kept = self.workspace.settings.layers
        return features.read(self.cache, self.samples, targets, self.poolings, kept=kept).pooled

    def outputs(self, layer: str | None) -> Iterator[NDArray[Any]]:
        """Yield the cached outputs of a layer, some hundred images at a time; None: the decoded pictures, from their files."""
        digests = [sample.digest for sample in self.samples]
        if layer is None:
            files = copies(self.workspace.dataset, set(digests))
            fingerprint = self.cache.fingerprint
            source = examples.from_pixels(files, decoder(fingerprint), fingerprint.size, digests)
        else:
            source = examples.from_cache(self.cache, layer, digests)
        return Rows(source, _ROWS_AT_ONCE).batches(np.arange(len(digests)), _ROWS_AT_ONCE)


@dataclass(frozen=True)
class Dissected:
    """A model, cut at the output of the network's last convolution.

    Attributes:
        layer: layer of the frozen network whose outputs are the input; None: pixels are.
        activations: outputs of `layer`, float16 as cached, or pictures uint8 → outputs of the last convolution, after ReLU,
            float32 (n, height, width, filters).
        head: what reads the max-pooling of these, which is the top layer.
    """

    layer: str | None
    activations: Callable[[NDArray[Any]], NDArray[np.float32]]
    head: Head


@dataclass(frozen=True)
class Model(ABC):
    """A trained classifier of a workspace.

    Attributes:
        folder: its folder in the workspace.
    """

    folder: Path

    @property
    @abstractmethod
    def name(self) -> str:
        """Unique name in the workspace."""

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """Kind of training."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the probabilities."""

    @property
    @abstractmethod
    def seconds(self) -> float:
        """Training time in seconds; for a tuned network, without that of the head it started from."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """Number of trained parameters."""

    @property
    @abstractmethod
    def validation(self) -> Metrics:
        """Metrics on the validation images."""

    @property
    @abstractmethod
    def history(self) -> Sequence[Epoch]:
        """Learning curve; empty if not trained in epochs."""

    @property
    def kept_epoch(self) -> Epoch:
        """The epoch whose weights it has; for models with a learning curve."""
        return min(self.history, key=lambda epoch: epoch.val_log_loss)

    @property
    @abstractmethod
    def provenance(self) -> Mapping[str, Any]:
        """Data and settings of the training."""

    @property
    @abstractmethod
    def layer(self) -> str | None:
        """Layer of the frozen network whose outputs are the input; None: pixels are."""

    @property
    @abstractmethod
    def poolings(self) -> tuple[Pooling, ...]:
        """Pooling of the outputs of `layer`; empty if not pooled."""

    @property
    @abstractmethod
    def start(self) -> str | None:
        """Name of the head that it was tuned from; None for a head."""

    @property
    @abstractmethod
    def unchanged(self) -> bool:
        """True for a tuned network whose best epoch was 0: up to rounding, it equals the head it started from."""

    def equals(self, head: str) -> bool:
        """Return whether it is, up to rounding, the head of that name."""
        return self.unchanged and self.start == head

    @property
    @abstractmethod
    def files(self) -> Sequence[Path]:
        """Files needed for prediction."""

    @abstractmethod
    def predictor(self) -> Predictor:
        """Read the files; return a function from outputs of `layer`, or pictures, to class probabilities.

        Raises:
            VggftError: its files are missing, damaged, or not those that training wrote.
        """

    @abstractmethod
    def dissected(self, convolution: str) -> Dissected:
        """Read the files; return the model, cut at the output of the network's last convolution.

        Raises:
            VggftError: as in `predictor`.
        """

    @abstractmethod
    def predict_cached(self, images: CachedImages) -> NDArray[np.float64]:
        """Return class probabilities (n, classes) of images of the workspace.

        Raises:
            VggftError: features or, where it reads pixels, image files are missing; or its own files are, or are damaged.
        """

    @property
    def tuned(self) -> bool:
        """True for a tuned network, False for a head."""
        return self.kind == "tuned"

    @property
    def rank(self) -> tuple[bool, tuple[float, int]]:
        """Order by `heads.search.merit`, unchanged networks last: they differ from their heads by rounding only."""
        return self.unchanged, merit(self.validation, self.parameters)

    @property
    def size_on_disk(self) -> int | None:
        """Size of the files in bytes; None if one is missing."""
        return sum(path.stat().st_size for path in self.files) if all(path.exists() for path in self.files) else None

    def validation_predictions(self) -> Predictions:
        """Return the predictions for the validation images that were stored after training.

        Raises:
            VggftError: missing, damaged, or not what its validation metrics were computed from.
        """
        path = self.folder / predictions.FILE
        stored = predictions.read(path, self.classes)
        difference = abs(float(losses(stored.probabilities, stored.targets).mean()) - self.validation.log_loss)
        if len(stored.targets) != self.validation.n or difference > _SAME_LOSS:
            raise VggftError(f"{path}: not the predictions that the validation metrics of {self.name} come from.")
        return stored
