"""User-defined heads in a TOML file: one table per head; a list of values gives one head for each value.

[wide]                      # name of the head
pooling = "max"             # flatten, avg, max or avgmax
units = [256, 1024]         # two heads: wide-units256 and wide-units1024; 0 means linear
learning_rate = 1e-3
dropout = 0.5               # optional, like l2 and standardise

[baseline]
kind = "logistic"           # default: "dense"
pooling = "avgmax"
"""

import difflib
import itertools
import math
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from featurize.errors import VggftError
from heads.head import Pooling
from heads.specs import NAME, NAMES, DenseSpec, LogisticSpec, Spec

_MAX_HEADS = 1000  # in one file; more is probably a mistake


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and low <= value < high
    )


# Key → check of the value, and the expected value for error messages.
_DENSE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda value: value in ("dense", "logistic"), 'expected "dense" or "logistic"'),
    "pooling": (lambda value: value in get_args(Pooling), 'expected "flatten", "avg", "max" or "avgmax"'),
    "units": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 8192,
        "expected a whole number from 0 (linear) to 8192",
    ),
    "learning_rate": (lambda value: value != 0 and _number(0, 10)(value), "expected a number above 0, such as 1e-3"),
    "dropout": (_number(0, 1), "expected a number from 0 to less than 1"),
    "l2": (_number(0, math.inf), "expected 0 or a positive number, such as 0.01"),
    "standardise": (lambda value: isinstance(value, bool), "expected true or false"),
}
_LOGISTIC = ("kind", "pooling")
_REQUIRED = ("pooling", "units", "learning_rate")


def read(path: Path, taken: Sequence[str]) -> list[Spec]:
    """Return the heads that a file defines, in the order of the file.

    Args:
        taken: names that are already in use.

    Raises:
        VggftError: the file is missing or is not TOML, or a key or value is invalid; the message gives line and key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise VggftError(f"--grid {path}: cannot read the file ({error}). Expected a TOML file.") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VggftError(f"--grid {path}: not valid TOML: {error}.") from None
    specs: list[Spec] = []
    seen = set(taken)
    for name, table in tables.items():
        for spec in _heads(path, text, name, table):
            if spec.name in seen:
                raise VggftError(
                    f"{_at(path, text, name)}: the name {spec.name!r} is already in use: by a default head, by another head in "
                    "this file, or as a value of finetune --from. Choose another name."
                )
            seen.add(spec.name)
            specs.append(spec)
    if not 1 <= len(specs) <= _MAX_HEADS:
        raise VggftError(f"--grid {path}: {len(specs)} heads, expected 1 to {_MAX_HEADS}: one [name] table per head.")
    return specs


def _heads(path: Path, text: str, name: str, table: Any) -> list[Spec]:
    """Return the heads of one table: one for each combination of listed values."""

    def invalid(key: str | None, reason: str) -> VggftError:
        return VggftError(f"{_at(path, text, name, key)}: {reason}.")

    _check(name, table, invalid)
    specs: list[Spec] = []
    for values in _combinations(table):
        head = "-".join([name, *(f"{key}{values[key]}" for key in table if isinstance(table[key], list))])
        if not NAME.fullmatch(head):
            raise invalid(None, f"{head!r} is not a valid head name. Expected {NAMES}")
        if table.get("kind") == "logistic":
            specs.append(LogisticSpec(head, values["pooling"]))
            continue
        if not values["units"] and values.get("dropout"):
            if not isinstance(table["units"], list):
                raise invalid("dropout", f"{head!r} is linear (units = 0), so it has no dropout. Remove one of them")
            values["dropout"] = 0.0  # in a list of units, the linear head is kept without dropout
        specs.append(DenseSpec(head, **{key: value for key, value in values.items() if key != "kind"}))
    return specs


def _check(name: str, table: Any, invalid: Callable[[str | None, str], VggftError]) -> None:
    """Raise `invalid(key, reason)` for the first error in a table; key None means the table itself."""
    if not isinstance(table, dict):
        raise invalid(
            None, f"{name!r} is not a table. Expected [name] tables, in single brackets, with {', '.join(_DENSE)}"
        )
    if not NAME.fullmatch(name):
        raise invalid(None, f"{name!r} is not a valid head name. Expected {NAMES}")
    known: Sequence[str] = _LOGISTIC if table.get("kind") == "logistic" else tuple(_DENSE)
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(known)}"
            raise invalid(key, f"unknown key {key!r} of {name!r}; {hint}")
        is_valid, expected = _DENSE[key]
        for item in value if isinstance(value, list) and value and key != "kind" else [value]:
            if not is_valid(item):
                raise invalid(key, f"{key} = {item!r} of {name!r}; {expected}")
    for key in _LOGISTIC[1:] if known is _LOGISTIC else _REQUIRED:
        if key not in table:
            raise invalid(None, f"{name!r} has no {key!r}; {_DENSE[key][1]}")
    number = math.prod(len(value) for value in table.values() if isinstance(value, list))
    if number > _MAX_HEADS:
        raise invalid(None, f"{name!r} defines {number} heads, expected at most {_MAX_HEADS}")


def _combinations(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = [value if isinstance(value, list) else [value] for value in table.values()]
    return [dict(zip(table, values, strict=True)) for values in itertools.product(*choices)]


def _at(path: Path, text: str, table: str, key: str | None = None) -> str:
    """Return file and line of a table, or of a key in it; tomllib does not provide line numbers."""
    lines = text.splitlines()
    header = re.compile(rf"""\s*(\[\s*["']?{re.escape(table)}["']?\s*\]|["']?{re.escape(table)}["']?\s*[=.])""")
    first = next((i for i, line in enumerate(lines) if header.match(line)), 0)
    if key is not None:
        entry = re.compile(rf"""((^|[\s{{,.])["']?{re.escape(key)}["']?\s*=)|(\.["']?{re.escape(key)}["']?\s*\])""")
        first = next((i for i in range(first, len(lines)) if entry.search(lines[i].partition("#")[0])), first)
    return f"--grid {path}, line {first + 1}"
