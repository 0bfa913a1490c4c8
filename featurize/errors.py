"""The exception for errors that the user can fix; the command line shows its message without a traceback."""


class VggftError(Exception):
    """Invalid input or a missing step. The message names what was received, what was expected and the next step."""


def require_whole(option: str, value: object, least: int, most: int | None = None) -> None:
    """See that a setting is a whole number that is allowed: on the command line typer sees to it, in Python nobody else does.

    Raises:
        VggftError: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        wanted = f"{least} or more" if most is None else f"{least} to {most}"
        raise VggftError(f"{option} {value}: expected {wanted}.")


SEEDS = 2**32 - 1  # the largest one that NumPy and scikit-learn take
