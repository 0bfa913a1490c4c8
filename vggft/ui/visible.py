"""Text for terminals: what a terminal would act on, and what would look like another line, is shown as an escape sequence.

Names of files and classes can contain any character: newlines that forge a line of output, sequences that clear the screen,
and marks that reverse the order of what follows.
"""

import re

# Control characters of ASCII and Latin-1, separators of lines and paragraphs, marks that change the direction of text, and
# bytes of a name that is not Unicode, which would be escaped only after the width of a table is measured.
_ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def visible(text: str) -> str:
    """Return a text as one line that a terminal only shows."""
    return _ACTING.sub(_escaped, text)


def shortened(text: str, length: int) -> str:
    """Return a text, with an ellipsis in place of what goes beyond a length in characters."""
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return _SHORT.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
