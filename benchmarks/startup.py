"""Seconds from the command, as a user waits: to the first update, or to a good policy.

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


def training(flags: list[str], folder: Path, cache: Path):
    """The command line at work on a run in `folder`, with that compilation cache."""
    command = [sys.executable, "-m", "purejaxppo.train", *flags]
    command += ["--run-dir", str(folder), "--no-tensorboard"]
    return running(command, {"JAX_COMPILATION_CACHE_DIR": str(cache)})


def run_once(flags: list[str], folder: Path, cache: Path, timeout: float) -> Json:
    """One run: seconds from its start, and what it compiled.

    Args:
      flags, folder, cache: see `training`.
      timeout: seconds that each mark may take.

    Raises:
      ProgramFailed: it did not end well, or in time.
    """
    begin, seconds = time.monotonic(), {}
    with training(flags, folder, cache) as program:
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
    """Seconds and steps to a worst block at the bar, demonstrations included.

    Args:
      flags: of the command line.
      bar: share of successes in the worst block of an evaluation.
      timeout: seconds.

    Raises:
      ProgramFailed: the run ended, or its time was up, before that.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"

        def look() -> dict[str, str] | None:
            # The first row is the cloned policy, before PPO; block means are float32.
            rows = whole_rows(folder / "evals.csv")[1:]
            return next((r for r in rows if float(r[WORST_BLOCK]) > bar - 1e-6), None)

        with training(flags, folder, Path(name) / "cache") as program:
            row = wait_until(program, look, timeout)
    reached = {"seconds": time.monotonic() - begin, "steps": int(row["steps"])}
    return {"reached": reached, "flags": flags}


def whole_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a table that is being written."""
    if not path.exists():
        return []
    text = path.read_text()
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
