"""The allowed values of a dataclass field, as part of its type annotation.

    num_envs: Annotated[int, Whole(1)] = 64

`check_ranges` compares the values of a dataclass with the ranges of its fields. Fields
whose type is `bool`, a `Literal` or another dataclass need no range.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from purejaxppo.errors import ConfigError


class Range:
    """The allowed values of a field."""

    @property
    def allowed(self) -> str:
        """The allowed values in words, to complete the sentence "allowed is ..."."""
        raise NotImplementedError

    def holds(self, value: object) -> bool:
        """Return whether the value is allowed."""
        raise NotImplementedError

    def check(self, field: str, value: object) -> None:
        """Compare the value of a field with the range.

        Raises:
          ConfigError: the value is not allowed.
        """
        if not self.holds(value):
            raise ConfigError(field, value, self.allowed)


@dataclasses.dataclass(frozen=True)
class Whole(Range):
    """Whole numbers of at least `low` and below `below`.

    The default of `below` keeps the number within int32, the dtype of counters.
    """

    low: int = 0
    below: int = 2**31

    @property
    def allowed(self) -> str:
        return f"a whole number {self.bounds}"

    @property
    def bounds(self) -> str:
        """The bounds in words."""
        power = self.below.bit_length() - 1
        below = f"2**{power}" if self.below == 2**power else str(self.below)
        return f"of at least {self.low} and below {below}"

    def holds(self, value: object) -> bool:
        # bool is a subclass of int, so True would pass as 1.
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value < self.below


@dataclasses.dataclass(frozen=True)
class Number(Range):
    """Numbers in [low, high], and `off`, an infinity that means no limit."""

    low: float
    high: float
    off: float | None = None

    @property
    def allowed(self) -> str:
        interval = f"a number in [{_text(self.low)}, {_text(self.high)}]"
        return interval if self.off is None else f"{interval}, or {self.off} for none"

    def holds(self, value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return self.low <= value <= self.high or value == self.off  # NaN is neither


@dataclasses.dataclass(frozen=True)
class Traced(Number):
    """Numbers that may also be arrays, either traced or with an axis for `vmap`.

    An array is always allowed, because its values are not known before compilation.
    """

    def holds(self, value: object) -> bool:
        is_array = hasattr(value, "shape") and not isinstance(value, float)
        return is_array or super().holds(value)


@dataclasses.dataclass(frozen=True)
class Widths(Range):
    """One or more widths of layers."""

    each: Whole = Whole(1, 2**16)

    @property
    def allowed(self) -> str:
        return f"one or more whole numbers {self.each.bounds}"

    def holds(self, value: object) -> bool:
        if not isinstance(value, tuple) or not value:
            return False
        return all(self.each.holds(size) for size in value)


@dataclasses.dataclass(frozen=True)
class PerHead(Range):
    """A dictionary from the names of action heads to values of one range."""

    each: Range

    @property
    def allowed(self) -> str:
        return "a dictionary from names of heads to numbers"

    def holds(self, value: object) -> bool:
        return isinstance(value, Mapping) and all(isinstance(x, str) for x in value)

    def check(self, field: str, value: object) -> None:
        super().check(field, value)
        assert isinstance(value, Mapping)
        for head, number in value.items():
            self.each.check(f"{field}.{head}", number)


class Arguments(Range):
    """Keyword arguments of a function."""

    @property
    def allowed(self) -> str:
        return "a dictionary from names of arguments to values"

    def holds(self, value: object) -> bool:
        return isinstance(value, Mapping) and all(isinstance(x, str) for x in value)


class Text(Range):
    """Strings of one line: no file name needs a control character."""

    @property
    def allowed(self) -> str:
        return "a string without control characters"

    def holds(self, value: object) -> bool:
        if not isinstance(value, str):
            return False
        return not any(character < " " or character == "\x7f" for character in value)


@dataclasses.dataclass(frozen=True)
class OneOfOrFactory(Range):
    """One of some names, or a "package.module:factory"."""

    names: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join((*self.names, "package.module:factory"))

    def holds(self, value: object) -> bool:
        return isinstance(value, str) and (value in self.names or ":" in value)


class _Truth(Range):
    @property
    def allowed(self) -> str:
        return "True or False"

    def holds(self, value: object) -> bool:
        return isinstance(value, bool)


@dataclasses.dataclass(frozen=True)
class _OneOf(Range):
    options: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return "one of " + ", ".join(self.options)

    def holds(self, value: object) -> bool:
        return isinstance(value, str) and value in self.options


@dataclasses.dataclass(frozen=True)
class _Nested(Range):
    cls: type

    @property
    def allowed(self) -> str:
        return f"an instance of {self.cls.__name__}"

    def holds(self, value: object) -> bool:
        return isinstance(value, self.cls)

    def check(self, field: str, value: object) -> None:
        super().check(field, value)
        check_ranges(value)


@functools.cache
def ranges_of(cls: type) -> dict[str, Range]:
    """Return the range of every field of a dataclass.

    Raises:
      TypeError: a field has no range.
    """
    hints = get_type_hints(cls, include_extras=True)
    return {name: _range_of(name, hints[name]) for name in field_names(cls)}


def field_names(cls: type) -> list[str]:
    """Return the names of a dataclass's fields, in the order of definition."""
    assert dataclasses.is_dataclass(cls)
    return [field.name for field in dataclasses.fields(cls)]


def check_ranges(instance: object) -> None:
    """Compare every field of a dataclass with its range.

    Raises:
      ConfigError: the first field whose value is not allowed.
    """
    for name, range_ in ranges_of(type(instance)).items():
        range_.check(name, getattr(instance, name))


def _range_of(name: str, hint: object) -> Range:
    origin = get_origin(hint)
    if origin is Annotated:
        found = [entry for entry in get_args(hint) if isinstance(entry, Range)]
        if len(found) == 1:
            return found[0]
    if origin is Literal:
        return _OneOf(get_args(hint))
    if hint is bool:
        return _Truth()
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _Nested(hint)
    raise TypeError(f"the field {name} has no range")


def _text(number: float) -> str:
    """Format a number without the padding of its exponent: 1e-9, 1e6."""
    assert math.isfinite(number)
    return f"{number:g}".replace("e-0", "e-").replace("e+0", "e")
