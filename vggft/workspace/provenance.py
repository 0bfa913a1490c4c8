"""What a model was trained from and with: the state of the workspace, and the versions of the software."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurize.backend import load_keras
from featurize.cache.fingerprint import Fingerprint
from featurize.data.dataset import Dataset
from vggft.workspace.workspace import Workspace


def state(dataset: Dataset, fingerprint: Fingerprint) -> dict[str, str]:
    """Return what identifies the state of a workspace: its images, labels and splits, and its features."""
    return {"manifest": dataset.identity, "fingerprint": fingerprint.key}


def current(workspace: Workspace) -> dict[str, str]:
    """Return the present `state` of a workspace."""
    return state(workspace.dataset, workspace.settings.fingerprint)


def matches(present: Mapping[str, str], recorded: Mapping[str, Any]) -> bool:
    """Return whether a recorded provenance is of the present state: if not, the model is stale."""
    return all(recorded.get(key) == value for key, value in present.items())


def is_fresh(workspace: Workspace, classes: Sequence[str], recorded: Mapping[str, Any]) -> bool:
    """Return whether a model was made from the present state, and has its classes, in their order."""
    return tuple(classes) == workspace.settings.classes and matches(current(workspace), recorded)


def fits(workspace: Workspace, classes: Sequence[str], recorded: Mapping[str, Any]) -> bool:
    """Return whether a model still predicts what the workspace asks: its classes and features are the present ones."""
    fingerprint = workspace.settings.fingerprint.key
    return tuple(classes) == workspace.settings.classes and recorded.get("fingerprint") == fingerprint


def difference(workspace: Workspace, classes: Sequence[str], recorded: Mapping[str, Any], made: str = "trained") -> str:
    """Return why a stale model or run is stale, in words.

    Args:
        classes: its classes.
        recorded: its provenance.
        made: what has happened to it: trained, or only begun.
    """
    settings = workspace.settings
    if tuple(classes) != settings.classes:
        return f"its classes are {', '.join(classes)}; those of the data are {', '.join(settings.classes)}"
    if recorded.get("fingerprint") != settings.fingerprint.key:
        return (
            f"it was {made} on features of fingerprint {recorded.get('fingerprint')}; the current ones are "
            f"{settings.fingerprint.key}"
        )
    return f"images, labels or splits have changed since it was {made}"


def versions() -> dict[str, str]:
    """Return the versions of what trains a model, to be recorded with it."""
    keras = load_keras()
    import joblib
    import sklearn

    backend = keras.backend.backend()
    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "backend": backend,
        backend: importlib.metadata.version(backend),
        "vggft": importlib.metadata.version("vggft"),
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "joblib": joblib.__version__,
    }
