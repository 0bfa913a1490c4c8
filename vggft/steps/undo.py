"""Undoing what `vggft predict --into` or `vggft sort --apply` did, from the list that it wrote."""

from typing import Any

from featurize.disk.transfer import located
from featurize.process import interrupts
from featurize.wording import counted
from vggft.sorting import journal, undoing
from vggft.steps.options import UndoOptions
from vggft.ui.console import Ui
from vggft.workspace.workspace import Workspace


def run(workspace: Workspace, options: UndoOptions, ui: Ui) -> dict[str, Any]:
    """Undo a list from its end; files that are no longer what it says are left and named. The list stays.

    Raises:
        VggftError: it is no such list.
    """
    path = located(options.list)
    undone, left = 0, []
    for entry, changed, why in undoing.undo(journal.read(path)):
        undone += changed
        if why:
            ui.warn(f"left: {entry.destination}: {why}")
            left.append({"path": str(entry.destination), "source": entry.source, "reason": why})
        interrupts.check()
    ui.print(f"undone: {counted(undone, 'file')}")
    return {"undone": undone, "failed": left}
