"""Seconds that a user waits: from the command to the first update, to a good policy.

The real command line, each time in a process of its own, with one folder for compiled
programs: empty at first (cold), then as the first run left it (cached).
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.processes import ProgramFailed, running, wait_until
from benchmarks.harness.timing import median_and_spread

Json = dict[str, Any]
TARGETS = {"cold": 20.0, "cached": 8.0}  # seconds, of the hammer
WORST_BLOCK = "eval/min_block_hammered"
# What a run has written -> the figure that says when.
MARKS = {"config.json": "run_folder", "metrics.csv": "first_update"}


def run_once(flags: list[str], folder: Path, cache: Path, timeout: float) -> Json:
    """One run: seconds from its start, and what it compiled.

    Args:
      flags: of the command line.
      folder: of the run.
      cache: folder of compiled programs.
      timeout: seconds that each mark may take.

    Raises:
      ProgramFailed: it did not end well, or in time.
    """
    command = [sys.executable, "-m", "purejaxppo.train", *flags]
    command += ["--run-dir", str(folder), "--no-tensorboard"]
    begin, seconds = time.monotonic(), {}
    with running(command, {"JAX_COMPILATION_CACHE_DIR": str(cache)}) as program:
        for file, mark in MARKS.items():
            path = folder / file
            wait_until(program, lambda path=path: path.exists() or None, timeout)
            seconds[f"seconds_to_{mark}"] = time.monotonic() - begin
        try:
            code = program.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ProgramFailed(f"did not end in {timeout:g} s") from None
    if code != 0:
        raise ProgramFailed(f"ended with exit code {code}")
    summary = json.loads((folder / "summary.json").read_text())
    seconds["seconds"] = time.monotonic() - begin
    return {**seconds, "compile_seconds": summary["compile_seconds"]}


def measure(flags: list[str], rounds: int, timeout: float = 600.0) -> Json:
    """Cold starts, each followed by one with the cache that it left; the targets.

    Args:
      flags: of the command line.
      rounds: pairs of starts.
      timeout: see `run_once`.
    """
    runs: dict[str, list[Json]] = {case: [] for case in TARGETS}
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
        **{case: _summary(done) for case, done in runs.items()},
        "cache": {"files": len(cached), "bytes": sum(cached)},
    }


def _summary(runs: list[Json]) -> Json:
    """Median and spread of each time; what compiled, of the last run."""
    times = [name for name in runs[0] if name.startswith("seconds")]
    return {
        **{name: median_and_spread([run[name] for run in runs]) for name in times},
        "compile_seconds": runs[-1]["compile_seconds"],
    }


def seconds_to_bar(flags: list[str], bar: float, timeout: float) -> Json:
    """Seconds of the run and its steps to a worst block at the bar.

    Args:
      flags: of the command line.
      bar: share of successes in the worst block of an evaluation.
      timeout: seconds.

    Raises:
      ProgramFailed: the run did not end in time, or was never there.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        run_once(flags, folder, Path(name) / "cache", timeout)
        with (folder / "evals.csv").open(newline="") as file:
            # The first row is the cloned policy, before PPO; block means are float32.
            for row in list(csv.DictReader(file))[1:]:
                if float(row[WORST_BLOCK]) > bar - 1e-6:
                    reached = {name: float(row[name]) for name in ("seconds", "steps")}
                    return {"reached": reached, "bar": bar, "flags": flags}
    raise ProgramFailed(f"was never at {bar}")
