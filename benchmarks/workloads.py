"""What is measured, as data: each workload is a name, a sentence and its parts.

A part is a function from `Options` to figures; those of all parts of a workload are one
result. Parts that measure us run in a process of their own (`benchmarks.harness.part`),
those against peers start workers (`benchmarks.harness.compare`).
"""

import itertools
import json
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import startup
from benchmarks.harness import compare
from benchmarks.harness.processes import ProgramFailed, answer_of
from benchmarks.races import FEW, RACES, Race
from purejaxppo.run.progress import Progress

ROUNDS, QUICK_ROUNDS = 15, 2
STARTS = 5  # of the command line
PART_TIMEOUT = 3600.0  # seconds
Figures = dict[str, Any]
_DATA = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


class Options(NamedTuple):
    """How to measure.

    Attributes:
      rounds: how often things are timed in turn.
      quick: tiny sizes, to see that it runs; the figures mean nothing.
      progress: says what is going on.
    """

    rounds: int
    quick: bool
    progress: Progress


Part = Callable[[Options], Figures]


class Workload(NamedTuple):
    """What is measured, in one sentence, and how.

    Attributes:
      about: the sentence.
      parts: each gives some of the figures.
      by_name: measured only where it is named.
    """

    about: str
    parts: tuple[Part, ...]
    by_name: bool = False


def _answer(part: str, request: Figures, options: Options, cache: str) -> Figures:
    """Measure one part in a process with that folder of compiled programs."""
    command = [sys.executable, "-m", "benchmarks.harness.part", part]
    # Every program is stored, however fast it compiled: the second process must not
    # compile what the first has.
    variables = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with options.progress.phase(f"measuring {part}"):
        return answer_of([*command, json.dumps(request)], PART_TIMEOUT, variables)


def ours(case: Figures, quick: Figures) -> Part:
    """Measure stages, compile seconds (cold, cached) and training of ours.

    Args:
      case: what `benchmarks.harness.part.config_of` takes.
      quick: what replaces it under --quick.
    """

    def run(options: Options) -> Figures:
        config = case | quick if options.quick else case
        with tempfile.TemporaryDirectory() as cache:
            request = {"case": config, "rounds": options.rounds}
            figures = _answer("speed", request, options, cache)
            trained = _answer("training", {"case": config}, options, cache)
        compiled = figures["compile_seconds"] | trained["compile_seconds"]
        return figures | trained | {"compile_seconds": compiled}

    return run


def our_side(race: Race) -> tuple[Part, ...]:
    """Take our side of a race apart, where the race says so."""
    common = race.configuration
    part = ours({"common": common}, {"common": common | FEW})
    return (part,) if race.stages else ()


def against(race: Race) -> Part:
    """Race the workers; then each trains from scratch, once a seed."""

    def run(options: Options) -> Figures:
        config, seeds = race.configuration, race.seeds
        if options.quick:
            config, seeds = config | FEW, seeds[:1]
        competitors, progress = race.competitors, options.progress
        rows = compare.race(competitors, config, options.rounds, progress)
        figures = {"config": config, "rounds": options.rounds, "workers": rows}
        trainable = {
            name: competitor
            for name, competitor in competitors.items()
            if "error" not in rows[name] and (name == compare.OURS or not options.quick)
        }
        if seeds:
            figures["training"] = compare.train(trainable, config, seeds, progress)
            figures["seeds"] = list(seeds)
        return {"peers": figures}

    return run


def start_up(options: Options) -> Figures:
    """Start the command line, cold and with its cache."""
    flags = _DATA["startup"]["quick" if options.quick else "flags"].split()
    with options.progress.phase("starting the command line, cold, then cached"):
        return startup.measure(flags, 1 if options.quick else STARTS)


def _workload(workload: Figures) -> Workload:
    """Make the workload of an entry of workloads.toml: a configuration of ours."""
    quick = _DATA["quick"] | workload.get("quick", {})
    by_name = workload.get("by_name", False)
    return Workload(workload["about"], (ours(workload["case"], quick),), by_name)


def _on_accelerators() -> dict[str, Workload]:
    """Make a workload of each engine and number of environments."""
    shape = _DATA["accelerator"]
    found = {}
    for engine, num_envs in itertools.product(shape["engines"], shape["num_envs"]):
        steps = num_envs * shape["steps_of_each"]
        sizes = {"num_envs": num_envs, "total_timesteps": steps}
        case = shape["case"] | sizes | {"env_kwargs": {"engine": engine}}
        about = shape["about"].format(engine=engine, num_envs=num_envs)
        name = f"gpu-{engine}-{num_envs}"
        found[name] = _workload(shape | {"about": about, "case": case})
    return found


WORKLOADS: dict[str, Workload] = {
    **{name: _workload(workload) for name, workload in _DATA["workloads"].items()},
    **{
        name: Workload(race.about, (*our_side(race), against(race)))
        for name, race in RACES.items()
    },
    "startup": Workload(_DATA["startup"]["about"], (start_up,)),
    **_on_accelerators(),
}


def measure(workload: Workload, options: Options) -> Figures:
    """Measure all parts; of a part that cannot run, say why."""
    figures: Figures = {"about": workload.about}
    for part in workload.parts:
        try:
            figures |= part(options)
        except ProgramFailed as error:
            figures.setdefault("errors", []).append(str(error))
    return figures
