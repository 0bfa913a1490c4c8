"""The one exception for what a person can mend: said in a line or two, never as a traceback."""


class VggftError(Exception):
    """Bad input or a missing step. The message says what was received, what was expected and the next step."""
