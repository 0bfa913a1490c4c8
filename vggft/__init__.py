"""The front door: command line, workspace, comparison, prediction; and `Experiment`, which is all of that for Python."""

from typing import TYPE_CHECKING, Any

from vggft.siblings import use_siblings

use_siblings()

if TYPE_CHECKING:
    from vggft.api import Experiment, Model, read_picture

__all__ = ["Experiment", "Model", "read_picture"]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the command line has to answer at once."""
    if name not in __all__:
        raise AttributeError(f"module 'vggft' has no attribute {name!r}")
    from vggft import api

    return getattr(api, name)
