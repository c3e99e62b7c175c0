"""config.json, the record of a run: its configuration, options and provenance.

format             version of this file's format; missing in format 1, in which
                   "options" is called "settings"
config, hypers     the configuration
options            the options of the run
sources            name of a value -> its source: default, preset or flag
env_version        version of the environment's behaviour; 1 if it is missing
environment        name, time limit and success metric of the environment
init_from          where its first parameters came from, if another run gave them; see
                   `init_from`
...                see `folder.provenance`
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from purejaxppo.config import Config, Hypers, Resolved
from purejaxppo.env import EnvSpec
from purejaxppo.errors import CheckpointError, ConfigError
from purejaxppo.ranges import field_names
from purejaxppo.run import checkpoint, files
from purejaxppo.run.folder import (
    CHECKPOINTS,
    Record,
    check_path,
    provenance,
    write_json,
)
from purejaxppo.run.options import Options, gives_policy, validate_options
from purejaxppo.validation import validate, validate_first_policy

FORMAT = 2
_CONFIG = "config.json"
_GROUPS = ("config", "hypers", "sources", "versions", "machine")
_Owner = TypeVar("_Owner", Config, Hypers, Options)

# What was so before a field said it, where its default is something else.
_BEFORE = {"reward_clip": math.inf}


def exists(path: Path) -> bool:
    """Return whether a run was started in a folder."""
    return (path / _CONFIG).exists()


def _encode(owner: Config | Hypers | Options) -> Record:
    values = {name: getattr(owner, name) for name in field_names(type(owner))}
    return {n: _tag(x) if isinstance(x, dict) else x for n, x in values.items()}


def _encode_plain(config: Config) -> Record:
    """Encode a configuration without its hyperparameters."""
    return {n: x for n, x in _encode(config).items() if n != "hypers"}


def _decode(cls: type[_Owner], record: Record) -> _Owner:
    """Invert `_encode` and JSON; values are converted to the types of the defaults.

    Fields missing in the record were added after the run, and have their defaults.
    """
    values: Record
    values = {n: _untag(x) if isinstance(x, dict) else x for n, x in record.items()}
    for field in dataclasses.fields(cls):
        if field.name in values:
            values[field.name] = _convert(field.default, values[field.name])
    return cls(**values)


def _convert(default: object, value: object) -> object:
    """Convert a value of JSON to the type of the default, if it can stand for one.

    Any other value stays as it is, and is refused by the range of its field.
    """
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, float) and not isinstance(value, bool):
        if value in ("inf", "-inf", "nan"):
            return float(value)
        if isinstance(value, int) and abs(value) < 2**53:
            return float(value)
    return value


def _tag(value: object) -> object:
    """Encode tuples and infinities within dictionaries, which JSON cannot express."""
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
    origin: Mapping[str, object] = MappingProxyType({}),
) -> None:
    """Write config.json, from which `read_config` restores all values exactly.

    Args:
      path: the run's folder.
      resolved: the run's configuration, and the sources of its values.
      options: the run's options.
      command: the command line that started the run.
      spec: the specification of the run's environment.
      origin: where the first parameters come from; empty where they are new.
    """
    record = {
        "format": FORMAT,
        "config": _encode_plain(resolved.config),
        "hypers": _encode(resolved.config.hypers),
        "options": _encode(options),
        "sources": resolved.sources,
        "env_version": spec.version,
        "environment": _environment(spec),
        **({"init_from": dict(origin)} if origin else {}),
        **provenance(command),
    }
    write_json(path / _CONFIG, record)


def _environment(spec: EnvSpec) -> Record:
    return {
        "name": spec.name,
        "max_episode_steps": spec.max_episode_steps,
        "success": spec.success,
    }


def watched(config: Config, spec: EnvSpec) -> Record:
    """Return what the doctor knows of a configuration, by name.

    Args:
      config: the configuration of the run.
      spec: the specification of its environment.
    """
    return _encode_plain(config) | _encode(config.hypers) | _environment(spec)


def read(path: Path, field: str = "resume") -> Record:
    """Read config.json, and convert it to the newest format.

    Args:
      path: the run's folder.
      field: name of the folder in an error.

    Raises:
      ConfigError: the folder holds no run, or a run of a later format.
    """
    check_path(field, path)
    try:
        record = json.loads((path / _CONFIG).read_text())
        number, writer_version = (
            record.get("format", 1),
            record["versions"]["purejaxppo"],
        )
        if not all(isinstance(record[name], dict) for name in _GROUPS):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _not_a_run(path, field) from None
    if isinstance(number, bool) or number not in range(1, FORMAT + 1):
        raise ConfigError(
            field,
            str(path),
            f"a run of format 1 to {FORMAT}; this one has format {number!r}, which "
            f"purejaxppo {writer_version} can read",
        )
    if "settings" in record:
        record["options"] = record.pop("settings")
    return record


def read_config(path: Path, field: str = "resume") -> tuple[Resolved, Options]:
    """Read the configuration, the sources of its values and the options of a run.

    Args:
      path: the run's folder.
      field: name of the folder in an error.

    Raises:
      ConfigError: the folder is missing, holds no run, or holds a run that this version
        of purejaxppo cannot read, or a value that is not allowed.
    """
    try:
        files.refuse_links(path, field)
    except ValueError:  # a path with a NUL
        raise _not_a_run(path, field) from None
    record = read(path, field)
    try:
        _refuse_unknown_fields(record, path, field)
        hypers = _decode(Hypers, _BEFORE | record["hypers"])
        plain = record["config"] | {"hypers": hypers}
        config, options = _decode(Config, plain), _decode(Options, record["options"])
        sources = record["sources"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise _not_a_run(path, field) from None
    validate(config)
    validate_options(options)
    validate_first_policy(config, gives_policy(options))
    if not all(isinstance(source, str) for source in sources.values()):
        raise _not_a_run(path, field)
    return Resolved(config, sources), options


def checksum(path: Path) -> str:
    """Return the checksum of a run's config.json, which every checkpoint records."""
    return files.checksum((path / _CONFIG).read_bytes())


def check_unchanged(path: Path, field: str = "resume") -> None:
    """Compare config.json with the checksum in the run's newest checkpoint.

    Args:
      path: the run's folder.
      field: name of the run in an error.

    Raises:
      ConfigError: config.json has been changed.
    """
    checkpoints = path / CHECKPOINTS
    for step in reversed(checkpoint.steps(checkpoints)):
        try:
            metadata = checkpoint.read_meta(checkpoints, step)["metadata"]
        except CheckpointError:  # reported when it is restored
            continue
        if metadata.get("config", checksum(path)) != checksum(path):
            allowed = f"a run whose {_CONFIG} is as checkpoint {step:08d} recorded it"
            raise ConfigError(field, str(path), f"{allowed}; it was changed since")
        return


def check_env_version(path: Path, spec: EnvSpec, field: str = "resume") -> None:
    """Compare the environment's version with the version recorded by the run.

    Args:
      path: the run's folder.
      spec: the specification of the present environment.
      field: name of the run in an error.

    Raises:
      ConfigError: the versions differ.
    """
    record = read(path, field)
    recorded = record.get("env_version", 1)
    writer_version = record["versions"]["purejaxppo"]
    if recorded != spec.version:
        raise ConfigError(
            field,
            f"{spec.name} of version {recorded}",
            f"a run with version {spec.version} of {spec.name}, whose behaviour has "
            f"changed; purejaxppo {writer_version} has version {recorded}",
        )


def _not_a_run(path: Path, field: str) -> ConfigError:
    return ConfigError(field, str(path), f"the folder of a run, with its {_CONFIG}")


def _refuse_unknown_fields(record: Record, path: Path, field: str) -> None:
    for group, cls in (("config", Config), ("hypers", Hypers), ("options", Options)):
        unknown = sorted(record[group].keys() - set(field_names(cls)))
        if unknown:
            writer_version = record["versions"]["purejaxppo"]
            raise ConfigError(
                field,
                str(path),
                f"a run whose fields are known here; {', '.join(unknown)} of its "
                f"{group} is not, and purejaxppo {writer_version} can read it",
            )
