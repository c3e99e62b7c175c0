"""The run folder: what was asked for, with what versions, and what came of it.

config.json        configuration, options, origins, versions, machine, command
metrics.csv        a row per update and seed: update, steps, seconds, seed, metrics
evals.csv          a row per evaluation and seed, with the same first columns
events.*           the same for TensorBoard
demonstrations.npz what was cloned, if anything was
checkpoints/       see `checkpoint`
summary.json       how it ended
"""

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from purejaxppo import __version__
from purejaxppo.config import Config, Hypers
from purejaxppo.errors import ConfigError
from purejaxppo.run.layers import Layered
from purejaxppo.run.options import Options

CHECKPOINTS = "checkpoints"
_CONFIG = "config.json"
_PACKAGES = (
    "jax jaxlib flax optax chex orbax-checkpoint mujoco mujoco-mjx numpy tyro"
).split()


def create(path: Path) -> None:
    """Make the folder of a new run.

    Raises:
      ConfigError: it holds something already, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError(
                "run_dir", str(path), "a new or empty folder, or --resume"
            )
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            "run_dir", str(path), f"a folder that can be written ({error.strerror})"
        ) from None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()


def provenance(command: list[str]) -> dict[str, Any]:
    """Versions, machine, flags and revision that a result depends on."""
    import jax

    return {
        "command": command,
        "versions": {
            "purejaxppo": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        "machine": {
            "system": platform.platform(terse=True),
            "cores": os.cpu_count(),
            "backend": jax.default_backend(),
            "devices": [device.device_kind for device in jax.devices()],
        },
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "revision": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain")),
    }


def changed_since(record: dict[str, Any]) -> list[str]:
    """What is not as it was when a run began, of what its last bits may depend on."""
    now = provenance([])
    return [
        f"{group}.{name}: {was!r} then, {now[group].get(name)!r} now"
        for group in ("versions", "machine")
        for name, was in record[group].items()
        if was != now[group].get(name)
    ]


def _encode(owner: Any) -> dict[str, Any]:
    return {f.name: getattr(owner, f.name) for f in dataclasses.fields(owner)}


def _decode(cls: Any, record: dict[str, Any]) -> Any:
    """The inverse of `_encode` and JSON, by the types of the defaults."""
    values = dict(record)
    for field in dataclasses.fields(cls):
        if isinstance(field.default, (float, tuple)):
            values[field.name] = type(field.default)(values[field.name])
    return cls(**values)


def _tag(value: Any) -> Any:
    """Mark what JSON does not have, where no field tells the type: `env_kwargs`."""
    if isinstance(value, dict):
        return {name: _tag(x) for name, x in value.items()}
    if isinstance(value, tuple):
        return {"tuple": [_tag(x) for x in value]}
    if isinstance(value, list):
        return [_tag(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _untag(value: Any) -> Any:
    if isinstance(value, list):
        return [_untag(x) for x in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tuple"}:
        return tuple(_untag(x) for x in value["tuple"])
    if set(value) == {"float"}:
        return float(value["float"])
    return {name: _untag(x) for name, x in value.items()}


def write_config(
    path: Path, layered: Layered, options: Options, command: list[str]
) -> None:
    """Write config.json, from which `read_config` gives everything back exactly."""
    plain = _encode(layered.config)
    del plain["hypers"]
    plain["env_kwargs"] = _tag(layered.config.env_kwargs)
    record = {
        "config": plain,
        "hypers": _encode(layered.config.hypers),
        "options": _encode(options),
        "sources": layered.sources,
        **provenance(command),
    }
    write_json(path / _CONFIG, record)


def read_record(path: Path) -> dict[str, Any]:
    """All of config.json, as it stands there."""
    return json.loads((path / _CONFIG).read_text())


def read_config(path: Path, field: str = "resume") -> tuple[Layered, Options]:
    """Configuration, origins and options of a run.

    Raises:
      ConfigError: the folder is missing or holds no run.
    """
    try:
        record = read_record(path)
        hypers = _decode(Hypers, record["hypers"])
        config = _decode(Config, record["config"] | {"hypers": hypers})
        kwargs = _untag(record["config"]["env_kwargs"])
        config = dataclasses.replace(config, env_kwargs=kwargs)
        return Layered(config, record["sources"]), _decode(Options, record["options"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(
            field, str(path), f"the folder of a run, with its {_CONFIG}"
        ) from None


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write whole or not at all: a kill leaves the old file.

    JSON has no inf and no NaN; they are written as the strings that `float` reads.
    """
    temporary = path.with_suffix(".tmp")
    text = json.dumps(_without_infinity(record), indent=1, allow_nan=False)
    temporary.write_text(text + "\n")
    temporary.replace(path)


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinity(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
