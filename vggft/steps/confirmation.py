"""Asking before something is deleted."""

import sys

from featurize.errors import VggftError
from vggft.ui.console import Ui, is_terminal


def confirmed(command: str, question: str, ui: Ui) -> bool:
    """Ask, and return whether the answer was yes.

    Args:
        command: what is asking, for the error.

    Raises:
        VggftError: nobody can answer.
    """
    if ui.json or not is_terminal(sys.stdin):
        raise VggftError(f"{command} asks before it deletes. Not interactive: pass --yes.")
    return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
