"""The compared images as data for the page: labels, what every model predicts, filters, thumbnails and heat maps."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featurize.data.dataset import Sample
from heads import suspects
from heads.metrics import losses
from vggft.comparison.comparison import Comparison, Measured
from vggft.comparison.report.record import Record
from vggft.ui.visible import visible

MOST = 10_000  # images; of more, those with the highest loss are shown
_MODELS = 20  # of each image; each takes 100 kB with 10,000 images
_GREY = "grey"  # of the perturbations
_LEVELS = 255  # of a heat map


@dataclass(frozen=True)
class Filter:
    """Images that have something in common.

    Attributes:
        name, title: for programs and for people.
        shows: (n,), True for the images that it lets through.
        about: what it shows, in a sentence.
    """

    name: str
    title: str
    shows: NDArray[np.bool_]
    about: str


@dataclass(frozen=True)
class HeatMaps:
    """Where a model sees the class that it predicts.

    Attributes:
        title: of the model and what its maps show.
        maps: digest → (height, width), from 0 to 1.
    """

    title: str
    maps: Mapping[str, NDArray[np.float32]]

    def as_json(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Return the maps as bytes in Base64, one for each image; empty where there is none."""
        height, width = next(iter(self.maps.values())).shape
        encoded = [_bytes(self.maps[s.digest]) if s.digest in self.maps else "" for s in samples]
        return {"title": self.title, "height": height, "width": width, "maps": encoded}


def _bytes(heat: NDArray[np.float32]) -> str:
    return base64.b64encode(np.rint(heat * _LEVELS).astype(np.uint8).tobytes()).decode()


@dataclass(frozen=True)
class Gallery:
    """The images of a page.

    Attributes:
        record: the comparison.
        positions: of the images among those of the comparison, those with the highest loss of the model to use first.
        filters: for these images.
        thumbnails: digest → WebP in Base64.
        heat: the heat maps, if any.
    """

    record: Record
    positions: NDArray[np.intp]
    filters: Sequence[Filter]
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    heat: Sequence[HeatMaps] = ()

    @property
    def samples(self) -> list[Sample]:
        """The images."""
        return [self.record.comparison.predictions.samples[i] for i in self.positions]

    def as_json(self) -> dict[str, Any]:
        """Return everything that the script of the page needs."""
        comparison, shown = self.record.comparison, self.positions
        predictions = comparison.predictions
        targets = predictions.targets[shown]
        samples = self.samples
        return {
            "classes": list(map(visible, predictions.classes)),
            "paths": [visible(sample.path) for sample in samples],
            "labels": targets.tolist(),
            "models": [_model(row, shown, targets) for row in _rows(comparison)[:_MODELS]],
            "filters": {f.name: {"about": f.about, "images": np.flatnonzero(f.shows).tolist()} for f in self.filters},
            "thumbnails": [self.thumbnails.get(sample.digest, "") for sample in samples],
            "heat": [heat.as_json(samples) for heat in self.heat if heat.maps],
        }


def of(record: Record) -> Gallery:
    """Return the gallery of a comparison, without thumbnails and heat maps."""
    comparison = record.comparison
    loss = losses(comparison.used_row.candidate.probabilities, comparison.predictions.targets)
    shown = np.argsort(-loss, kind="stable")[:MOST]
    return Gallery(record, shown, [Filter(f.name, f.title, f.shows[shown], f.about) for f in filters(record)])


def _rows(comparison: Comparison) -> list[Measured]:
    """Return all models: the one to use first, then those compared first and the baseline, then the others."""
    rows = {row.name: row for row in (comparison.used_row, *comparison.in_focus, *comparison.rows)}
    return list(rows.values())


def _model(row: Measured, shown: NDArray[np.intp], targets: NDArray[np.int64]) -> dict[str, Any]:
    """Return what a model predicts: classes, their probabilities and those of the labels, in thousandths."""
    p = row.candidate.probabilities[shown]
    predicted = p.argmax(axis=1)
    each = np.arange(len(p))
    return {
        "name": row.name,
        "predicted": predicted.tolist(),
        "scores": np.rint(1000 * p[each, predicted]).astype(int).tolist(),
        "label_scores": np.rint(1000 * p[each, targets]).astype(int).tolist(),
    }


def filters(record: Record) -> list[Filter]:
    """Return the filters for a comparison, each for all its n images."""
    comparison, predictions = record.comparison, record.comparison.predictions
    right = {row.name: row.candidate.probabilities.argmax(axis=1) == predictions.targets for row in comparison.rows}
    used = comparison.used_row.name
    head, network = right[predictions.head], right[predictions.network] if predictions.network else None
    found = [
        Filter("all", "all", np.ones(len(head), bool), "All images."),
        Filter("wrong", "misclassified", ~right[used], f"Misclassified by {used}."),
        Filter(
            "wrong-by-all",
            "wrong by all",
            ~np.any(list(right.values()), axis=0),
            f"Misclassified by each of the {len(right)} models.",
        ),
    ]
    if network is not None:
        contrast = f"{predictions.network} is right and {predictions.head} wrong."
        broken = f"{predictions.head} is right and {predictions.network} wrong."
        found.append(Filter("fixed", "fixed by fine-tuning", network & ~head, contrast))
        found.append(Filter("broken", "broken by fine-tuning", head & ~network, broken))
    found.append(
        Filter(
            "suspects",
            "label issues",
            _suspects(comparison),
            f"At least {suspects.AGREEMENT:.0%} of the heads, none of which was trained on the image, predict another class "
            "than its label, which may be wrong.",
        )
    )
    perturbed = record.perturbed
    if perturbed is not None and _GREY in perturbed.predicted.get(comparison.use, {}):
        predicted = perturbed.predicted[comparison.use]
        changed = predicted[_GREY] != predicted["none"]
        digests = {s.digest for s, moved in zip(perturbed.samples, changed, strict=True) if moved}
        grey = np.array([sample.digest in digests for sample in predictions.samples])
        tried = len(perturbed.samples)
        of = "" if tried == len(predictions.samples) else f" ({tried} images were tried)"
        about = f"{comparison.use} predicts another class when the image is grey{of}."
        found.append(Filter("grey", "changed by grey-scale", grey, about))
    return found


def _suspects(comparison: Comparison) -> NDArray[np.bool_]:
    predictions = comparison.predictions
    heads = [row.candidate.probabilities for row in comparison.rows if row.candidate.kind in ("dense", "logistic")]
    suspected = {(s.path, s.label) for s in suspects.find(predictions.samples, predictions.classes, heads)}
    return np.array([(sample.path, sample.label) in suspected for sample in predictions.samples])
