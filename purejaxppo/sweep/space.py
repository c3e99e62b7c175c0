"""The parameters of a search: `NAME=LOW,HIGH`, `log:`, `int:`, or choices `A|B|C`.

A name is that of any field of `Config` or `Hypers`, or of an entry of a dictionary such
as `env_kwargs.NAME`.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

from purejaxppo.config import Config, Evaluation, value_names, with_overrides
from purejaxppo.errors import ConfigError
from purejaxppo.hypers import Hypers
from purejaxppo.ranges import (
    Arguments,
    PerHead,
    Range,
    Whole,
    Widths,
    check_ranges,
    field_names,
    ranges_of,
)
from purejaxppo.run.flags import parse_value
from purejaxppo.validation import validate

FORMS = "NAME=LOW,HIGH, NAME=log:LOW,HIGH, NAME=int:LOW,HIGH or NAME=A|B|C"
# All trials are compared by the same episodes of the same environment.
_FIXED = ("env", *field_names(Evaluation))
_MOST_CORNERS = 1024  # of a space, that are checked before its study begins
_DICTIONARIES = (Arguments, PerHead)

Drawn = float | int | str  # a value as the study stores it; a choice is its word


@dataclasses.dataclass(frozen=True)
class Interval:
    """Numbers between two ends, both included.

    Attributes:
      name: the field.
      low: the smallest value.
      high: the largest value.
      log: whether its logarithm is drawn uniformly, instead of the number.
      whole: whether only whole numbers are drawn.
    """

    name: str
    low: float
    high: float
    log: bool
    whole: bool

    @property
    def corners(self) -> tuple[Drawn, ...]:
        """The two ends."""
        number = int if self.whole else float
        return number(self.low), number(self.high)

    @property
    def text(self) -> str:
        """What follows NAME= on the command line."""
        kind = "log:" * self.log + "int:" * self.whole
        return f"{kind}{self.corners[0]},{self.corners[1]}"


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values.

    Attributes:
      name: the field.
      corners: the words of all values.
    """

    name: str
    corners: tuple[str, ...]

    @property
    def text(self) -> str:
        """What follows NAME= on the command line."""
        return "|".join(self.corners)


Parameter = Interval | Choice
Space = tuple[Parameter, ...]


def parse(words: Sequence[str]) -> Space:
    """Parse the flags `--param`.

    Args:
      words: the value of each flag.

    Raises:
      ConfigError: there is none, one is of another form, names no field that can be
        searched, or names a field a second time.
    """
    if not words:
        raise ConfigError("param", "", f"at least one {FORMS}")
    space = tuple(_parse_parameter(word) for word in words)
    names = [parameter.name for parameter in space]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("param", name, "each name once")
    return space


def _parse_parameter(word: str) -> Parameter:
    name, _, text = word.partition("=")
    if not name or not text:
        raise ConfigError("param", word, FORMS)
    range_ = _range_of(name)
    if "|" in text:
        choices = tuple(text.split("|"))
        if "" in choices or len(set(choices)) < len(choices):
            raise ConfigError("param", word, "choices that differ and are not empty")
        return Choice(name, choices)
    return _parse_interval(word, name, text, isinstance(range_, Whole))


def _range_of(name: str) -> Range | None:
    """Return the range of a field, None for an entry of a dictionary.

    Raises:
      ConfigError: it is no field that can be searched.
    """
    field, dot, key = name.partition(".")
    if field not in value_names():
        allowed = "a field of Config or Hypers, see python -m purejaxppo.train --help"
        raise ConfigError("param", name, allowed)
    if field in _FIXED:
        allowed = "no field of the environment's name or of the evaluation, which all "
        raise ConfigError("param", name, f"{allowed}trials share")
    range_ = (ranges_of(Config) | ranges_of(Hypers))[field]
    has_entries = isinstance(range_, _DICTIONARIES)
    if has_entries != bool(key) or bool(dot) != bool(key):
        allowed = f"{field}.NAME, one entry of it" if has_entries else field
        raise ConfigError("param", name, allowed)
    return None if has_entries else range_


def _parse_interval(word: str, name: str, text: str, whole: bool) -> Interval:
    kinds = text.split(":")
    ends, kinds = kinds[-1].split(","), kinds[:-1]
    try:
        low, high = map(float, ends)
    except ValueError:
        raise ConfigError("param", word, FORMS) from None
    if not set(kinds) <= {"log", "int"} or len(set(kinds)) < len(kinds):
        raise ConfigError("param", word, FORMS)
    is_log, whole = "log" in kinds, whole or "int" in kinds
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ConfigError("param", word, "two finite numbers, the smaller one first")
    if is_log and low <= 0.0:
        raise ConfigError("param", word, "log: with numbers above 0")
    if whole and not (low.is_integer() and high.is_integer()):
        raise ConfigError("param", word, f"whole numbers for {name}")
    return Interval(name, low, high, is_log, whole)


def overrides(space: Space, drawn: Mapping[str, Drawn]) -> dict[str, object]:
    """Return the values of one trial, by the names of fields.

    Args:
      space: the parameters.
      drawn: name of a parameter -> number, or the word of a choice.
    """
    values: dict[str, object] = {}
    for parameter in space:
        value = _value(parameter, drawn[parameter.name])
        field, _, key = parameter.name.partition(".")
        if key:
            entries = values.setdefault(field, {})
            assert isinstance(entries, dict)
            entries[key] = value
        else:
            values[field] = value
    return values


def _value(parameter: Parameter, drawn: Drawn) -> object:
    if isinstance(parameter, Interval):
        return drawn
    value = parse_value(str(drawn))
    is_widths = isinstance(_range_of(parameter.name), Widths)
    return (value,) if is_widths and isinstance(value, int) else value


def apply(base: Config, space: Space, drawn: Mapping[str, Drawn]) -> Config:
    """Return the configuration of one trial.

    Args:
      base: what the trials have in common.
      space: the parameters.
      drawn: the value of each parameter.
    """
    return with_overrides(base, overrides(space, drawn))


def check(base: Config, space: Space) -> Config:
    """Check the ends and choices of all parameters, and how they go together.

    A combination that is not allowed is no error, as long as each value is part of one
    that is: a trial that draws it fails.

    Args:
      base: what the trials have in common.
      space: the parameters.

    Returns:
      the first combination that is allowed.

    Raises:
      ConfigError: a value that its field does not allow, or that fits to no other.
    """
    for parameter in space:
        for corner in parameter.corners:
            values = overrides((parameter,), {parameter.name: corner})
            check_ranges(with_overrides(base, values))
    first: Config | None = None
    refused: dict[tuple[str, Drawn], ConfigError] = {}
    fits: set[tuple[str, Drawn]] = set()
    for corners in itertools.islice(_combinations(space), _MOST_CORNERS):
        config = apply(base, space, corners)
        try:
            validate(config)
        except ConfigError as error:
            refused |= {item: error for item in corners.items() if item not in refused}
        else:
            first = first or config
            fits |= set(corners.items())
    is_whole = math.prod(len(p.corners) for p in space) <= _MOST_CORNERS
    for item, error in refused.items():
        if first is None or (is_whole and item not in fits):
            raise error
    assert first is not None
    return first


def _combinations(space: Space) -> Iterator[dict[str, Drawn]]:
    names = [parameter.name for parameter in space]
    for corners in itertools.product(*(parameter.corners for parameter in space)):
        yield dict(zip(names, corners, strict=True))
