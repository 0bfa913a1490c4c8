"""Strict JSON for programs: one value, or rows that may be too many for memory, on their way into one object."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

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


class Spool:
    """An array of a result, row by row in a temporary file; where no program will read it, rows are only counted."""

    def __init__(self, file: IO[str] | None) -> None:
        """Begin an empty one; `file`: a temporary one of its own, or None."""
        self._file = file
        self._rows = 0

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        if self._file is not None:
            self._file.write(text(row) + "\n")
        self._rows += 1

    def __len__(self) -> int:
        return self._rows

    def pieces(self) -> Iterator[str]:
        """Yield the array as JSON, piece by piece."""
        assert self._file is not None
        self._file.seek(0)
        yield "["
        for i, line in enumerate(self._file):
            yield f"{', ' if i else ''}{line.rstrip()}"
        yield "]"
