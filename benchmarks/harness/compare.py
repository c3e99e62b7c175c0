"""Competitors in turn: each a worker of its own, one block of training at a time.

A worker speaks JSON lines (`benchmarks.peers.worker`): it says when it is ready, then
answers each `run` with the steps and seconds of one block, which it timed itself and
blocked on. Those that wait for their turn sleep in a read. What a worker does in one
round is compared with what the others did in the same round.
"""

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import timing
from benchmarks.harness.processes import ROOT, Program, ProgramFailed, ask, end, running
from purejaxppo.run.progress import Progress

OURS = "ours"
PEERS = ROOT / "benchmarks" / "peers"
REQUIREMENTS = PEERS / "requirements"  # NAME.txt: the pins of .peers/NAME
# Seconds that a worker may take to answer.
TIMEOUTS = {"ready": 600.0, "run": 120.0, "train": 3600.0, "finish": 600.0}
FINISH = ("return", "peak_memory_bytes", "steps", "seconds")
Config = dict[str, Any]
Timeouts = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Competitor:
    """A worker script, and the Python environment that it needs.

    Attributes:
      script: below benchmarks/peers/.
      venv: below .peers/; None is the one that we run in.
      changes: of the common configuration.
    """

    script: str
    venv: str | None = None
    changes: Config = dataclasses.field(default_factory=dict)

    def command(self, config: Config) -> list[str]:
        """Build the command that starts it.

        Raises:
          ProgramFailed: its script or its Python environment is missing.
        """
        script, python = PEERS / self.script, Path(sys.executable)
        if self.venv is not None:
            python = ROOT / ".peers" / self.venv / "bin" / "python"
        if not python.exists():
            name = f"{self.venv} is missing: see benchmarks/README.md"
            raise ProgramFailed(f"its Python environment {name}")
        if not script.exists():
            raise ProgramFailed(f"its worker {script.name} is missing")
        return [str(python), str(script), json.dumps({**config, **self.changes})]


Rows = dict[str, dict[str, Any]]  # competitor -> what is known of it


@contextlib.contextmanager
def _failing(row: dict[str, Any]) -> Iterator[None]:
    """Keep of a failure only its reason: figures of a broken race would mislead."""
    try:
        yield
    except ProgramFailed as error:
        row.clear()
        row["error"] = str(error)


def _start(
    stack: contextlib.ExitStack,
    command: list[str],
    timeout: float,
    extra: Mapping[str, str] | None = None,
) -> tuple[Program, dict[str, Any]]:
    """Start a worker, and wait until it is ready: its versions, compile seconds."""
    program = stack.enter_context(running(command, extra))
    ready = ask(program, None, timeout)
    if not ready.get("ready"):
        raise ProgramFailed(f"said {json.dumps(ready)[:200]} before it was ready")
    return program, {name: ready.get(name) for name in ("versions", "compile_seconds")}


def _task(program: Program, row: dict[str, Any], timeouts: Timeouts) -> timing.Task:
    """Make a task that runs one block of a worker, and returns None if it fails."""

    def task() -> timing.Block | None:
        with _failing(row):
            answer = ask(program, "run", timeouts["run"], ("steps", "seconds"))
            return timing.Block(answer["steps"], answer["seconds"])
        end(program.process)  # one that hangs may be busy, and slow the others
        return None

    return task


def race(
    competitors: Mapping[str, Competitor],
    config: Config,
    rounds: int,
    progress: Progress,
    timeouts: Timeouts = TIMEOUTS,
) -> Rows:
    """Measure steps/s of every competitor, and the ratio of ours to it, round by round.

    Workers start one after another, so that none compiles beside another. One that
    fails leaves its one sentence as `error`, and the others go on.

    Args:
      competitors: by name.
      config: the keys that all share.
      rounds: timed blocks of each.
      progress: says what is going on.
      timeouts: seconds for each answer.
    """
    rows: Rows = {name: {} for name in competitors}
    with contextlib.ExitStack() as stack:
        programs = {}
        for name, competitor in competitors.items():
            with progress.phase(f"starting {name}"), _failing(rows[name]):
                command = competitor.command(config)
                started = _start(stack, command, timeouts["ready"])
                programs[name], rows[name] = started
        tasks = {n: _task(p, rows[n], timeouts) for n, p in programs.items()}
        with progress.phase(f"{rounds} rounds of {', '.join(tasks) or 'nobody'}"):
            rates = timing.interleave(tasks, rounds, warm_up=False)
        for name, program in programs.items():
            if "error" not in rows[name]:
                with progress.phase(f"finishing {name}"), _failing(rows[name]):
                    rows[name] |= ask(program, "finish", timeouts["finish"], FINISH)
    _compare(rows, rates)
    return rows


def _compare(rows: Rows, rates: timing.Rates) -> None:
    """Add rates, and ratios where both sides have every round."""
    for name, row in rows.items():
        if "error" in row or not rates.get(name):
            continue
        row["steps_per_second"] = timing.median_and_spread(rates[name])
        if name != OURS and "error" not in rows.get(OURS, {"error": ""}):
            row["ours_over_it"] = timing.ratio(rates, OURS, name)


def train(
    competitors: Mapping[str, Competitor],
    config: Config,
    seeds: Sequence[int],
    progress: Progress,
    timeouts: Timeouts = TIMEOUTS,
) -> Rows:
    """Train from scratch to the same number of steps, once a seed: returns reached.

    Each in a new worker, one at a time; what it compiled is cached for its next seed.
    A competitor that failed is not tried again.

    Args:
      competitors, config, progress, timeouts: see `race`.
      seeds: of the trainings.
    """
    rows: Rows = {name: {} for name in competitors}
    for name, competitor in competitors.items():
        runs = []
        with _failing(rows[name]), tempfile.TemporaryDirectory() as cache:
            for seed in seeds:
                with progress.phase(f"training {name}, seed {seed}"):
                    # It is not timed in blocks here: the shortest warm-up will do.
                    own = {**config, "seed": seed, "block_seconds": 0.0}
                    runs.append(_train(competitor.command(own), timeouts, cache))
            rows[name] = {
                "returns": [run["return"] for run in runs],
                "steps": runs[0]["steps"],
                "seconds": timing.median_and_spread([run["seconds"] for run in runs]),
            }
    return rows


def _train(command: list[str], timeouts: Timeouts, cache: str) -> dict[str, Any]:
    extra = {"JAX_COMPILATION_CACHE_DIR": cache}
    with contextlib.ExitStack() as stack:
        program, _ = _start(stack, command, timeouts["ready"], extra)
        return ask(program, "train", timeouts["train"], ("return", "steps", "seconds"))
