"""config.json, the record of a run: what was asked for, and what it depends on.

format             which fields there are; format 1 does not say it, and has
                   "settings" for "options"
config, hypers     the configuration
options            what the host does
sources            where the values come from
env_version        of the environment's behaviour; 1 where it is missing
...                see `folder.provenance`
"""

import dataclasses
import json
import math
from pathlib import Path
from typing import TypeVar

from purejaxppo.config import Config, Hypers, Resolved
from purejaxppo.env import EnvSpec
from purejaxppo.errors import ConfigError
from purejaxppo.ranges import field_names
from purejaxppo.run.folder import Record, provenance, write_json
from purejaxppo.run.options import Options

FORMAT = 2
_CONFIG = "config.json"
_Owner = TypeVar("_Owner", Config, Hypers, Options)

# What was so before a field said it, where its default is something else.
_BEFORE = {"reward_clip": math.inf}


def _encode(owner: Config | Hypers | Options) -> Record:
    values = {name: getattr(owner, name) for name in field_names(type(owner))}
    return {n: _tag(x) if isinstance(x, dict) else x for n, x in values.items()}


def _decode(cls: type[_Owner], record: Record) -> _Owner:
    """The inverse of `_encode` and JSON, by the types of the defaults.

    Fields that the record lacks are newer than the run, and take their defaults.
    """
    values: Record
    values = {n: _untag(x) if isinstance(x, dict) else x for n, x in record.items()}
    for field in dataclasses.fields(cls):
        if field.name in values and isinstance(field.default, (float, tuple)):
            values[field.name] = type(field.default)(values[field.name])
    return cls(**values)


def _tag(value: object) -> object:
    """Mark what JSON does not have, where no field tells the type: in dictionaries."""
    if isinstance(value, dict):
        return {name: _tag(x) for name, x in value.items()}
    if isinstance(value, tuple):
        return {"tuple": [_tag(x) for x in value]}
    if isinstance(value, list):
        return [_tag(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _untag(value: object) -> object:
    if isinstance(value, list):
        return [_untag(x) for x in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tuple"}:
        return tuple(_untag(x) for x in value["tuple"])
    if set(value) == {"float"}:
        return float(value["float"])
    return {name: _untag(x) for name, x in value.items()}


def write(
    path: Path,
    resolved: Resolved,
    options: Options,
    command: list[str],
    spec: EnvSpec,
) -> None:
    """Write config.json, from which `read_config` gives everything back exactly.

    Args:
      path: the run's folder.
      resolved: its configuration, with the origins of the values.
      options: its options.
      command: the words that started it.
      spec: of its environment, whose version is recorded.
    """
    plain = _encode(resolved.config)
    del plain["hypers"]
    record = {
        "format": FORMAT,
        "config": plain,
        "hypers": _encode(resolved.config.hypers),
        "options": _encode(options),
        "sources": resolved.sources,
        "env_version": spec.version,
        **provenance(command),
    }
    write_json(path / _CONFIG, record)


def read(path: Path, field: str = "resume") -> Record:
    """All of config.json, under the names of the newest format.

    Args:
      path: the run's folder.
      field: what an error calls it.

    Raises:
      ConfigError: there is no run, or one of a later format.
    """
    try:
        record = json.loads((path / _CONFIG).read_text())
        number, wrote = record.get("format", 1), record["versions"]["purejaxppo"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _not_a_run(path, field) from None
    if number not in range(1, FORMAT + 1):
        raise ConfigError(
            field,
            str(path),
            f"a run of format 1 to {FORMAT}; this one has format {number!r}, which "
            f"purejaxppo {wrote} can read",
        )
    if "settings" in record:
        record["options"] = record.pop("settings")
    return record


def read_config(path: Path, field: str = "resume") -> tuple[Resolved, Options]:
    """Configuration, origins and options of a run.

    Args:
      path: the run's folder.
      field: what an error calls it.

    Raises:
      ConfigError: the folder is missing, holds no run, or one that this version of
        purejaxppo cannot read.
    """
    record = read(path, field)
    try:
        _refuse_unknown_fields(record, path, field)
        hypers = _decode(Hypers, _BEFORE | record["hypers"])
        plain = record["config"] | {"hypers": hypers}
        config, options = _decode(Config, plain), _decode(Options, record["options"])
        sources = record["sources"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _not_a_run(path, field) from None
    return Resolved(config, sources), options


def check_env_version(path: Path, spec: EnvSpec, field: str = "resume") -> None:
    """Compare the environment's version with the one that the run was made with.

    Args:
      path: the run's folder.
      spec: of the environment as it is now.
      field: what an error calls the run.

    Raises:
      ConfigError: they differ.
    """
    record = read(path, field)
    was = record.get("env_version", 1)
    if was != spec.version:
        raise ConfigError(
            field,
            f"{spec.name} of version {was}",
            f"a run with version {spec.version} of {spec.name}, whose behaviour has "
            f"changed; purejaxppo {record['versions']['purejaxppo']} has version {was}",
        )


def _not_a_run(path: Path, field: str) -> ConfigError:
    return ConfigError(field, str(path), f"the folder of a run, with its {_CONFIG}")


def _refuse_unknown_fields(record: Record, path: Path, field: str) -> None:
    for group, cls in (("config", Config), ("hypers", Hypers), ("options", Options)):
        unknown = sorted(record[group].keys() - set(field_names(cls)))
        if unknown:
            wrote = record["versions"]["purejaxppo"]
            raise ConfigError(
                field,
                str(path),
                f"a run whose fields are known here; {', '.join(unknown)} of its "
                f"{group} is not, and purejaxppo {wrote} can read it",
            )
