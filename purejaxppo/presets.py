"""Merging of an environment's presets with the values given by the user.

The presets of an environment are a dictionary PRESETS from the name of a preset to
values of `Config` and `Hypers` by name. The preset "default" always applies, and a
named preset is applied after it. Where there are none, the environment's heads decide,
see `defaults`.
"""

from collections.abc import Mapping
from typing import NamedTuple

from purejaxppo import defaults, registry
from purejaxppo.errors import ConfigError, UnknownName

DEFAULT, FLAG, INIT_FROM = "default", "flag", "init_from"


class Overlay(NamedTuple):
    """The values that differ from the defaults.

    Attributes:
      values: name -> value.
      sources: name, or "name.key" of a dictionary -> 'preset "x"', "default of ...
        actions" or "flag".
    """

    values: dict[str, object]
    sources: dict[str, str]


def overlay(env: str, preset: str, values: Mapping[str, object]) -> Overlay:
    """Merge the preset "default", the named preset and the given values, in this order.

    An environment without presets is made, to look at its heads.

    Args:
      env: a registered name, "library:name" or "package.module:factory".
      preset: name of a preset; "" for "default" alone.
      values: values given by the user, by name; they override the presets.

    Raises:
      ConfigError: an unknown environment or preset.
    """
    known = registry.presets(env)
    if preset not in known and preset not in ("", "default"):
        if not known:
            raise ConfigError("preset", preset, f"none: {env} has no presets")
        raise UnknownName("preset", preset, known)
    names = dict.fromkeys(["default", preset or "default"])
    chosen = [(f'preset "{name}"', known.get(name, {})) for name in names]
    if not known:
        kind, own = _of_heads(env, values)
        chosen = [(f"default of {kind} actions", own)]
    merged, sources = {}, {}
    for source, new_values in [*chosen, (FLAG, values)]:
        merged = merge(merged, new_values)
        sources |= _sources(source, new_values)
    return Overlay(merged, sources)


def _of_heads(env: str, values: Mapping[str, object]) -> tuple[str, defaults.Values]:
    """Return the kind of an environment's actions, and the defaults for it."""
    kwargs = values.get("env_kwargs", {})
    kwargs = kwargs if isinstance(kwargs, Mapping) else {}
    heads = registry.make_env(env, **kwargs).spec.heads
    if not isinstance(heads, Mapping):
        heads = {}  # which `validation` refuses in a sentence
    return defaults.of_heads(heads, values.get("core", "none") != "none")


def merge(
    lower: Mapping[str, object], upper: Mapping[str, object]
) -> dict[str, object]:
    """Merge two mappings: `upper` overrides `lower`, dictionaries merge key by key."""
    merged = dict(lower)
    for name, value in upper.items():
        old = lower.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = {**old, **value}
        merged[name] = value
    return merged


def _sources(source: str, values: Mapping[str, object]) -> dict[str, str]:
    sources = dict.fromkeys(values, source)
    for name, value in values.items():
        if isinstance(value, Mapping):
            sources |= {f"{name}.{key}": source for key in value}
    return sources
