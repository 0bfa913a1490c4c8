"""Names of classes: each becomes the name of a folder."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache

from featurize.data.folders import LITTER, same_name
from featurize.errors import VggftError

_MOST_BYTES = 255  # of a folder's name, on nearly all file systems
_NO_TEXT = (
    "Cc",
    "Cs",
    "Zl",
    "Zp",
)  # Unicode categories: control characters, surrogates, separators of lines and paragraphs


@cache
def odd(name: str) -> str:
    """Return why a name cannot be that of a class, as the end of a sentence; empty if it can."""
    reasons = {
        "is empty": not name.strip(),
        "begins or ends with a space": name != name.strip(),
        "contains a slash": "/" in name or "\\" in name,
        "contains a control character or is no Unicode": any(unicodedata.category(c) in _NO_TEXT for c in name),
        "begins with a dot, and hidden folders are no classes": name.startswith("."),
        "is the name of a folder of an operating system": name.lower() in LITTER,
        f"is longer than {_MOST_BYTES} bytes": len(name.encode(errors="replace")) > _MOST_BYTES,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def require(name: str, present: Iterable[str] = ()) -> None:
    """Check a new class.

    Raises:
        VggftError: no folder of a class can have its name, or one beside another class.
    """
    why = odd(name)
    if why:
        raise VggftError(f"The class {name!r} {why}. Expected a name that a folder can have.")
    for other in present:
        if other != name and same_name(other).casefold() == same_name(name).casefold():
            raise VggftError(f"The class {name!r} differs from {other!r} only in spelling. Use one of the two.")


def merged(*lists: Iterable[str]) -> Sequence[str]:
    """Return classes in the order in which they come first.

    Raises:
        VggftError: as `require`.
    """
    present: list[str] = []
    for name in (name for names in lists for name in names):
        if name not in present:
            require(name, present)
            present.append(name)
    return present
