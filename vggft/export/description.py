"""What a user of an exported file has to know: in the file, where its format has room, and as JSON beside it."""

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from featurize.disk import durable
from vggft.export.choices import StoredPrecision
from vggft.export.formats import About, Format
from vggft.export.pipeline import columns
from vggft.prediction.band import Band
from vggft.prediction.head_model import HeadModel
from vggft.prediction.model import Model
from vggft.workspace import provenance
from vggft.workspace.workspace import Workspace


def about(workspace: Workspace, model: Model, band: Band | None, precision: StoredPrecision) -> About:
    """Return classes, threshold, and input and output of a network; numbers and lists for programs, sentences for people."""
    fingerprint = workspace.settings.fingerprint
    return {
        **_common(model, band),
        "precision": precision,
        "size": fingerprint.size,
        "resize": fingerprint.resize,
        "input": f"pixels: float32 (n, {fingerprint.size}, {fingerprint.size}, 3), RGB from 0 to 255, of upright pictures, "
        f"transparent ones on white, that Pillow resized with its {fingerprint.resize} filter, aspect not kept; all other "
        "preprocessing is inside",
    }


def about_pipeline(model: HeadModel, top: str, band: Band | None) -> About:
    """Return the same of a scikit-learn pipeline, which reads the layer `top`."""
    return {
        **_common(model, band),
        "layer": top,
        "pooling": model.head.pooling,
        "input": f"(n, {model.head.inputs}): outputs of {top}, pooled: {columns(model.head)}",
    }


def _common(model: Model, band: Band | None) -> dict[str, Any]:
    return {
        "model": model.name,
        "kind": model.kind,
        "classes": list(model.classes),
        "output": f"(n, {len(model.classes)}): class probabilities in the order of classes",
        "unsure_below": band.threshold if band else None,
    }


def description(
    workspace: Workspace, model: Model, facts: About, band: Band | None, exported: Format, checked: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is written as JSON beside the file, but for the checksums of the files.

    Args:
        facts: what is in the file, too.
        checked: what `Reference.check` returned.
    """
    fingerprint = workspace.settings.fingerprint
    return {
        "format": exported.name,
        **facts,
        "unsure_band": band.as_json() if band else None,
        "checked": dict(checked),
        "weights": {
            "digest": fingerprint.weights,
            "published": fingerprint.weights == workspace.architecture.digest,
        },
        "provenance": {key: model.provenance.get(key) for key in provenance.current(workspace)},
        "versions": {
            **provenance.versions(),
            **{name: importlib.metadata.version(name) for name in exported.modules},
        },
    }


def checksums(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file below a folder, by its path there."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): durable.sha256(path) for path in paths}
