"""The user's folders: home, where there is one, and a private folder in the temporary folder."""

import os
import tempfile
from pathlib import Path

from featurize.errors import VggftError


def home() -> Path | None:
    """Return the user's home folder; None if HOME is not set and the user is unknown, as in some containers."""
    try:
        folder = Path.home()
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None


def expanded(path: Path) -> Path:
    """Return a path with ~ and ~user replaced by home folders.

    Raises:
        VggftError: there is no such home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise VggftError(f"{path}: {error} Write the path without ~, or as ./{path}.") from None


def resolved(path: Path) -> Path:
    """Return an absolute path without links; unlike `Path.resolve`, of a link that leads to itself, too."""
    return Path(os.path.realpath(path))


def private() -> Path:
    """Return the path of this user's folder in the temporary folder; it may not exist.

    Raises:
        OSError: there is no temporary folder that can be written.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"vggft-{user}"


def keras() -> Path:
    """Return the folder of Keras's settings and weights."""
    folder = os.environ.get("KERAS_HOME")
    if folder:
        return Path(folder)
    return (home() or private()) / ".keras"
