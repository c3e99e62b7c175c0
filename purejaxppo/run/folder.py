"""The folder of a run, and the versions and machine that its results depend on.

config.json        see `record`
metrics.csv        a row per update and seed: update, steps, seconds, seed, metrics
evals.csv          a row per evaluation and seed, with the same first columns
events.*           the numbers of both tables for TensorBoard
wandb-id           the name of the run at Weights & Biases, if it is logged there
demonstrations.npz the cloned demonstrations, if any
initial/           the parameters that it began with, if another run gave them
checkpoints/       see `checkpoint`
still.png          the end of an evaluation episode, for the report
report.html        the curves of the run as one page
summary.json       final results; written when the run is finished
"""

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from purejaxppo import __version__
from purejaxppo.errors import ConfigError
from purejaxppo.run import files

CHECKPOINTS = "checkpoints"
INITIAL = "initial"
Record = dict[str, Any]  # JSON
_PACKAGES = (
    "jax jaxlib flax optax chex orbax-checkpoint mujoco mujoco-mjx numpy tyro"
).split()


def check_path(field: str, path: Path) -> None:
    """Check that a path can be written in UTF-8, which the checkpoints' writer needs.

    In the C locale Python reads other characters as bytes that have no encoding.

    Raises:
      ConfigError: it cannot.
    """
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        allowed = "a path that this locale can read; PYTHONUTF8=1 in front of the "
        raise ConfigError(field, str(path), f"{allowed}command reads any") from None


def create(path: Path) -> None:
    """Make the folder of a new run.

    Raises:
      ConfigError: the folder is not empty, or cannot be written.
    """
    check_path("run_dir", path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        # A start that was killed at once leaves no more than these files.
        remnants = ("config.tmp", INITIAL, files.LOCK)
        if any(entry.name not in remnants for entry in path.iterdir()):
            raise ConfigError(
                "run_dir", str(path), "a new or empty folder, or --resume"
            )
        probe = path / ".writable"
        files.open_new(probe).close()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            "run_dir", str(path), f"a folder that can be written ({error.strerror})"
        ) from None


def remove_unused(path: Path) -> None:
    """Remove the folder of a run that could not be started, if it holds nothing."""
    with contextlib.suppress(OSError):
        (path / files.LOCK).unlink(missing_ok=True)
        shutil.rmtree(path / INITIAL, ignore_errors=True)
        path.rmdir()


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


def provenance(command: list[str]) -> Record:
    """Return the versions, machine, flags and revision that results depend on."""
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


def changed_since(record: Record) -> list[str]:
    """Describe each change of versions, machine or flags since the run was started."""
    current = provenance([])
    flags, current_flags = record.get("xla_flags", ""), current["xla_flags"]
    changed_flags = f"xla_flags: {flags!r} then, {current_flags!r} now"
    return [changed_flags] * (flags != current_flags) + [
        f"{group}.{name}: {recorded!r} then, {current[group].get(name)!r} now"
        for group in ("versions", "machine")
        for name, recorded in record[group].items()
        if recorded != current[group].get(name)
    ]


def write_json(path: Path, record: Mapping[str, object]) -> None:
    """Write a JSON file atomically, so that a kill leaves the old file intact.

    Infinity and NaN, which JSON lacks, are written as strings that `float` can read.
    """
    text = json.dumps(_without_infinity(record), indent=1, allow_nan=False)
    files.replace(path, f"{text}\n".encode())


def _without_infinity(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_infinity(x) for name, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinity(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
