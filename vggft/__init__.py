"""The command line, and `Experiment`, the Python interface."""

from typing import TYPE_CHECKING, Any

from vggft.siblings import use_siblings

use_siblings()

if TYPE_CHECKING:
    from vggft.api import Experiment, Model, read_picture

__all__ = ["Experiment", "Model", "read_picture"]


def __getattr__(name: str) -> Any:
    """Import the Python interface on first use, because it takes time that the command line saves."""
    if name not in __all__:
        raise AttributeError(f"module 'vggft' has no attribute {name!r}")
    from vggft import api

    return getattr(api, name)
