"""A head as a model: it reads the backbone's last outputs, pooled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads import features
from heads.head import HEAD_FILES, Head
from heads.history import Epoch
from heads.metrics import Metrics
from heads.search import Result
from heads.specs import Pooling
from vggft.prediction.model import CachedImages, Dissected, Kind, Model, Predictor


@dataclass(frozen=True)
class HeadModel(Model):
    """A head of a workspace.

    Attributes:
        result: the head, and what came of its training.
        reads: the last layer of the frozen network, or `POOLED`.
    """

    result: Result
    reads: str

    @property
    def head(self) -> Head:
        """The head itself."""
        return self.result.head

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What it takes to train it again (`heads.search.of_recipe`)."""
        recipe: Mapping[str, Any] = self.head.provenance["recipe"]
        return recipe

    @property
    def name(self) -> str:
        return self.head.name

    @property
    def kind(self) -> Kind:
        return self.head.kind

    @property
    def classes(self) -> tuple[str, ...]:
        return self.head.classes

    @property
    def seconds(self) -> float:
        return self.result.seconds

    @property
    def parameters(self) -> int:
        return self.head.parameters

    @property
    def validation(self) -> Metrics:
        return self.result.validation

    @property
    def history(self) -> Sequence[Epoch]:
        return self.result.history

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self.head.provenance

    @property
    def layer(self) -> str:
        return self.reads

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        return (self.head.pooling,)

    @property
    def start(self) -> None:
        return None

    @property
    def unchanged(self) -> bool:
        return False

    @property
    def files(self) -> Sequence[Path]:
        return [self.folder / name for name in HEAD_FILES]

    def predictor(self) -> Predictor:
        head = self.head
        return lambda outputs: head.scores(features.vectors(outputs, head.pooling))

    def dissected(self, convolution: str) -> Dissected:
        return Dissected(convolution, lambda outputs: outputs.astype(np.float32), self.head)

    def predict_cached(self, images: CachedImages) -> NDArray[np.float64]:
        return self.head.scores(images.pooled[self.head.pooling])
