"""The exception for errors that the user can fix; the command line shows its message without a traceback."""

from pathlib import Path


class VggftError(Exception):
    """Invalid input or a missing step. The message names what was received, what was expected and the next step."""


def damaged(path: Path, error: Exception, advice: str) -> VggftError:
    """Return the error for a file that could not be read; `advice`, such as to delete it, only if its contents are to blame."""
    if isinstance(error, PermissionError):
        return VggftError(f"{path}: cannot be read ({reason(error)}). Fix its permissions.")
    return VggftError(f"{path}: damaged ({reason(error)}). {advice}")


def reason(error: Exception) -> str:
    """Return what went wrong while a file was read, in words, for a message that names the file itself."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"no {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
