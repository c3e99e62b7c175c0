"""From the command to the end of the first update, as a user waits for it.

The real command line, each time in a process of its own, with one folder for compiled
programs: empty at first (cold), then as the first run left it (cached).
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import ProgramFailed, running
from benchmarks.timing import median_and_spread

_LOOK = 0.05  # seconds between two looks at the run's folder
TARGETS = {"cold": 20.0, "cached": 8.0}  # seconds, of the hammer


def run_once(flags: list[str], folder: Path, cache: Path, timeout: float) -> dict:
    """One run: seconds from its start, and what it compiled.

    Raises:
      ProgramFailed: it did not end well, or in time.
    """
    command = [sys.executable, "-m", "purejaxppo.train", *flags]
    command += ["--run-dir", str(folder), "--no-tensorboard"]
    begin = time.monotonic()
    with running(command, {"JAX_COMPILATION_CACHE_DIR": str(cache)}) as program:
        marks = {}
        for name, file in (("folder", "config.json"), ("first_update", "metrics.csv")):
            while not (folder / file).exists():
                _require(program.process, begin, timeout)
                time.sleep(_LOOK)
            marks[name] = time.monotonic() - begin
        try:
            code = program.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProgramFailed(f"did not end in {timeout:g} s") from None
    if code != 0:
        raise ProgramFailed(f"ended with exit code {code}")
    summary = json.loads((folder / "summary.json").read_text())
    return {
        "seconds_to_run_folder": marks["folder"],
        "seconds_to_first_update": marks["first_update"],
        "seconds": time.monotonic() - begin,
        "compile_seconds": summary["compile_seconds"],
    }


def _require(process: subprocess.Popen, begin: float, timeout: float) -> None:
    if process.poll() is not None:
        raise ProgramFailed(f"ended with exit code {process.returncode}")
    if time.monotonic() - begin > timeout:
        raise ProgramFailed(f"had no first update in {timeout:g} s")


def measure(flags: list[str], rounds: int, timeout: float = 600.0) -> dict[str, Any]:
    """Cold starts, each followed by one with the cache that it left; the targets."""
    runs: dict[str, list[dict]] = {case: [] for case in TARGETS}
    cached: list[int] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            for case, done in runs.items():
                done.append(run_once(flags, root / case, root / "cache", timeout))
            cached = [path.stat().st_size for path in (root / "cache").iterdir()]
    return {
        "flags": flags,
        "targets": TARGETS,
        "rounds": rounds,
        **{case: _of_all(done) for case, done in runs.items()},
        "cache": {"files": len(cached), "bytes": sum(cached)},
    }


def _of_all(runs: list[dict]) -> dict[str, Any]:
    """Median and spread of each time; what compiled, of the last run."""
    times = [name for name in runs[0] if name.startswith("seconds")]
    return {
        **{name: median_and_spread([run[name] for run in runs]) for name in times},
        "compile_seconds": runs[-1]["compile_seconds"],
    }
