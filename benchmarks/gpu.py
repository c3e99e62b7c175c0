"""The workload `gpu`: what is to be known of a GPU, in the ten minutes it is there.

The hammer on each engine: physics, rollout and whole updates at 1,024 to 32,768
environments, memory, precision of matrix products, seconds that a run takes to 95 % of
the worst block, seeds side by side. The most important comes first; each measurement is
a process with a time of its own, and is on disk before the next one begins.

    python -m benchmarks gpu --limit 570 --out DIR   # again: goes on with what is left
    python -m benchmarks gpu --quick                 # a rehearsal on any machine
"""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from benchmarks import startup
from benchmarks.harness.options import Options
from benchmarks.harness.processes import ProgramFailed, answer_of

Json = dict[str, Any]
NUM_ENVS = (8192, 1024, 32768, 2048, 4096, 16384)
NUM_SEEDS = (1, 4, 16)
SECONDS = 200.0  # that a measurement may take
_LEAST = 20.0  # seconds that are worth beginning one for
_HIGHEST = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
# As many updates as in the preset, with sixteen times the environments.
_FLAGS = "--num-envs 1024 --total-timesteps 8000000 --num-evals 40"
_QUICK_FLAGS = (
    "--num-envs 4 --num-steps 8 --num-minibatches 2 --num-epochs 1 --num-evals 2 "
    "--total-timesteps 128 --eval-blocks 2 --eval-episodes 2 --critic-warmup 0 "
    "--num-demonstrations 1"
)


class Measurement(NamedTuple):
    """A name in the results, the part of the harness, its request and environment."""

    name: str
    part: str
    request: Json
    variables: dict[str, str] = {}  # noqa: RUF012 (read alone)


def hammer(engine: str, num_envs: int) -> Json:
    """The preset without its demonstrations: speed does not depend on them.

    Every minibatch is run, whatever the KL of a policy that knows nothing.
    """
    return {
        "env": "hammer",
        "env_kwargs": {"engine": engine},
        "num_envs": num_envs,
        "num_steps": 16,
        "total_timesteps": 16_000 * num_envs,
        "num_demonstrations": 0,
        "critic_warmup": 0,
        "anchor": False,
        "normalize_observations": "running",
        "target_kl": 1e9,
    }


def plan(engines: Sequence[str], rounds: int, quick: bool) -> list[Measurement]:
    """All measurements, the most important first.

    Args:
      engines: in the order of our trust.
      rounds: how often things are timed in turn.
      quick: tiny sizes.
    """
    first, *others = (4,) if quick else NUM_ENVS
    bar, flags = (0.0, _QUICK_FLAGS) if quick else (0.95, _FLAGS)

    def speed(name: str, engine: str, num_envs: int, stages: str, **variables: str):
        case, names = hammer(engine, num_envs), stages.split()
        request = {"case": case, "rounds": rounds, "names": names}
        return Measurement(f"{name} {engine}", "speed", request, variables)

    def size(engine: str, num_envs: int) -> Measurement:
        stages = "physics rollout end_to_end"
        return speed(f"{num_envs} environments", engine, num_envs, stages)

    found = []
    for engine in engines:
        command = ["--env", "hammer", "--engine", engine, *flags.split()]
        case = {"case": hammer(engine, 2 if quick else 1024), "rounds": rounds}
        seeds = case | {"counts": (1, 2) if quick else NUM_SEEDS}
        update = (engine, first, "update end_to_end")
        found += [
            size(engine, first),
            Measurement(f"learning {engine}", "", {"flags": command, "bar": bar}),
            *(size(engine, num_envs) for num_envs in others[:2]),
            speed("default precision", *update),
            speed("highest precision", *update, **_HIGHEST),
            Measurement(f"seeds {engine}", "seeds", seeds),
        ]
    return found + [size(e, num_envs) for e in engines for num_envs in others[2:]]


def answer(measurement: Measurement, seconds: float) -> Json:
    """What is measured, or why it was not, in at most that many seconds."""
    begin = time.monotonic()
    try:
        if measurement.part:
            command = [sys.executable, "-m", "benchmarks.harness.part"]
            command += [measurement.part, json.dumps(measurement.request)]
            result = answer_of(command, seconds, measurement.variables)
        else:
            result = startup.seconds_to_bar(**measurement.request, timeout=seconds)
        result["status"] = "done"
    except ProgramFailed as failure:
        result = {"status": "failed", "reason": str(failure)}
    return result | {"seconds": round(time.monotonic() - begin, 1)}


def run(measurements: list[Measurement], options: Options) -> Json:
    """The results: those stored that are done, then what is left, failures last."""
    results: Json = dict(options.stored.get("gpu", {}))
    status = {name: result["status"] for name, result in results.items()}
    left = [m for m in measurements if status.get(m.name) != "done"]
    left.sort(key=lambda measurement: measurement.name in status)
    for measurement in left:
        seconds = min(SECONDS, options.deadline - time.monotonic())
        if seconds < _LEAST:
            options.progress.line(f"{measurement.name}: not begun, the time is up")
            continue
        with options.progress.phase(f"measuring {measurement.name}"):
            results[measurement.name] = answer(measurement, seconds)
        options.save({"gpu": results})
    return {"gpu": results}


def measure(options: Options) -> Json:
    """The part of the workload; without starting JAX in this process."""
    from purejaxppo.envs.physics.engine import warp_installed

    engines = ["warp", "mjx"] if warp_installed() else ["mjx"]
    engines = ["mujoco"] if options.quick else engines
    return run(plan(engines, options.rounds, options.quick), options)
