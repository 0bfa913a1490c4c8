"""Options: fields of a dataclass with help text and bounds beside them, checked wherever the values come from.

    @dataclass(frozen=True)
    class Plan(Options):
        epochs: Annotated[int, Option("Maximum number of epochs.", least=1)] = 10
        optimizer: Annotated[Literal["sgd", "adam"], Option("Optimizer.")] = "sgd"

The command line, the signatures of `vggft.Experiment` and the reference in the documentation are made from these fields:
name, type, default, bounds and help text of an option are written here and nowhere else. A field that is itself such a
dataclass contributes its options. A field without an `Option` is checked too, but no command offers it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from featurize.errors import VggftError
from featurize.process import places

_UNITS = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

# Type of a value → what is accepted for it (NumPy's numbers, too), what that is called, and its placeholder in usage lines.
_KINDS: dict[type, tuple[Any, str, str]] = {
    bool: (bool, "True or False", ""),
    int: (Integral, "a whole number", "N"),
    float: (Real, "a number", "NUMBER"),
    str: (str, "text", "TEXT"),
    Path: ((str, Path), "a path", "PATH"),
}


@dataclass(frozen=True)
class Option:
    """What a field's type and default do not say.

    Attributes:
        help: a sentence or two; empty: no command offers the field.
        name: in Python, and with dashes on the command line; empty: the field's name.
        flag: on the command line, where the name cannot be used.
        short: one-letter flag.
        environment: variable that the command line reads where the option is not given.
        metavar: placeholder in usage lines; empty: by type.
        default: what leaving the option out means, in words, where the field's default does not tell.
        least, most: inclusive bounds; above, below: exclusive bounds.
        off: a value outside the bounds that switches the feature off.
        memory: a number of bytes, which may be written like 2GB.
        argument: given without a flag on the command line, though it may be left out.
    """

    help: str = ""
    name: str = ""
    flag: str = ""
    short: str = ""
    environment: str = ""
    metavar: str = ""
    default: str = ""
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None
    off: int | None = None
    memory: bool = False
    argument: bool = False

    def allows(self, value: Any) -> bool:
        """Return whether a number is within the bounds."""
        return value == self.off or (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    @property
    def bounds(self) -> str:
        """The bounds in words; empty where there are none."""
        off = f", or {self.off} (off)" if self.off is not None else ""
        if self.least is not None and self.most is not None:
            return f"{self.least} to {self.most}{off}"
        parts = []
        if self.least is not None:
            parts.append(f"{self.least} or more")
        for word, bound in (("above", self.above), ("at most", self.most), ("below", self.below)):
            if bound is not None:
                parts.append(f"{word} {bound}")
        return " and ".join(parts) + off


@dataclass(frozen=True)
class Field:
    """One field of a class below, its annotation taken apart.

    Attributes:
        attribute: the field's name in the class.
        kind: type of a single value; any type that is not in `_KINDS` is not checked.
        choices: the only values allowed; empty: all of the type.
        many: a tuple of such values.
        default: `dataclasses.MISSING` for an argument, which has none.
    """

    attribute: str
    kind: type
    choices: tuple[str, ...]
    many: bool
    default: Any
    option: Option

    @property
    def name(self) -> str:
        """The name in Python."""
        return self.option.name or self.attribute

    @property
    def required(self) -> bool:
        """True if there is no default."""
        return self.default is MISSING

    @property
    def argument(self) -> bool:
        """True for an argument, False for an option."""
        return self.required or self.option.argument

    @property
    def flag(self) -> str:
        """The name on the command line, and in every message."""
        if not self.option.help:
            return self.attribute
        return self.option.metavar if self.argument else self.option.flag or f"--{self.name.replace('_', '-')}"

    @property
    def metavar(self) -> str:
        """Placeholder of the value in usage lines; empty for a switch."""
        return self.option.metavar or "|".join(self.choices) or ("SIZE" if self.option.memory else _KINDS[self.kind][2])

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return " or ".join(part for part in (", ".join(self.choices[:-1]), self.choices[-1]) if part)
        if self.option.memory:
            return "an amount of memory, such as 2GB or 500MB"
        return ", ".join(part for part in (_KINDS[self.kind][1], self.option.bounds) if part)

    @property
    def description(self) -> str:
        """Help text and bounds."""
        bounds = self.option.bounds
        return self.option.help + (f" {bounds[0].upper()}{bounds[1:]}." if bounds else "")

    @property
    def usual(self) -> str:
        """The default in words; empty where there is nothing to say."""
        if self.option.default or self.argument or self.kind is bool:
            return self.option.default
        if self.many:
            return ", ".join(self.default)
        if self.default is None:
            return ""
        return f"{self.default} (off)" if self.default == self.option.off else _shown(self.default)

    def parse(self, text: Any) -> Any:
        """Return the value that a text (or a list of them, or a switch) of the command line stands for, not yet checked.

        Raises:
            VggftError: not a number where one is expected.
        """
        if isinstance(text, list):
            return [self.parse(item) for item in text]
        if self.kind not in (int, float) or self.option.memory:
            return text
        try:
            return self.kind(text)
        except ValueError:
            raise self._wrong(text) from None

    def checked(self, value: Any) -> Any:
        """Return a value as the field holds it.

        Raises:
            VggftError: the wrong type, out of bounds, or none of the choices.
        """
        if self.kind not in _KINDS or (value is None and self.default is None):
            return value
        if not self.many:
            return self._one(value)
        if isinstance(value, (str, Path)):
            return (self._one(value),)
        if not isinstance(value, Iterable):
            raise self._wrong(value)
        return tuple(self._one(item) for item in value)

    def _one(self, value: Any) -> Any:
        if value == "" and self.kind is Path:  # what an unset variable of a shell gives; the current folder to pathlib
            raise VggftError(f"{self.flag}: an empty path, perhaps from an unset variable. Expected a path.")
        try:
            read = number_of_bytes(value) if self.option.memory and isinstance(value, str) else value
        except (ValueError, OverflowError):
            raise self._wrong(value) from None
        right = isinstance(read, _KINDS[self.kind][0]) and isinstance(read, bool) == (self.kind is bool)
        if right and self.kind in (int, float):
            right = is_usable(read) and self.option.allows(read)
        if not right or (self.choices and read not in self.choices):
            raise self._wrong(value)
        if self.kind is not Path:
            return self.kind(read)
        path = Path(value)
        if str(value) != "-" and path == Path("-"):
            return path.absolute()  # "-" is standard input, ./- a file
        # Shells expand ~, but neither in --flag=~/folder nor in Python. A file can be called ~cat.
        return places.expanded(path) if path.parts[:1] == ("~",) else path

    def _wrong(self, value: Any) -> VggftError:
        shown = _shown(value) if self.kind is float and isinstance(value, float) else repr(value)
        return VggftError(f"{self.flag} {shown}: expected {self.expected}.")


def _shown(value: Any) -> str:
    """Return a number as `:g` writes it, unless that is another number."""
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def is_usable(number: float) -> bool:
    """Return whether a number is finite and, if whole, fits into 64 bits: of larger ones no float can be made."""
    return number.bit_length() < 64 if isinstance(number, int) else math.isfinite(number)


def number_of_bytes(text: str) -> int:
    """Read an amount of memory such as 2GB, 500 MB or 1.5GiB.

    Raises:
        ValueError, OverflowError: it is none.
    """
    amount = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?I?B?)", text.strip().upper())
    if amount is None or amount[2] not in _UNITS:
        raise ValueError(text)
    return int(float(amount[1]) * _UNITS[amount[2]])


class Checked:
    """Base of dataclasses whose fields hold only what their annotations allow."""

    def __post_init__(self) -> None:
        for field in described(type(self)):
            object.__setattr__(self, field.attribute, field.checked(getattr(self, field.attribute)))


class Options(Checked):
    """Base of the dataclasses whose fields are options of a command."""

    @classmethod
    def of(cls, **given: Any) -> Self:
        """Return the options with these values, by the names that Python and the command line use; the rest is default.

        Raises:
            TypeError: an unknown name, or an argument that is missing.
            VggftError: a value that is not allowed.
        """
        values = {}
        for field in described(cls):
            if issubclass(field.kind, Options):
                names = {inner.name for inner in offered(field.kind)} & given.keys()
                values[field.attribute] = field.kind.of(**{name: given.pop(name) for name in names})
            elif field.option.help and field.name in given:
                values[field.attribute] = given.pop(field.name)
        if given:
            known = ", ".join(field.name for field in offered(cls))
            raise TypeError(f"unexpected keyword argument {next(iter(given))!r}; expected one of {known}")
        return cls(**values)

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Self:
        """Return the options that texts, lists of texts and switches from the command line stand for; other names are ignored.

        Raises:
            VggftError: a value that is not allowed.
        """
        return cls.of(**{field.name: field.parse(given[field.name]) for field in offered(cls) if field.name in given})


def described(options: type[Checked]) -> Sequence[Field]:
    """Return the fields of a class in their order."""
    hints = get_type_hints(options, include_extras=True)
    return [_field(hints[field.name], field) for field in fields(options)]  # type: ignore[arg-type]


def offered(options: type[Options]) -> Sequence[Field]:
    """Return the arguments and options that a command with these options has, nested ones in their place."""
    collected: list[Field] = []
    for field in described(options):
        collected += offered(field.kind) if issubclass(field.kind, Options) else [field] if field.option.help else []
    return collected


def _field(hint: Any, field: Any) -> Field:
    option = next((extra for extra in getattr(hint, "__metadata__", ()) if isinstance(extra, Option)), Option())
    hint = getattr(hint, "__origin__", hint) if hasattr(hint, "__metadata__") else hint
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    many = get_origin(hint) is tuple
    hint = get_args(hint)[0] if many else hint
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    return Field(field.name, type(choices[0]) if choices else hint, choices, many, field.default, option)
