"""What every result carries: the command, versions and machine it was measured on."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "results"
_PACKAGES = "jax jaxlib flax optax mujoco mujoco-mjx warp-lang numpy purejaxppo".split()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The checkout's commit, with a plus where the tree differs from it."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def machine() -> dict[str, Any]:
    """Processor, cores and the devices that JAX sees."""
    import jax

    return {
        "system": platform.platform(terse=True),
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "nproc": os.environ.get("NPROC"),
    }


def load(name: str, folder: Path | None = None) -> dict[str, Any] | None:
    """A record under results/, or in another folder; None where there is none."""
    path = (folder or RESULTS) / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def write(name: str, results: dict[str, Any], folder: Path | None = None) -> Path:
    """Write benchmarks/results/NAME.json, with where it came from.

    Args:
      name: of the file.
      results: what was measured.
      folder: another place for it.
    """
    record = {
        "command": " ".join(["python -m", _module(), *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
        "revision": _revision(),
        "machine": machine(),
        "results": results,
    }
    return store(name, record, folder)


def store(name: str, record: dict[str, Any], folder: Path | None = None) -> Path:
    """Write a record as it is.

    Args:
      name: of the file.
      record: what `load` gives.
      folder: another place for it than results/.
    """
    folder = RESULTS if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path


def _module() -> str:
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    name = spec.name if spec else Path(sys.argv[0]).stem
    return name.removesuffix(".__main__")
