"""Packages of the extras: what is missing is named before it is imported."""

import importlib.util
from collections.abc import Sequence

from featurize.errors import VggftError


def require(what: str, packages: Sequence[str], extra: str) -> None:
    """Check that packages are installed; imports nothing.

    Args:
        what: what needs them, at the beginning of the message.
        packages: the names under which they are imported.
        extra: vggft's extra that installs them.

    Raises:
        VggftError: one is missing.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise VggftError(
            f"{what} needs packages that are not installed: {', '.join(missing)}. Run: pip install 'vggft[{extra}]'"
        )
