"""Presets over defaults, and values over presets, as plain dictionaries.

An environment's presets are data: a dictionary PRESETS from the preset's name to
values of `Config` and `Hypers` by plain name. "default" applies whenever the
environment is chosen.
"""

from collections.abc import Mapping
from typing import NamedTuple

from purejaxppo import registry
from purejaxppo.errors import ConfigError, UnknownName

DEFAULT, FLAG = "default", "flag"


class Overlay(NamedTuple):
    """What is other than the defaults.

    Attributes:
      values: name -> value.
      sources: name, or "name.key" of a dictionary -> 'preset "x"' or "flag".
    """

    values: dict[str, object]
    sources: dict[str, str]


def overlay(env: str, preset: str, values: Mapping[str, object]) -> Overlay:
    """The preset "default", then the named one, then the values that were given.

    Args:
      env: a registered name, "library:name" or "package.module:factory".
      preset: name of a preset; "" is none beside "default".
      values: what was given explicitly, by name; it wins.

    Raises:
      ConfigError: an unknown environment or preset.
    """
    known = registry.presets(env)
    if preset not in known and preset not in ("", "default"):
        if not known:
            raise ConfigError("preset", preset, f"none: {env} has no presets")
        raise UnknownName("preset", preset, known)
    names = dict.fromkeys(["default", preset or "default"])
    layers = [(f'preset "{name}"', known.get(name, {})) for name in names]
    merged, sources = {}, {}
    for source, layer in [*layers, (FLAG, values)]:
        merged = merge(merged, layer)
        sources |= _sources(source, layer)
    return Overlay(merged, sources)


def merge(
    lower: Mapping[str, object], upper: Mapping[str, object]
) -> dict[str, object]:
    """The values of both; `upper` wins, and dictionaries are merged key by key."""
    merged = dict(lower)
    for name, value in upper.items():
        below = lower.get(name)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = {**below, **value}
        merged[name] = value
    return merged


def _sources(source: str, layer: Mapping[str, object]) -> dict[str, str]:
    sources = dict.fromkeys(layer, source)
    for name, value in layer.items():
        if isinstance(value, Mapping):
            sources |= {f"{name}.{key}": source for key in value}
    return sources
