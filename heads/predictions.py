"""A model's predictions for images that it was not trained on, and their CSV file: one row per image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from featurize.disk import checked, forms
from featurize.errors import VggftError, reason

FILE = "predictions.csv"  # predictions for the validation images, in the folder of a head or a tuned network


@dataclass(frozen=True)
class Predictions:
    """Predictions for n images.

    Attributes:
        samples: the images.
        targets: indices of the true classes, (n,).
        probabilities: (n, classes).
        fold: index of the fold that held each image out, (n,), -1 for validation images; None without cross-validation.
    """

    samples: Sequence[Sample]
    targets: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    fold: NDArray[np.int64] | None = None


def columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the probability columns."""
    return [f"p_{name}" for name in classes]


def table(predictions: Predictions, classes: Sequence[str]) -> bytes:
    """Return each image's path, digest, split, label, fold and probabilities as a CSV file."""
    header = ["path", "digest", "split", "label", "predicted", "fold", *columns(classes)]
    fold = [-1 for _ in predictions.samples] if predictions.fold is None else predictions.fold.tolist()
    rows: list[tuple[Any, ...]] = [
        (s.path, s.digest, s.split, classes[int(t)], classes[int(p.argmax())], k + 1 or "", *p.tolist())
        for s, t, k, p in zip(predictions.samples, predictions.targets, fold, predictions.probabilities, strict=True)
    ]
    return forms.csv_bytes(header, rows)


def read(path: Path, classes: Sequence[str]) -> Predictions:
    """Read a file of `table`, without the folds.

    Raises:
        VggftError: the file is missing or damaged.
    """
    try:
        rows = checked.read_csv(path)
        p = np.array([[float(row[column]) for column in columns(classes)] for row in rows]).reshape(-1, len(classes))
        if not (len(p) and (p >= 0).all() and np.allclose(p.sum(axis=1), 1)):
            raise ValueError("the probabilities of a row do not sum to 1")
        targets = np.array([classes.index(row["label"]) for row in rows], np.int64)
        samples = [Sample(row["path"], row["label"], row["split"], digest=row["digest"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VggftError(
            f"{path}: missing or damaged ({reason(error)}). Train the model in that folder again."
        ) from None
    return Predictions(samples, targets, p)
