"""What a model was trained from and with: the state of the workspace, and the versions of the software."""

import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featurize.backend import load_keras
from vggft.workspace.workspace import Workspace


def current(workspace: Workspace) -> dict[str, str]:
    """Return what identifies the workspace's present state: its images, labels and splits, and its features."""
    return {"manifest": workspace.dataset.identity, "fingerprint": workspace.settings.fingerprint.key}


def matches(state: Mapping[str, str], recorded: Mapping[str, Any]) -> bool:
    """Return whether a recorded provenance is of this state (`current`): if not, the model is stale."""
    return all(recorded.get(key) == value for key, value in state.items())


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
    state, present = current(workspace), workspace.settings.classes
    if tuple(classes) != present:
        return f"its classes are {', '.join(classes)}; those of the data are {', '.join(present)}"
    if recorded.get("fingerprint") != state["fingerprint"]:
        return (
            f"it was {made} on features of fingerprint {recorded.get('fingerprint')}; the current ones are "
            f"{state['fingerprint']}"
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
