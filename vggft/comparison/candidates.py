"""What the methods said of the same images: all that a comparison rests on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from featurize.errors import VggftError
from heads import features, leaks
from vggft.prediction import judging
from vggft.prediction.models import Model, Models
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace

# Where the images come from: the test split, or outer folds, both of which chose nothing; or validation, which chose the models.
Source = Literal["test", "folds", "validation"]


@dataclass(frozen=True)
class Candidate:
    """A method, or a way of choosing one, and what it said.

    Attributes:
        name, kind: for people; the kind of a way of choosing is "chosen".
        probabilities: (n, classes).
        method: what it is in the workspace; None for a way of choosing.
    """

    name: str
    kind: str
    probabilities: NDArray[np.float64]
    method: Model | None


@dataclass(frozen=True)
class CandidatePredictions:
    """What candidates said of n images.

    Attributes:
        source: where the images come from.
        classes: names, in the order of the probabilities.
        samples: the n images.
        targets: positions of their classes, int64 (n,).
        candidates: all of them.
        head, network: names of the two candidates that are compared first: the best head, and the best tuned network, as
            validation chose them.
        declared: a person said which images belong together (`--group-by`).
        fold: (n,), which of the outer folds held an image out; None where there are none.
    """

    source: Source
    classes: Sequence[str]
    samples: Sequence[Sample]
    targets: NDArray[np.int64]
    candidates: Sequence[Candidate]
    head: str
    network: str
    declared: bool = False
    fold: NDArray[np.int64] | None = None

    @property
    def fair(self) -> bool:
        """True where the images chose nothing."""
        return self.source != "validation"

    @property
    def grouped(self) -> bool:
        """True where some of the images belong together."""
        return len(self.apart) < len(self.samples)

    @property
    def apart(self) -> NDArray[np.intp]:
        """Return the positions of images that do not belong together: of each group the one whose digest comes first."""
        order = sorted(range(len(self.samples)), key=lambda i: (self.samples[i].digest, self.samples[i].path))
        first = {self.samples[i].group: i for i in reversed(order)}
        return np.sort(np.fromiter(first.values(), np.intp))


def on_split(
    workspace: Workspace,
    found: Models,
    source: Literal["test", "validation"],
    leave_out: Callable[[str], None],
    ui: Ui,
) -> CandidatePredictions:
    """Let every fresh method predict a split. Near-duplicates belong together here, as everywhere.

    Args:
        leave_out: told of a network that is left out, as files that it needs are gone or not what they were.

    Raises:
        VggftError: features are missing, or there is no network that can predict them.
    """
    dataset, cache = workspace.dataset, workspace.cache()
    samples = dataset.accepted("test" if source == "test" else "validate")
    targets = dataset.targets(samples)
    said: dict[str, NDArray[np.float64]] = {}
    left_out: VggftError | None = None
    with ui.progress("predicting", len(found.fresh), "methods") as advance:
        for part in (found.heads, *((network,) for network in found.networks)):
            try:
                said |= judging.judge(part, workspace, cache, samples)
            except VggftError as error:
                if part is found.heads:
                    raise
                left_out = error
                leave_out(f"{part[0].name}: {error}")
            advance(len(said))
    networks = [method.name for method in found.networks if method.name in said]
    if not networks and left_out:
        raise left_out
    grouped = leaks.together(features.read(cache, samples, targets, ["avg"]))
    return CandidatePredictions(
        source,
        dataset.classes,
        grouped.samples,
        grouped.targets,
        [Candidate(m.name, m.kind, said[m.name], m) for m in found.fresh if m.name in said],
        found.heads[0].name,
        networks[0],
        declared=workspace.settings.group_by is not None,
    )
