"""The folder of an experiment where none is named, and how the commands that messages suggest name another."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from featurize.process import places

DEFAULT_WORKSPACE = Path("vggft-work")


def workspace_flag(root: Path) -> str:
    """Return " -w FOLDER" for a command that a message suggests; empty for the default workspace."""
    default = places.resolved(root) == places.resolved(DEFAULT_WORKSPACE)
    return "" if default else f" -w {shlex.quote(str(root))}"


def layers_flag(layers: Iterable[str]) -> str:
    """Return the options with which featurize computes these layers."""
    return "".join(f" --layers {layer}" for layer in layers)
