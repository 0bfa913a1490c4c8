"""Every combination of some options, written as text: "optimizer=sgd,adam lr=1e-3,3e-4"."""

import difflib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from featurize.errors import VggftError
from featurize.options import Field

_MOST = 100  # more is probably a mistake


def combined(where: str, text: str, fields: Sequence[Field], fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the combinations that a text stands for, each name → value; the last option varies fastest.

    Args:
        where: flag of the option that holds the text, for messages.
        fields: options that may be combined, named as on the command line without dashes.
        fixed: options that have a value already.

    Raises:
        VggftError: not of that form, an unknown or repeated option, one that is fixed, a value that is not allowed, or too many
            combinations.
    """
    known = {field.flag.lstrip("-"): field for field in fields}
    values: dict[str, list[Any]] = {}
    for part in text.split():
        key, equals, listed = part.partition("=")
        texts = listed.split(",")
        if not equals or not all(texts):
            raise VggftError(f"{where}: {part!r}: expected an option and its values, such as lr=1e-3,3e-4.")
        if key.replace("_", "-") not in known:
            close = difflib.get_close_matches(key, known, 1)
            expected = f"Did you mean {close[0]}?" if close else f"Expected {', '.join(known)}."
            raise VggftError(f"{where}: unknown option {key!r}. {expected}")
        field = known[key.replace("_", "-")]
        if field.name in values:
            raise VggftError(f"{where}: {key} is given twice. List its values together: {key}=A,B.")
        if field.name in fixed:
            raise VggftError(f"{where}: {key} is also given as {field.flag}. Leave out one of them.")
        try:
            values[field.name] = list(dict.fromkeys(field.checked(field.parse(value)) for value in texts))
        except VggftError as error:
            raise VggftError(f"{where}: {error}") from None
    number = math.prod(map(len, values.values()))
    if not values or number > _MOST:
        raise VggftError(
            f"{where} {text!r}: {number if values else 0} combinations; expected 1 to {_MOST}, such as "
            '"optimizer=sgd,adam lr=1e-3,3e-4".'
        )
    return [dict(zip(values, combination, strict=True)) for combination in itertools.product(*values.values())]
