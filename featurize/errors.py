"""The exception for errors that the user can fix; the command line shows its message without a traceback."""


class VggftError(Exception):
    """Invalid input or a missing step. The message names what was received, what was expected and the next step."""


def reason(error: Exception) -> str:
    """Return what went wrong while a file was read, in words, for a message that names the file itself."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"no {error.args[0]}" if isinstance(error, KeyError) and error.args else str(error)
