"""Signatures and docstrings of methods that take the options of a step, made from these options."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from featurize.options import Field, Options, offered

_Method = TypeVar("_Method", bound=Callable[..., Any])


def takes(options: type[Options]) -> Callable[[_Method], _Method]:
    """Show the options as parameters of a method that passes its keyword arguments to `options.of`."""

    def documented(method: _Method) -> _Method:
        declared = inspect.signature(method)
        explicit = [
            parameter for parameter in declared.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD
        ]
        shown = [*explicit, *(_parameter(field) for field in offered(options) if not field.required)]
        method.__signature__ = declared.replace(parameters=shown)  # type: ignore[attr-defined]
        arguments = "\n".join(f"    {field.name}: {description(field)}" for field in offered(options))
        method.__doc__ = f"{inspect.getdoc(method)}\n\nArgs:\n{arguments}"
        return method

    return documented


def description(field: Field) -> str:
    """Return help text, allowed values and the meaning of None."""
    usual = f" None: {field.usual}." if field.default is None and field.usual else ""
    return f"{field.description}{usual}"


def _parameter(field: Field) -> inspect.Parameter:
    kind: Any = Literal[field.choices] if field.choices else field.kind
    if field.kind is Path:
        kind = str | Path
    if field.many:
        kind = Sequence[kind]
    if field.default is None:
        kind = kind | None
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kind)
