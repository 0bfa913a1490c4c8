"""A head → a tuned network, trained from the cached outputs of the split point: one run, many, or one that was interrupted."""

from typing import Any

from vggft.steps import new_run, resumption, sweep
from vggft.steps.options import FinetuneOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: FinetuneOptions, ui: Ui) -> dict[str, Any]:
    """Tune the layers from `options.unfreeze` up, together with a head, and keep the network of the best epoch, or of the last.

    Raises:
        VggftError: no such head, unknown layer, a name that is taken, images that are gone, or the parity gate.
    """
    if options.resume:
        return resumption.run(workspace, options.name, ui, options.memory)
    if options.combinations:
        return sweep.run(workspace, options.combinations, ui, options.on)
    return new_run.run(workspace, options, ui)
