"""Everything that is to be known of a GPU, in the ten minutes that one is there for.

    python -m benchmarks.gpu [--quick] [--out DIR] [--engines warp mjx] [--limit 570]

The hammer: physics alone, rollout and whole updates at 1,024 to 32,768 environments,
ways to capture CUDA graphs, precision of matrix products, memory, seconds from the
command to 95 % of the worst block, seeds side by side. The most important comes first.
Each part is a process of its own with a time of its own; what it has said is written to
DIR/gpu.json at once. Started again with the same DIR it goes on: parts that were done
are kept, those that failed come last.

`--quick` goes through the same parts at tiny sizes, on any machine: a rehearsal, whose
figures mean nothing.
"""

import argparse
import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import record
from benchmarks.hammer_learning import CASES
from benchmarks.processes import ProgramFailed, ask, running

Json = dict[str, Any]
BAR = 0.95
_LEAST = 20.0  # seconds that are worth beginning a part for
_LOOK = 0.1


class Part(NamedTuple):
    """A measurement: its name in the results, what it is, and the time it may take."""

    name: str
    part: str
    values: Json
    seconds: float


class Scale(NamedTuple):
    """How large everything is."""

    counts: tuple[int, ...]  # environments; the first is the one to compare at
    later: tuple[int, ...]  # to fill the curve in
    num_steps: int
    rounds: int
    seeds: tuple[int, ...]
    seed_envs: int
    learning: tuple[str, ...]  # flags
    bar: float


# Of the preset: as many updates, with sixteen times the environments.
_LEARNING = "--num-envs 1024 --total-timesteps 8000000 --num-evals 40".split()
_REHEARSAL = (
    "--num-envs 4 --num-steps 8 --num-minibatches 2 --num-epochs 1 --num-evals 2 "
    "--total-timesteps 128 --eval-blocks 2 --eval-episodes 2 --critic-warmup 0 "
    "--num-demonstrations 1"
).split()
FULL = Scale(
    (8192, 1024, 32768), (2048, 4096, 16384), 16, 5, (1, 4, 16), 1024,
    tuple(_LEARNING), BAR,
)  # fmt: skip
QUICK = Scale((4,), (), 2, 1, (1, 2), 2, tuple(_REHEARSAL), 0.0)


def plan(engines: list[str], scale: Scale) -> list[Part]:
    """All parts, the most important first; engines in the order of our trust."""
    sizes: Json = {"num_steps": scale.num_steps, "rounds": scale.rounds}
    at = {"num_envs": scale.counts[0], **sizes}

    def speed(engine: str, num_envs: int, seconds: float) -> Part:
        values = {"engine": engine, **sizes, "num_envs": num_envs}
        return Part(f"speed {engine} {num_envs}", "speed", values, seconds)

    def of(engine: str) -> list[Part]:
        first, *others = scale.counts
        values = {"engine": engine, **at}
        learn = {"engine": engine, "flags": scale.learning, "bar": scale.bar}
        counts = {"counts": scale.seeds, **values, "num_envs": scale.seed_envs}
        return [
            speed(engine, first, 150),
            Part(f"learning {engine}", "learning", learn, 150),
            *(speed(engine, num, 120) for num in others),
            Part(f"precision {engine}", "precision", values, 120),
            Part(f"seeds {engine}", "seeds", counts, 150),
        ]

    parts = [Part("engines", "compare", {"engines": engines, **at}, 240)]
    for engine in engines:
        parts += of(engine)
        if engine == "warp":
            parts.append(Part("graphs warp", "graphs", at, 100))
        if engine == "mjx":
            parts.append(Part("precision physics", "physics_precision", at, 150))
    return parts + [speed(e, num, 120) for e in engines for num in scale.later]


def answers(part: Part, seconds: float) -> Iterator[Json]:
    """What the part says, in a process that has so many seconds.

    Raises:
      ProgramFailed: it broke, or its time was up.
    """
    request = json.dumps({"part": part.part, "values": part.values})
    deadline = time.monotonic() + seconds
    with running([sys.executable, "-m", "benchmarks.gpu_parts", request]) as program:
        while not (
            answer := ask(program, None, max(deadline - time.monotonic(), 0.0))
        ).get("end"):
            yield answer


def learning(
    engine: str, flags: list[str], bar: float, seconds: float
) -> Iterator[Json]:
    """Seconds from the command to a worst block at the bar, demonstrations included.

    Raises:
      ProgramFailed: it ended, or its time was up, before that.
    """
    worst = CASES["default"][2]
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        command = [sys.executable, "-m", "purejaxppo.train", "--env", "hammer"]
        command += ["--engine", engine, *flags, "--run-dir", str(folder)]
        cache = {"JAX_COMPILATION_CACHE_DIR": str(Path(name) / "cache")}
        with running([*command, "--no-tensorboard"], cache) as program:
            seen: list[Json] = []
            while True:
                ended = program.process.poll() is not None
                rows = evaluations(folder / "evals.csv")
                now = time.monotonic() - begin
                for row in rows[len(seen) :]:
                    value = round(float(row[worst]), 6)
                    seen.append(
                        {"seconds": now, "steps": int(row["steps"]), "worst": value}
                    )
                    yield {"curve": seen, "flags": flags}
                # The first row is the cloned policy, before PPO.
                reached = [p for p in seen[1:] if p["worst"] >= bar]
                if reached:
                    yield {"curve": seen, "flags": flags, "reached": reached[0]}
                    return
                if now > seconds:
                    raise ProgramFailed(f"was not at {bar} in {seconds:.0f} s")
                if ended:
                    ask(program, None, _LOOK)  # it will not: this says how it ended
                time.sleep(_LOOK)


def evaluations(path: Path) -> list[dict[str, str]]:
    """The whole rows of a file that is being written."""
    if not path.exists():
        return []
    text = path.read_text()
    return list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))


def run_part(part: Part, seconds: float) -> Iterator[Json]:
    """The part's result as it grows; at the end with how it ended."""
    begin = time.monotonic()
    result: Json = {"status": "running", **part.values}
    if part.part == "learning":
        said = learning(**part.values, seconds=seconds)
    else:
        said = answers(part, seconds)
    try:
        for answer in said:
            result |= answer
            yield result
        result["status"] = "done"
    except ProgramFailed as failure:
        result |= {"status": "failed", "reason": str(failure)}
    result["seconds"] = round(time.monotonic() - begin, 1)
    yield result


def run(parts: list[Part], folder: Path, limit: float, name: str = "gpu") -> Path:
    """Run what is left of the parts, and write after each answer."""
    path = folder / f"{name}.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    results: Json = stored.get("results", {})
    machine: Json = stored.get("machine", {})
    status = {name: result["status"] for name, result in results.items()}
    left = [part for part in parts if status.get(part.name) != "done"]
    left.sort(key=lambda part: part.name in status)
    deadline = time.monotonic() + limit
    for part in left:
        seconds = min(part.seconds, deadline - time.monotonic())
        if seconds < min(_LEAST, part.seconds):
            print(f"{part.name}: not begun, the time is up", flush=True)
            continue
        for result in run_part(part, seconds):
            machine = result.pop("machine", machine)
            results[part.name] = result
            path = record.write(name, results, folder, machine)
        print(summary(part.name, results[part.name]), flush=True)
    return path


def summary(name: str, result: Json) -> str:
    """One line of a part."""
    rates = result.get("steps_per_second", {})
    figures = [f"{n} {rate['median']:,.0f}" for n, rate in rates.items()]
    if "reached" in result:
        figures.append(f"{result['reached']['seconds']:.1f} s")
    line = f"{name}: {result['status']} in {result['seconds']} s; {', '.join(figures)}"
    return line + (f" ({result['reason']})" if "reason" in result else "")


def installed() -> list[str]:
    """The engines to measure here, without starting JAX: Warp where it is there."""
    from purejaxppo.envs.physics.engine import warp_installed

    return ["warp", "mjx"] if warp_installed() else ["mjx"]


def main() -> None:
    parser = argparse.ArgumentParser(description="Everything about a GPU.")
    parser.add_argument("--quick", action="store_true", help="a rehearsal, tiny")
    parser.add_argument("--out", type=Path, default=None, help="folder of gpu.json")
    parser.add_argument("--engines", nargs="+", default=None)
    parser.add_argument("--limit", type=float, default=570.0, help="seconds in all")
    arguments = parser.parse_args()
    scale = QUICK if arguments.quick else FULL
    engines = arguments.engines or (["mujoco"] if arguments.quick else installed())
    # A rehearsal must not be taken for a result.
    name = "gpu_quick" if arguments.quick else "gpu"
    if arguments.quick:
        # Compiled with less care, and so in a third of the time.
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()
    folder = record.RESULTS if arguments.out is None else arguments.out
    print(run(plan(engines, scale), folder, arguments.limit, name))


if __name__ == "__main__":
    main()
