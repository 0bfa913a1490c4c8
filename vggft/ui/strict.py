"""Strict JSON for programs."""

import json
import re
from typing import Any

_SURROGATE = re.compile("[\ud800-\udfff]")  # how Python represents the bytes of a file name that are not UTF-8


def text(value: Any) -> str:
    """Return a value as one line of JSON.

    Raises:
        ValueError: the value contains NaN or infinity, which is a bug in vggft.
    """
    return json.dumps(_printable(value), allow_nan=False)


def _printable(value: Any) -> Any:
    """Replace bytes of file names that are not Unicode by \\xff: JSON has no other way, and lone surrogates are no text."""
    if isinstance(value, str):
        return _SURROGATE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", value)
    if isinstance(value, dict):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value
