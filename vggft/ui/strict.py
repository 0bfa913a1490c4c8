"""Strict JSON for programs."""

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python keeps a byte of a file name that is no UTF-8


def text(value: Any) -> str:
    """Write a value as JSON on one line.

    Raises:
        ValueError: a NaN or an infinity in it, which is a bug here.
    """
    return json.dumps(_printable(value), allow_nan=False)


def _printable(value: Any) -> Any:
    """Write bytes of file names that are no Unicode as \\xff: JSON has no other way, and lone surrogates are no text."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value
