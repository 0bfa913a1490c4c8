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
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featurize.errors import VggftError, reason
from featurize.options import described
from heads.specs import NAME, NAMES, DenseSpec, LogisticSpec, Spec

_MAX_HEADS = 1000  # in one file; more is probably a mistake
_KINDS: dict[str, type[DenseSpec] | type[LogisticSpec]] = {"dense": DenseSpec, "logistic": LogisticSpec}


def read(path: Path, taken: Sequence[str]) -> list[Spec]:
    """Return the heads that a file defines, in the order of the file.

    Args:
        taken: names that are already in use.

    Raises:
        VggftError: the file is missing or is not TOML, or a key or value is invalid; the message gives table and key.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise VggftError(f"--grid {path}: cannot read the file ({reason(error)}). Expected a TOML file.") from None
    except tomllib.TOMLDecodeError as error:
        raise VggftError(f"--grid {path}: not valid TOML: {error}.") from None
    except ValueError:  # Python's limit for the digits of a whole number
        raise VggftError(f"--grid {path}: a number has too many digits. Expected numbers of at most 64 bits.") from None
    except RecursionError:
        raise VggftError(f"--grid {path}: nested too deeply. Expected [name] tables.") from None
    specs: list[Spec] = []
    names = set(taken)
    for table, values in tables.items():
        for spec in _heads(f"--grid {path}, [{table}]", table, values):
            if spec.name in names:
                raise VggftError(
                    f"--grid {path}, [{table}]: the name {spec.name!r} is already in use: by a default head, by another head in "
                    "this file, or as a value of finetune --from. Choose another name."
                )
            names.add(spec.name)
            specs.append(spec)
    if not 1 <= len(specs) <= _MAX_HEADS:
        raise VggftError(
            f"--grid {path}: {len(specs)} heads; expected 1 to {_MAX_HEADS}, with one [name] table for each."
        )
    return specs


def _heads(where: str, name: str, table: Any) -> list[Spec]:
    """Return the heads of one table, one for each combination of the values that it lists."""
    if not isinstance(table, dict):
        raise VggftError(f"{where}: not a table. Expected [name] tables, in single brackets.")
    kind = table.get("kind", "dense")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise VggftError(f"{where}: kind = {kind!r}; expected {' or '.join(_KINDS)}.")
    choices = _choices(where, _KINDS[kind], {key: value for key, value in table.items() if key != "kind"})
    number = math.prod(map(len, choices.values()))
    if number > _MAX_HEADS:
        raise VggftError(f"{where}: {number} heads; expected {_MAX_HEADS} at most.")
    specs = []
    for combination in itertools.product(*choices.values()):
        values = dict(zip(choices, combination, strict=True))
        full_name = "-".join(
            [name, *(f"{key}{value}" for key, value in values.items() if isinstance(table[key], list))]
        )
        if not NAME.fullmatch(full_name):
            raise VggftError(f"{where}: {full_name!r} is not a valid head name. Expected {NAMES}.")
        if values.get("units") == 0 and values.get("dropout"):
            if not isinstance(table["units"], list):
                raise VggftError(f"{where}: units = 0 is a linear head, which has no dropout. Set one of them.")
            values["dropout"] = 0.0  # in a family of heads, the linear one has none
        specs.append(_KINDS[kind](full_name, **values))
    return specs


def _choices(where: str, spec: type[DenseSpec] | type[LogisticSpec], table: dict[str, Any]) -> dict[str, list[Any]]:
    """Return key → its values, each checked by the field of that name."""
    fields = {field.attribute: field for field in described(spec) if field.attribute != "name"}
    for key in table:
        if key not in fields:
            close = difflib.get_close_matches(key, fields, 1)
            expected = f"Did you mean {close[0]!r}?" if close else f"Expected kind, {', '.join(fields)}."
            raise VggftError(f"{where}: unknown key {key!r}. {expected}")
    for key, field in fields.items():
        if field.required and key not in table:
            raise VggftError(f"{where}: {key!r} is missing; expected {field.expected}.")
    choices = {}
    for key, value in table.items():
        choices[key] = value if isinstance(value, list) and value else [value]
        for item in choices[key]:
            try:
                fields[key].checked(item)
            except VggftError:
                raise VggftError(f"{where}: {key} = {item!r}; expected {fields[key].expected.lower()}.") from None
    return choices
