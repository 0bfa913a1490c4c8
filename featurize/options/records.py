"""Records on disk → dataclasses: a value is checked against the type and bounds of its field before anything uses it.

    build(Epoch, {"epoch": 1, "val_log_loss": 0.3, …}) → Epoch(epoch=1, val_log_loss=0.3, …)

Bounds are written as in options: `Annotated[float, Option(least=0, most=1)]`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from featurize.errors import VggftError
from featurize.options import Option, is_usable

Share = Annotated[float, Option(least=0, most=1)]
AtLeast0 = Annotated[float, Option(least=0)]
Count = Annotated[int, Option(least=0)]
Positive = Annotated[int, Option(least=1)]
AtLeast1 = Annotated[float, Option(least=1)]

_Reader = Callable[[Any], Any]
_Record = TypeVar("_Record")

_NAMES = {
    int: "a whole number of at most 64 bits",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    NoneType: "null",
}


def build(kind: type[_Record], stored: Any) -> _Record:
    """Return the dataclass that JSON (or a row of CSV, its numbers parsed) stands for. Lists become tuples.

    Raises:
        ValueError: an unknown or missing field, a wrong type, a number that is not finite or out of bounds, or anything that
            the class itself refuses.
    """
    record: _Record = _reader(kind)(stored)  # type: ignore[arg-type]
    return record


@cache
def _reader(hint: Any) -> _Reader:
    """Return a function that checks a value against a type hint, and converts it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _pair(arguments)
    for origins, make in (
        ((Annotated,), lambda: _bounded(_reader(arguments[0]), hint.__metadata__)),
        ((Union, UnionType), lambda: _union(arguments)),
        ((Literal,), lambda: _literal(arguments)),
        ((tuple, Sequence), lambda: _many(_reader(arguments[0]))),
        ((Mapping,), lambda: _mapping(_reader(arguments[1]))),
    ):
        if origin in origins:
            return make()  # type: ignore[no-untyped-call]
    if hint is Any:
        return lambda value: value
    return _dataclass(hint) if dataclasses.is_dataclass(hint) else _scalar(hint)


def _scalar(kind: type) -> _Reader:
    def read(value: Any) -> Any:
        if kind is str and isinstance(value, str):  # most cells of a table
            return value
        accepted = (int, float) if kind is float else kind
        right = isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
        if not right or (kind in (int, float) and not is_usable(value)):
            raise ValueError(f"{_shown(value)} instead of {_NAMES[kind]}")
        return float(value) if kind is float else value

    return read


def _literal(choices: tuple[Any, ...]) -> _Reader:
    def read(value: Any) -> Any:
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            raise ValueError(f"{_shown(value)} instead of {' or '.join(map(str, choices))}")
        return value

    return read


def _bounded(read_value: _Reader, metadata: tuple[Any, ...]) -> _Reader:
    (option,) = (extra for extra in metadata if isinstance(extra, Option))

    def read(value: Any) -> Any:
        result = read_value(value)
        if isinstance(result, (int, float)) and not isinstance(result, bool) and not option.allows(result):
            raise ValueError(f"{_shown(value)} instead of {option.bounds}")
        return result

    return read


def _union(kinds: tuple[Any, ...]) -> _Reader:
    readers = [_reader(kind) for kind in kinds if kind is not NoneType]

    def read(value: Any) -> Any:
        if value is None and len(readers) < len(kinds):
            return None
        for reader in readers[:-1]:
            try:
                return reader(value)
            except ValueError:
                continue
        return readers[-1](value)

    return read


def _pair(kinds: tuple[Any, ...]) -> _Reader:
    readers = [_reader(kind) for kind in kinds]

    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != len(readers):
            raise ValueError(f"{_shown(value)} instead of a list of {len(readers)}")
        return tuple(reader(item) for reader, item in zip(readers, value, strict=True))

    return read


def _many(read_item: _Reader) -> _Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{_shown(value)} instead of a list")
        return tuple(map(read_item, value))

    return read


def _mapping(read_item: _Reader) -> _Reader:
    def read(value: Any) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ValueError(f"{_shown(value)} instead of an object")
        return {key: read_item(item) for key, item in value.items()}

    return read


def _dataclass(kind: Any) -> _Reader:
    hints = get_type_hints(kind, include_extras=True)
    fields = {field.name: _reader(hints[field.name]) for field in dataclasses.fields(kind) if field.init}
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"{_shown(value)} instead of an object")
        if not required <= value.keys() <= fields.keys():
            missing, unknown = required - value.keys(), value.keys() - fields.keys()
            problems = [f"no {name}" for name in sorted(missing)] + [
                f"unknown {name}" for name in sorted(map(str, unknown))
            ]
            raise ValueError(", ".join(problems))
        values = {}
        for name, item in value.items():
            try:
                values[name] = fields[name](item)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        try:
            return kind(**values)
        except VggftError as error:
            raise ValueError(str(error)) from None

    return read


def _shown(value: Any) -> str:
    """Return a value of a damaged file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
