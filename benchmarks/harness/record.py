"""What every result carries: the command, versions and machine it was measured on."""

import datetime
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from purejaxppo.run import folder

RESULTS = Path(__file__).parents[1] / "results"
Json = dict[str, Any]


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def _command() -> str:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec else Path(sys.argv[0]).stem
    return " ".join(["python -m", name.removesuffix(".__main__"), *sys.argv[1:]])


def load(name: str) -> Json | None:
    """Read results/NAME.json; None where there is none."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def results(name: str) -> Json:
    """Read the figures of a record; none where there is no record."""
    return (load(name) or {"results": {}})["results"]


def file_of(workload: str) -> str:
    """Name the result file of a workload, without its suffix."""
    return workload.replace("-", "_") + "_speed"


def ratios_of(workload: str) -> dict[str, dict[str, float]]:
    """Read the ratio of ours to each peer of a workload, as far as it is measured."""
    workers = results(file_of(workload)).get("peers", {}).get("workers", {})
    return {n: r["ours_over_it"] for n, r in workers.items() if "ours_over_it" in r}


def write(name: str, results: Json) -> Path:
    """Write results/NAME.json, with where it came from."""
    record = folder.provenance([])
    record["machine"] |= {"cpu": _cpu_model(), "nproc": os.environ.get("NPROC")}
    record |= {"command": _command(), "date": datetime.date.today().isoformat()}
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(record | {"results": results}, indent=1) + "\n")
    return path
