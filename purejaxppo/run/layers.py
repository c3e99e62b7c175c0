"""The layers of a configuration, and which of them each value comes from.

Defaults of the dataclasses < the environment's preset "default" < the preset that was
asked for < flags. A flag always wins, also over a preset.
"""

import dataclasses
import inspect
from typing import Any, NamedTuple

from purejaxppo import env as env_lib
from purejaxppo.config import PAIRS, Config, Hypers, with_overrides
from purejaxppo.errors import ConfigError, UnknownName
from purejaxppo.run.options import Options

DEFAULT, FLAG = "default", "flag"
Sources = dict[str, str]  # name -> "default", 'preset "x"' or "flag"


class Layered(NamedTuple):
    """A configuration with the origin of each of its values."""

    config: Config
    sources: Sources


def preset_layers(env: str, preset: str) -> list[tuple[str, dict[str, Any]]]:
    """The presets that apply, lowest first, each with how it is called in reports.

    Raises:
      ConfigError: an unknown environment or preset.
    """
    presets = env_lib.presets(env)
    if preset and preset not in presets:
        raise UnknownName("preset", preset, presets or ["none: it has no presets"])
    names = dict.fromkeys(["default", preset or "default"])
    return [(f'preset "{name}"', presets[name]) for name in names if name in presets]


def resolve(env: str, preset: str, flags: dict[str, Any]) -> Layered:
    """The configuration of `env`, from the lowest layer to the flags.

    Pairs (`env_kwargs` and the like) are merged, everything else is replaced.

    Args:
      flags: values of `Config` and `Hypers`, by name, that were given explicitly.

    Raises:
      ConfigError: an unknown environment, preset or name in a preset.
    """
    config = Config(env=env)
    sources = dict.fromkeys(value_names(), DEFAULT)
    for source, values in [*preset_layers(env, preset), (FLAG, flags)]:
        for name in PAIRS:
            sources |= {f"{name}.{key}": source for key in values.get(name, {})}
        config = with_overrides(config, values)
        sources |= dict.fromkeys(values, source)
    return Layered(config, sources)


def value_names() -> list[str]:
    """Every name of `Config` and `Hypers`, flat, in the order of their fields."""
    plain = [f.name for f in dataclasses.fields(Config) if f.name != "hypers"]
    return plain + [f.name for f in dataclasses.fields(Hypers)]


def value_of(config: Config, name: str) -> Any:
    """The value of a field of `config` or of its hyperparameters."""
    owner = config if hasattr(config, name) else config.hypers
    return getattr(owner, name)


def require_engine_choice(env: str, engine: str) -> None:
    """Refuse `--engine` where the environment's factory does not take it."""
    module, attribute = env_lib.lookup(env)
    parameters = inspect.signature(getattr(module, attribute)).parameters.values()
    if not any(p.name == "engine" or p.kind is p.VAR_KEYWORD for p in parameters):
        raise ConfigError(
            "engine", engine, f"no engine with {env}, which has no choice"
        )


def describe(layered: Layered, options: Options, given: set[str]) -> str:
    """A table: every value, and where it comes from."""
    config, sources = layered
    rows = [(n, _show(value_of(config, n)), sources[n]) for n in value_names()]
    for field in dataclasses.fields(options):
        source = FLAG if field.name in given else DEFAULT
        rows.append((field.name, _show(getattr(options, field.name)), source))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(
        f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}"
        for name, value, source in rows
    )


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items()) or "-"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return str(value) if value != "" else "-"
