"""Predictions of several models for the same images: the input of a comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from featurize.errors import VggftError
from heads import features, near_duplicates
from vggft.prediction import inference
from vggft.prediction.models import Models
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

# Where the images come from: the test split, or the outer folds of nested cross-validation, which selected nothing; or
# validation, which selected the models.
Source = Literal["test", "folds", "validation"]


@dataclass(frozen=True)
class Candidate:
    """A model, or a way of selecting one, and its predictions.

    Attributes:
        name, kind: as shown; the kind of a way of selecting is "chosen".
        probabilities: (n, classes).
    """

    name: str
    kind: str
    probabilities: NDArray[np.float64]


@dataclass(frozen=True)
class CandidatePredictions:
    """Predictions of the candidates for n images.

    Attributes:
        source: where the images come from.
        classes: names, in the order of the probabilities.
        samples: the n images.
        targets: positions of their classes, int64 (n,).
        candidates: all of them; the heads and the networks each as they are ranked, the best first.
        head, network: names of the two candidates that are compared first: the best head and the best tuned network, as
            selected on validation; `network` is None where heads alone are compared.
        declared: groups were declared by the user (`--group-by`).
        fold: (n,), the outer fold that held each image out; None where there are no folds.
    """

    source: Source
    classes: Sequence[str]
    samples: Sequence[Sample]
    targets: NDArray[np.int64]
    candidates: Sequence[Candidate]
    head: str
    network: str | None
    declared: bool = False
    fold: NDArray[np.int64] | None = None

    @property
    def fair(self) -> bool:
        """True if the images were not used for model selection."""
        return self.source != "validation"

    @property
    def grouped(self) -> bool:
        """True if some images belong to the same group."""
        return len(self.apart) < len(self.samples)

    @property
    def apart(self) -> NDArray[np.intp]:
        """Positions of one image of each group: the one with the lowest digest."""
        order = sorted(range(len(self.samples)), key=lambda i: (self.samples[i].digest, self.samples[i].path))
        first = {self.samples[i].group: i for i in reversed(order)}
        return np.sort(np.fromiter(first.values(), np.intp))


def on_split(
    workspace: Workspace,
    models: Models,
    source: Literal["test", "validation"],
    leave_out: Callable[[str], None],
    ui: Ui,
) -> CandidatePredictions:
    """Let every fresh model predict a split. Near-duplicates count as one group, as everywhere.

    Args:
        leave_out: called for each network that cannot predict, because files are missing or have changed.

    Raises:
        VggftError: features are missing, or there are networks and none can predict.
    """
    dataset, cache = workspace.dataset, workspace.cache()
    samples = dataset.accepted("test" if source == "test" else "validate")
    targets = dataset.targets(samples)
    probabilities: dict[str, NDArray[np.float64]] = {}
    failure: VggftError | None = None
    with ui.progress("predicting", len(models.fresh), "models") as advance:
        for group in inference.groups(models.fresh):
            try:
                probabilities |= inference.from_cache(group, workspace, cache, samples)
            except VggftError as error:
                if not group[0].tuned:
                    raise
                failure = error
                leave_out(f"{group[0].name}: {error}")
            advance(len(probabilities))
    networks = [network.name for network in models.networks if network.name in probabilities]
    if not networks and failure:
        raise failure
    read = features.read(cache, samples, targets, ["avg"], kept=workspace.settings.layers)
    grouped, grouping = near_duplicates.together(read)
    for sentence in grouping.sentences():
        ui.warn(sentence)
    return CandidatePredictions(
        source,
        dataset.classes,
        grouped.samples,
        grouped.targets,
        [Candidate(m.name, m.kind, probabilities[m.name]) for m in models.fresh if m.name in probabilities],
        models.heads[0].name,
        networks[0] if networks else None,
        declared=workspace.settings.group_by is not None,
    )
