"""Heads that a person defines in a TOML file: a table a head, a list of values for one head of each.

[wide]                      # the name
pooling = "max"             # flatten, avg, max or avgmax
units = [256, 1024]         # 0: linear; two values: two heads, wide-units256 and wide-units1024
learning_rate = 1e-3
dropout = 0.5               # optional, as are l2 and standardise

[baseline]
kind = "logistic"           # the default is "dense"
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

_MOST = 1000  # heads in one file: more is a slip


def _number(low: float, high: float) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and low <= value < high
    )


# Key → what it may be, and how that is said.
_DENSE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "kind": (lambda value: value in ("dense", "logistic"), 'expected "dense" or "logistic"'),
    "pooling": (lambda value: value in get_args(Pooling), 'expected "flatten", "avg", "max" or "avgmax"'),
    "units": (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 8192,
        "expected a whole number from 0 (linear) to 8192",
    ),
    "learning_rate": (lambda value: value != 0 and _number(0, 10)(value), "expected a number above 0, such as 1e-3"),
    "dropout": (_number(0, 1), "expected a number from 0 up to, but not including, 1"),
    "l2": (_number(0, math.inf), "expected a number from 0 up, such as 0.01"),
    "standardise": (lambda value: isinstance(value, bool), "expected true or false"),
}
_LOGISTIC = ("kind", "pooling")
_REQUIRED = ("pooling", "units", "learning_rate")


def read(path: Path, taken: Sequence[str]) -> list[Spec]:
    """Return the heads that a file defines, in its order.

    Args:
        taken: names that it must not use again.

    Raises:
        VggftError: no such file, no TOML, or a key or value that means nothing; with line and key.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise VggftError(f"--grid {path}: cannot be read ({error}). Expected a TOML file.") from None
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise VggftError(f"--grid {path}: no TOML: {error}.") from None
    specs: list[Spec] = []
    seen = set(taken)
    for name, table in tables.items():
        for spec in _heads(path, text, name, table):
            if spec.name in seen:
                raise VggftError(
                    f"{_at(path, text, name)}: the name {spec.name!r} is taken: by a default head, in this file, or as a word "
                    "of finetune --from. Choose another"
                )
            seen.add(spec.name)
            specs.append(spec)
    if not 1 <= len(specs) <= _MOST:
        raise VggftError(
            f"--grid {path}: defines {len(specs)} heads, expected 1 to {_MOST}: one [name] table for each."
        )
    return specs


def _heads(path: Path, text: str, name: str, table: Any) -> list[Spec]:
    """Return the heads of one table, one for each combination of the values that it lists."""

    def wrong(key: str | None, why: str) -> VggftError:
        return VggftError(f"{_at(path, text, name, key)}: {why}.")

    _check(name, table, wrong)
    specs: list[Spec] = []
    for values in _combinations(table):
        own = "-".join([name, *(f"{key}{values[key]}" for key in table if isinstance(table[key], list))])
        if not NAME.fullmatch(own):
            raise wrong(None, f"{own!r} cannot be a head's name: {NAMES}")
        if table.get("kind") == "logistic":
            specs.append(LogisticSpec(own, values["pooling"]))
            continue
        if not values["units"] and values.get("dropout"):
            if not isinstance(table["units"], list):
                raise wrong("dropout", f"{own!r} is linear (units = 0) and has no dropout; set one of them")
            values["dropout"] = 0.0  # of a family of heads, the linear one has none
        specs.append(DenseSpec(own, **{key: value for key, value in values.items() if key != "kind"}))
    return specs


def _check(name: str, table: Any, wrong: Callable[[str | None, str], VggftError]) -> None:
    """Raise what `wrong` makes of a key and a reason, if there is anything wrong with a table."""
    if not isinstance(table, dict):
        raise wrong(None, f"{name!r} is no table. Expected [name] tables, in single brackets, with {', '.join(_DENSE)}")
    if not NAME.fullmatch(name):
        raise wrong(None, f"{name!r} cannot be a head's name. Expected {NAMES}")
    known: Sequence[str] = _LOGISTIC if table.get("kind") == "logistic" else tuple(_DENSE)
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"expected {', '.join(known)}"
            raise wrong(key, f"unknown key {key!r} of {name!r}; {hint}")
        valid, expected = _DENSE[key]
        for one in value if isinstance(value, list) and value and key != "kind" else [value]:
            if not valid(one):
                raise wrong(key, f"{key} = {one!r} of {name!r}; {expected}")
    for key in _LOGISTIC[1:] if known is _LOGISTIC else _REQUIRED:
        if key not in table:
            raise wrong(None, f"{name!r} has no {key!r}; {_DENSE[key][1]}")
    number = math.prod(len(value) for value in table.values() if isinstance(value, list))
    if number > _MOST:
        raise wrong(None, f"{name!r} makes {number} heads, expected {_MOST} at most")


def _combinations(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    choices = [value if isinstance(value, list) else [value] for value in table.values()]
    return [dict(zip(table, values, strict=True)) for values in itertools.product(*choices)]


def _at(path: Path, text: str, table: str, key: str | None = None) -> str:
    """Return file and line of a table, or of a key in it: the parser does not say."""
    lines = text.splitlines()
    header = re.compile(rf"""\s*(\[\s*["']?{re.escape(table)}["']?\s*\]|["']?{re.escape(table)}["']?\s*[=.])""")
    first = next((i for i, line in enumerate(lines) if header.match(line)), 0)
    if key is not None:
        entry = re.compile(rf"""((^|[\s{{,.])["']?{re.escape(key)}["']?\s*=)|(\.["']?{re.escape(key)}["']?\s*\])""")
        first = next((i for i in range(first, len(lines)) if entry.search(lines[i].partition("#")[0])), first)
    return f"--grid {path}, line {first + 1}"
