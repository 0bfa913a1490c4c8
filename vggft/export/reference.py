"""What `vggft predict` says about some validation images: every export is checked against it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from featurize.errors import VggftError
from featurize.pixels.decoding import picture
from vggft.export.choices import StoredPrecision
from vggft.prediction import inference, scoring
from vggft.prediction.model import Model
from vggft.prediction.scoring import File
from vggft.workspace.backbone import decoder
from vggft.workspace.workspace import Workspace

IMAGES = 16
# Largest difference of a probability. Engines and features stored in float16 move one by up to 5e-4 (docs/export.md).
# Where weights are stored in less than float32, those of docs/export.md move one by up to 0.003 (float16) and 0.18 (int8).
BOUNDS: Mapping[StoredPrecision, float] = {"float32": 1e-3, "float16": 1e-2, "int8": 0.3}
MOST = 500  # validation images on which the accuracy of an export with less than float32 is measured


@dataclass(frozen=True)
class Reference:
    """Images and their predictions.

    Attributes:
        samples: n validation images, spread over the split.
        pictures: uint8 (n, size, size, 3), as the network reads them.
        probabilities: (n, classes), as `vggft predict` gives them.
        targets: (n,), positions of the true classes.
    """

    samples: Sequence[Sample]
    pictures: NDArray[np.uint8]
    probabilities: NDArray[np.float64]
    targets: NDArray[np.int64]

    def check(self, probabilities: NDArray[np.float64], precision: StoredPrecision, what: str) -> dict[str, Any]:
        """Return the largest difference of a probability and, for less than float32, accuracies, for JSON.

        Args:
            probabilities: of the same images, by the exported file.
            what: the file, for the message.

        Raises:
            VggftError: the difference is larger than that of `BOUNDS`, or a probability is missing or not a number.
        """
        if probabilities.shape != self.probabilities.shape or not np.isfinite(probabilities).all():
            raise VggftError(
                f"{what} was not written: in its own runtime the export gives {probabilities.shape} values, or some that are not "
                f"numbers; expected {self.probabilities.shape} probabilities. Choose another --format."
            )
        differences = np.abs(probabilities - self.probabilities).max(axis=1)
        worst = int(differences.argmax())
        bound = BOUNDS[precision]
        if differences[worst] > bound:
            raise VggftError(
                f"{what} was not written: in its own runtime it differs from vggft predict by {differences[worst]:.2g} in a "
                f"probability of {self.samples[worst].path}, expected at most {bound:g}. Choose another --format or --model."
            )
        checked = {
            "split": "validation",
            "images": len(self.samples),
            "largest_difference": float(differences[worst]),
            "allowed": bound,
        }
        if precision != "float32":
            checked["accuracy"] = float((probabilities.argmax(axis=1) == self.targets).mean())
            checked["accuracy_of_vggft"] = float((self.probabilities.argmax(axis=1) == self.targets).mean())
        return checked


def reference(workspace: Workspace, model: Model, most: int = IMAGES) -> Reference:
    """Predict up to `most` validation images as `vggft predict` does.

    Raises:
        VggftError: none of them is on this machine as it was when featurize read it; or as `inference.from_pixels`.
    """
    dataset = workspace.dataset
    validation = dataset.accepted("validate")
    decode = decoder(workspace.settings.fingerprint)
    samples: list[Sample] = []
    pictures: list[NDArray[np.uint8]] = []
    for sample in _spread([s for s in validation if (dataset.root / s.path).is_file()], most):
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
    samples = [samples[i] for i in kept]
    return Reference(
        samples,
        np.stack([pictures[i] for i in kept]),
        np.stack([p for each in scored if (p := each.probabilities) is not None]),
        np.asarray(dataset.targets(samples), np.int64),
    )


def _spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Return up to `most` samples, at equal distances in their order, which is that of the classes."""
    positions = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int)
    return [samples[i] for i in positions]
