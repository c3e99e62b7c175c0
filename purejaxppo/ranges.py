"""What a field of a configuration may hold, written beside the field.

    num_envs: Annotated[int, Whole(1)] = 64

`check_ranges` reads the ranges of a dataclass and compares its values with them.
Fields of type `bool`, of a `Literal` or of another dataclass need no range.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

from purejaxppo.errors import ConfigError


class Range:
    """The values that one field may hold."""

    @property
    def allowed(self) -> str:
        """What is allowed, so that "allowed is ..." is a sentence."""
        raise NotImplementedError

    def holds(self, value: object) -> bool:
        """Whether the value is inside."""
        raise NotImplementedError

    def check(self, field: str, value: object) -> None:
        """Compare a value with the range.

        Raises:
          ConfigError: it is outside.
        """
        if not self.holds(value):
            raise ConfigError(field, value, self.allowed)


@dataclasses.dataclass(frozen=True)
class Whole(Range):
    """Whole numbers from `low` up, all of them below `below`.

    The default of `below` is the number of positive int32, which arrays count in.
    """

    low: int = 0
    below: int = 2**31

    @property
    def allowed(self) -> str:
        return f"a whole number {self.bounds}"

    @property
    def bounds(self) -> str:
        """The bounds alone, in words."""
        power = self.below.bit_length() - 1
        below = f"2**{power}" if self.below == 2**power else str(self.below)
        return f"of at least {self.low} and below {below}"

    def holds(self, value: object) -> bool:
        # True is an int.
        if not isinstance(value, int) or isinstance(value, bool):
            return False
        return self.low <= value < self.below


@dataclasses.dataclass(frozen=True)
class Number(Range):
    """Numbers in [low, high], and the infinity `off` that switches a limit off."""

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
    """The same for a number that may be an array: traced, or one value per member of
    a `vmap`. The values of arrays are not known on the host and pass."""

    def holds(self, value: object) -> bool:
        is_array = hasattr(value, "shape") and not isinstance(value, float)
        return is_array or super().holds(value)


@dataclasses.dataclass(frozen=True)
class Widths(Range):
    """One or more sizes of layers."""

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
    """Any string."""

    @property
    def allowed(self) -> str:
        return "a string"

    def holds(self, value: object) -> bool:
        return isinstance(value, str)


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
    """Field -> its range, for every field of a dataclass.

    Raises:
      TypeError: a field that has none.
    """
    hints = get_type_hints(cls, include_extras=True)
    return {name: _range_of(name, hints[name]) for name in field_names(cls)}


def field_names(cls: type) -> list[str]:
    """The names of a dataclass's fields, in their order."""
    assert dataclasses.is_dataclass(cls)
    return [field.name for field in dataclasses.fields(cls)]


def check_ranges(instance: object) -> None:
    """Compare every field of a dataclass with its range.

    Raises:
      ConfigError: the first field whose value is outside.
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
    """1e-09 and 1e+06 as one writes them."""
    assert math.isfinite(number)
    return f"{number:g}".replace("e-0", "e-").replace("e+0", "e")
