"""What Pillow and the C library behind its TIFF reader print about a damaged file: the reason for a rejection says it already."""

import contextlib
import ctypes
import functools
import logging

from PIL import _imaging


@functools.cache
def silence() -> None:
    """Stop both for the whole process, so only in the command line and in its worker processes."""
    logging.getLogger("PIL").propagate = False  # Keras adds a handler that prints what others log
    library = ctypes.CDLL(_imaging.__file__)  # also finds the functions of libtiff, which it is linked with
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        with contextlib.suppress(AttributeError):  # Pillow without libtiff
            getattr(library, name)(None)
