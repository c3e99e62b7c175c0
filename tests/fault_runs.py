"""A small run of the command line that faults are tried on, and what they may change.

`prepare` makes three things in a folder: the run as it is without faults, the same run
interrupted in its middle, and compiled programs, which let later processes start fast.
"""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK
from purejaxppo.run import arrays, checkpoint

NUM_UPDATES = 40
ENV = ["--env", "probe_envs:make"]
FLAGS = (
    "--env-kwargs kind=endless continuous=True --num-envs 4 --num-steps 8 "
    "--num-minibatches 2 --num-epochs 1 --hidden-sizes 8 --critic-hidden-sizes 8 "
    f"--total-timesteps {32 * NUM_UPDATES} --num-evals 4 --eval-blocks 2 "
    "--eval-episodes 4 --reset pool --normalize-rewards --target-kl 0.02 --seed 3 "
    "--no-tensorboard --no-report --checkpoint-every 5 --chunk-updates 1"
).split()
TABLES = ("metrics.csv", "evals.csv")
_CLOCK = ("seconds", "steps_per_second")
_SUMMARY = ("updates", "steps", "best", "last_eval", "faults", "stochastic")
_TIMEOUT = 300.0  # seconds
_TESTS = Path(__file__).parent


class Runs(NamedTuple):
    """The folder of `prepare`."""

    root: Path

    whole = property(lambda self: self.root / "whole")
    half = property(lambda self: self.root / "half")

    def seconds(self) -> dict[str, float]:
        """Read how long a process is "starting" and "compiling"."""
        return json.loads((self.root / "seconds.json").read_text())


def variables(root: Path) -> dict[str, str]:
    """Environment variables of a process that trains on a probe.

    Args:
      root: folder of the compiled programs.
    """
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(_TESTS.parent), str(_TESTS))),
        "JAX_COMPILATION_CACHE_DIR": str(root / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def words(path: Path) -> list[str]:
    """Make the arguments that start a run in a folder, or go on with the run there."""
    if (path / "config.json").exists():
        return [*ENV, "--resume", str(path)]
    return [*ENV, *FLAGS, "--run-dir", str(path)]


class Process(NamedTuple):
    """A process of the command line, and what it has said so far."""

    popen: subprocess.Popen
    output: bytearray
    listener: threading.Thread

    def wait(self) -> int:
        """Wait for the end; 124 if it must be killed, because it takes too long."""
        try:
            code = self.popen.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            code = 124
        self.listener.join()
        return code

    def said(self) -> str:
        return self.output.decode(errors="replace")


def start(path: Path, root: Path) -> Process:
    """Start or resume the run of a folder.

    Args:
      path: the run's folder.
      root: folder of the compiled programs.
    """
    popen = subprocess.Popen(
        [sys.executable, "-m", "purejaxppo.train", *words(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=variables(root),
    )
    output = bytearray()

    def listen() -> None:
        assert popen.stdout is not None
        with popen.stdout:
            for line in popen.stdout:
                output.extend(line)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    return Process(popen, output, listener)


def num_rows(path: Path) -> int:
    """Count the updates that are in the table."""
    table = path / "metrics.csv"
    try:
        return max(0, table.read_bytes().count(b"\n") - 1)
    except OSError:
        return 0


def until(condition: Callable[[], object], process: Process) -> bool:
    """Wait for a condition; False if the process ends first."""
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        if condition():
            return True
        if process.popen.poll() is not None:
            return False
        time.sleep(0.001)
    return False


def prepare(root: Path) -> Runs:
    """Make the run without faults, and one that a signal has ended in its middle."""
    runs = Runs(root)
    process = start(runs.whole, root)
    assert process.wait() == EXIT_OK, process.said()
    begin, process = time.monotonic(), start(runs.half, root)
    assert until(lambda: process.output, process), process.said()
    starting = time.monotonic() - begin
    assert until(lambda: num_rows(runs.half), process), process.said()
    compiling = time.monotonic() - begin - starting
    until(lambda: num_rows(runs.half) >= NUM_UPDATES // 2, process)
    process.popen.send_signal(signal.SIGINT)
    assert process.wait() == EXIT_INTERRUPTED, process.said()
    seconds = {"starting": starting, "compiling": compiling}
    (root / "seconds.json").write_text(json.dumps(seconds))
    return runs


# --- what two runs differ in ----------------------------------------------------------


def rows_of(path: Path) -> list[dict[str, str]]:
    """Read the rows of a table, without what a clock says; none if it is missing."""
    if not path.exists():
        return []
    with path.open(newline="", errors="replace") as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in _CLOCK} for row in rows]


def _table_difference(found: list, expected: list) -> str | None:
    if found == expected:
        return None
    if all(row in expected for row in found) and len(found) < len(expected):
        return f"{len(expected) - len(found)} of {len(expected)} rows are missing"
    return f"{len(found)} rows, which are not the {len(expected)} expected"


def _last_arrays(path: Path) -> dict[str, np.ndarray]:
    folder = path / "checkpoints"
    last = checkpoint.steps(folder)[-1:]
    found = arrays.read(folder / f"{last[0]:08d}" / "state") if last else {}
    return found | {"step": np.array(last)}


def _summary(path: Path) -> dict[str, object]:
    file = path / "summary.json"
    summary = json.loads(file.read_text()) if file.exists() else {}
    return {name: summary.get(name) for name in _SUMMARY}


def differences(path: Path, whole: Path) -> list[str]:
    """Say what a finished run has otherwise than the run without faults.

    Args:
      path: of the run.
      whole: of the run without faults.

    Returns:
      A sentence for each table, the last checkpoint and the summary; none if all
      numbers are equal to the bit, but for those that a clock says.
    """
    found = {
        name: _table_difference(rows_of(path / name), rows_of(whole / name))
        for name in TABLES
    }
    ours, expected = _last_arrays(path), _last_arrays(whole)
    unequal = [
        name
        for name in sorted(ours.keys() | expected.keys())
        if name not in ours
        or name not in expected
        or ours[name].tobytes() != expected[name].tobytes()
    ]
    if unequal:
        found["checkpoint"] = f"{len(unequal)} arrays differ, the first is {unequal[0]}"
    if _summary(path) != _summary(whole):
        found["summary.json"] = "its numbers differ"
    return [f"{name}: {sentence}" for name, sentence in found.items() if sentence]
