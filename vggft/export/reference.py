"""What `vggft predict` says about some validation images: every export is checked against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from featurize.errors import VggftError
from featurize.pixels.decoding import picture
from vggft.prediction import inference, scoring
from vggft.prediction.model import Model
from vggft.prediction.scoring import File
from vggft.workspace.filling import decoder
from vggft.workspace.workspace import Workspace

IMAGES = 16
# Largest difference of a probability. Engines and features stored in float16 move one by up to 5e-4 (docs/export.md).
BOUND = 1e-3


@dataclass(frozen=True)
class Reference:
    """Images and their predictions.

    Attributes:
        samples: n validation images, spread over the split.
        pictures: uint8 (n, size, size, 3), as the network reads them.
        probabilities: (n, classes), as `vggft predict` gives them.
    """

    samples: Sequence[Sample]
    pictures: NDArray[np.uint8]
    probabilities: NDArray[np.float64]

    def require_agreement(self, probabilities: NDArray[Any], what: str) -> float:
        """Return the largest difference of a probability.

        Args:
            probabilities: of the same images, by the exported file.
            what: the file, for the message.

        Raises:
            VggftError: it is larger than `BOUND`, or a probability is missing or not a number.
        """
        if probabilities.shape != self.probabilities.shape or not np.isfinite(probabilities).all():
            raise VggftError(
                f"{what} was not written: in its own runtime the export gives {probabilities.shape} values, or some that are not "
                f"numbers; expected {self.probabilities.shape} probabilities. Choose another --format."
            )
        differences = np.abs(probabilities - self.probabilities).max(axis=1)
        worst = int(differences.argmax())
        if differences[worst] > BOUND:
            raise VggftError(
                f"{what} was not written: in its own runtime it differs from vggft predict by {differences[worst]:.2g} in a "
                f"probability of {self.samples[worst].path}, expected at most {BOUND:g}. Choose another --format or --model."
            )
        return float(differences[worst])


def reference(workspace: Workspace, model: Model) -> Reference:
    """Predict up to `IMAGES` validation images as `vggft predict` does.

    Raises:
        VggftError: none of them is on this machine as it was when featurize read it; or as `inference.from_pixels`.
    """
    dataset = workspace.dataset
    validation = dataset.accepted("validate")
    decode = decoder(workspace.settings.fingerprint)
    samples: list[Sample] = []
    pictures: list[NDArray[np.uint8]] = []
    for sample in spread(validation):
        decoded = picture(sample.digest, [dataset.root / sample.path], decode)
        if not isinstance(decoded, str):
            samples.append(sample)
            pictures.append(decoded)
    if not samples:
        raise VggftError(
            f"{dataset.root}: none of {len(validation)} validation images is there as featurize read it, and exports are checked "
            "on them. Put them back, or run vggft featurize again."
        )
    scorer = inference.from_pixels(model, workspace)
    files = (File(Path(dataset.root / sample.path)) for sample in samples)
    scored = list(scoring.scored(files, decode, scorer))
    kept = [i for i, each in enumerate(scored) if each.probabilities is not None]
    return Reference(
        [samples[i] for i in kept],
        np.stack([pictures[i] for i in kept]),
        np.stack([p for each in scored if (p := each.probabilities) is not None]),
    )


def spread(samples: Sequence[Sample]) -> list[Sample]:
    """Return up to `IMAGES` of some samples, at equal distances in their order, which is that of the classes."""
    positions = np.linspace(0, len(samples) - 1, min(IMAGES, len(samples))).round().astype(int)
    return [samples[i] for i in positions]
