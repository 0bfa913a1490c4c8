"""The exception for errors that the user can fix; the command line shows its message without a traceback."""


class VggftError(Exception):
    """Invalid input or a missing step. The message names what was received, what was expected and the next step."""
