"""Whether a workspace keeps the outputs of the last layer, or only averages and maxima of them."""

import shlex

from featurize.backbone.architecture import POOLED
from vggft.workspace import views
from vggft.workspace.folder import layers_flag, workspace_flag
from vggft.workspace.workspace import Workspace


def lacking(workspace: Workspace, number: int = 0) -> bool:
    """Return whether only `POOLED` is kept, and an image has no cached outputs of the last layer.

    Args:
        number: of views of each training image that are needed, too.
    """
    kept, top, dataset = workspace.settings.layers, workspace.architecture.top, workspace.dataset
    if top in kept or POOLED not in kept:
        return False  # what is missing is computed, or reported as missing
    if workspace.cache().lacks([top], dataset.accepted().digests).any():
        return True
    train = dataset.accepted("train").digests
    return any(cache.lacks([top], train).any() for cache in views.caches(workspace, number))


def reason(workspace: Workspace) -> str:
    """Return why the outputs are not there."""
    return f"only averages and maxima of {workspace.architecture.top} are cached (--layers {POOLED})"


def command(workspace: Workspace) -> str:
    """Return the command that computes the outputs, for heads and for fine-tuning."""
    layers = layers_flag(workspace.architecture.cached)
    return f"vggft featurize {shlex.quote(workspace.settings.data)}{layers}{workspace_flag(workspace.root)}"
