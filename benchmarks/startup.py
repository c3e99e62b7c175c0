"""Seconds that a user waits: from the command to the end of the first update.

The real command line, each time in a process of its own, with one folder for compiled
programs: empty at first (cold), then as the first run left it (cached).
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import ProgramFailed, ended_how, running
from benchmarks.harness.timing import median_and_spread

Json = dict[str, Any]
TARGETS = {"cold": 20.0, "cached": 8.0}  # seconds, of the hammer
# What a run has written -> the figure that says when.
MARKS = {
    "config.json": "seconds_to_run_folder",
    "metrics.csv": "seconds_to_first_update",
}
_POLL_SECONDS = 0.05


def run_once(
    flags: list[str], folder: Path, cache: Path, timeout: float = 600.0
) -> Json:
    """Time one run of the command line.

    Args:
      flags: of the command line.
      folder: of the run.
      cache: folder of compiled programs.
      timeout: seconds that the run may take.

    Raises:
      ProgramFailed: it did not end well, or in time.
    """
    command = [sys.executable, "-m", "purejaxppo.train", *flags]
    command += ["--run-dir", str(folder), "--no-tensorboard", "--no-report"]
    begin, seconds = time.monotonic(), {}
    with running(command, {"JAX_COMPILATION_CACHE_DIR": str(cache)}) as program:
        ended = False
        while not ended:
            ended = program.process.poll() is not None
            for file, mark in MARKS.items():
                if mark not in seconds and (folder / file).exists():
                    seconds[mark] = time.monotonic() - begin
            if time.monotonic() - begin > timeout:
                raise ProgramFailed(f"did not end in {timeout:g} s")
            if not ended:
                time.sleep(_POLL_SECONDS)
        if program.process.returncode != 0:
            raise ProgramFailed(ended_how(program))
    summary = json.loads((folder / "summary.json").read_text())
    seconds["seconds"] = time.monotonic() - begin
    return {**seconds, "compile_seconds": summary["compile_seconds"]}


def measure(flags: list[str], rounds: int) -> Json:
    """Time cold starts with these flags, each followed by one with its cache."""
    runs: dict[str, list[Json]] = {case: [] for case in TARGETS}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            for case, done in runs.items():
                done.append(run_once(flags, root / case, root / "cache"))
    return {
        "flags": flags,
        "targets": TARGETS,
        "rounds": rounds,
        **{case: _summary(done) for case, done in runs.items()},
    }


def _summary(runs: list[Json]) -> Json:
    """Summarise each time, and keep what the last run compiled."""
    times = [name for name in runs[0] if name.startswith("seconds")]
    spreads = {name: median_and_spread([run[name] for run in runs]) for name in times}
    return {**spreads, "compile_seconds": runs[-1]["compile_seconds"]}
