"""The protocol of a worker: JSON lines over stdin and stdout, standard library only.

    PYTHONPATH=ROOT PYTHON benchmarks/peers/NAME.py '{"env": ..., "block_seconds": 2}'

ROOT is the checkout's root and PYTHON that of the peer's virtual environment. A worker
is a script that builds a `Task` and hands it to `main`. It sets up, compiles, warms up
and says `{"ready": true, ...}`; then it answers, until its input ends:

- `run`: one timed block of training, `{"steps": int, "seconds": float}`;
- `train`: training from scratch for `total_steps`, where the task has it,
  `{"return": float, "steps": int, "seconds": float}`;
- `finish`: evaluation and `{"return": float or null, "peak_memory_bytes": int,
  "steps": int, "seconds": float}`, and the process ends.

What goes wrong is `{"error": "one sentence"}` and exit code 1; the trace is on stderr.
A script's own folder is the first that it imports from, so no script here may be
called like a package that one of them imports.
"""

import importlib.metadata
import json
import os
import resource
import sys
import time
import tomllib
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Json = dict[str, Any]
Prepare = Callable[[int], Callable[[], None]]
BLOCK_SECONDS = 2.0


class Task(NamedTuple):
    """What one competitor does.

    A unit is the smallest piece of work that can be timed by itself: a rollout and its
    epochs, or the epochs alone.

    Attributes:
      prepare: (n) -> a block, compiled where the peer compiles: each call of it takes
        the training n units on from where it was, and returns when that is done.
      steps_per_unit: environment steps of a unit, or sample passes without one.
      versions: package -> version.
      compiles: whether `prepare` compiles, so that its time means something.
      evaluate: () -> mean return over the evaluation episodes of the policy reached.
      train: () -> the answer to `train`, its seconds without compiling.
    """

    prepare: Prepare
    steps_per_unit: int
    versions: dict[str, str | None]
    compiles: bool = True
    evaluate: Callable[[], float | None] = lambda: None
    train: Callable[[], Json] | None = None


def named(config: Json, stack: str) -> Json:
    """Translate the shared keys of a configuration into the stack's own names."""
    names = tomllib.loads(Path(__file__).with_name("names.toml").read_text())[stack]
    return {name: config[key] for key, name in names.items() if key in config}


def versions(*packages: str) -> dict[str, str | None]:
    """Look up the version of each package, None where it is not installed."""

    def version(package: str) -> str | None:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {package: version(package) for package in packages}


def seconds_of(call: Callable[[], Any]) -> float:
    """Measure the wall time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def trained(
    run: Callable[[], T], mean_return: Callable[[T], float | None], steps: int
) -> Json:
    """Train, and make the answer to `train`.

    Args:
      run: trains from scratch to the end.
      mean_return: of what `run` gives; not timed.
      steps: that `run` takes.
    """
    begin = time.perf_counter()
    state = run()
    seconds = time.perf_counter() - begin
    return {"return": mean_return(state), "steps": steps, "seconds": seconds}


def peak_memory_bytes() -> int:
    """Read the largest resident size that this process has had."""
    try:
        with open("/proc/self/status") as lines:
            kilobytes = next(line for line in lines if line.startswith("VmHWM:"))
        return int(kilobytes.split()[1]) * 1024
    except (OSError, StopIteration):
        # Not the first choice: on Linux it is never below what the process that
        # started this one held at the time.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def serve(
    make: Callable[[Json], Task],
    config: Json,
    commands: Iterable[str],
    send: Callable[[Json], None],
) -> None:
    """Set the task up, then answer each command until `finish` or the last one.

    Args:
      make: the task of a configuration.
      config: the keys that all competitors share, and the peer's own.
      commands: lines.
      send: takes an answer.
    """
    task = make(config)
    block, units, ready = _warm_up(task, config.get("block_seconds", BLOCK_SECONDS))
    send(ready)
    steps, seconds = ready["steps"], ready["seconds"]
    for command in map(str.strip, commands):
        if command == "run":
            took = seconds_of(block)
            done = units * task.steps_per_unit
            steps, seconds = steps + done, seconds + took
            send({"steps": done, "seconds": took})
        elif command == "train" and task.train is not None:
            send(task.train())
        elif command == "finish":
            total = {"steps": steps, "seconds": seconds}
            # Evaluated first: what playing needs is part of the peak.
            reached = task.evaluate()
            peak = peak_memory_bytes()
            send({"return": reached, "peak_memory_bytes": peak, **total})
            return
        else:
            raise ValueError(f"command: got {command!r}; allowed is what the task has")


def _warm_up(task: Task, block_seconds: float) -> tuple[Callable[[], None], int, Json]:
    """Prepare a block of about that many seconds; its units, and the first answer."""
    took: list[float] = []

    def prepared(units: int, calls: int) -> tuple[Callable[[], None], float]:
        begin = time.perf_counter()
        block = task.prepare(units)
        seconds = time.perf_counter() - begin
        took.extend(seconds_of(block) for _ in range(calls))
        return block, seconds

    block, compile_seconds = prepared(1, calls=3)
    # The first call may do what later ones need not.
    units = max(1, round(block_seconds / min(took[1:])))
    if units > 1:
        block, compile_seconds = prepared(units, calls=1)
    ready = {
        "ready": True,
        "versions": task.versions,
        "compile_seconds": compile_seconds if task.compiles else None,
        "steps_per_block": units * task.steps_per_unit,
        # What warming up trained: it counts for the return, though not as a block.
        "steps": (3 + (units if units > 1 else 0)) * task.steps_per_unit,
        "seconds": sum(took),
    }
    return block, units, ready


def main(make: Callable[[Json], Task]) -> None:
    """Serve this process's stdin and stdout with the configuration of its argument."""
    # Libraries print: whatever they write to stdout goes to stderr from here on.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def send(message: Json) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        # Not `for line in sys.stdin`, which may wait for more than one line.
        serve(make, json.loads(sys.argv[1]), iter(sys.stdin.readline, ""), send)
    except Exception as error:
        traceback.print_exc()
        send({"error": " ".join(f"{type(error).__name__}: {error}".split())})
        sys.exit(1)
