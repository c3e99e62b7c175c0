"""What is measured, as data: each workload is a name, a sentence and its parts.

A part is a function from `Options` to figures; those of all parts of a workload are one
result. Parts that measure us run in a process of their own (`benchmarks.part`), those
against peers start workers (`benchmarks.compare`).
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import compare, races, startup
from benchmarks.compare import Competitor
from benchmarks.processes import ProgramFailed, answer_of
from benchmarks.races import FEW
from purejaxppo.run.progress import Progress

Figures = dict[str, Any]
ROUNDS, QUICK_ROUNDS = 15, 2
STARTS = 5  # of the command line
PART_TIMEOUT = 3600.0  # seconds


class Options(NamedTuple):
    """How to measure.

    Attributes:
      rounds: how often things are timed in turn.
      quick: tiny sizes, to see that it runs; the figures mean nothing.
    """

    rounds: int
    quick: bool
    progress: Progress


Part = Callable[[Options], Figures]


class Workload(NamedTuple):
    """What is measured, in one sentence, and how."""

    about: str
    parts: tuple[Part, ...]


def _answer(part: str, request: Figures, options: Options, cache: str) -> Figures:
    command = [sys.executable, "-m", "benchmarks.part", part, json.dumps(request)]
    # As kept by the command line, however fast it compiled: the second process must not
    # compile what the first has.
    extra = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with options.progress.phase(f"measuring {part}"):
        return answer_of(command, PART_TIMEOUT, extra)


def isolated(part: str, request: Figures, quick: Figures) -> Part:
    """One part in a process of its own; `quick` replaces what it asks for."""

    def run(options: Options) -> Figures:
        asked = request | {"rounds": options.rounds} | (quick if options.quick else {})
        with tempfile.TemporaryDirectory() as cache:
            return _answer(part, asked, options, cache)

    return run


QUICK = {"num_envs": 8, "num_steps": 8, "eval_blocks": 1, "eval_episodes": 2}
QUICK |= {"total_timesteps": 128, "num_evals": 0}


def ours(case: Figures, quick: Figures) -> Part:
    """Stages, compile seconds (cold, cached), training: one configuration of ours.

    Args:
      case: what `benchmarks.part.config_of` takes.
      quick: what replaces it under --quick.
    """

    def run(options: Options) -> Figures:
        asked = case | quick if options.quick else case
        with tempfile.TemporaryDirectory() as cache:
            request = {"case": asked, "rounds": options.rounds}
            figures = _answer("speed", request, options, cache)
            trained = _answer("training", {"case": asked}, options, cache)
        compiled = figures["compile_seconds"] | trained["compile_seconds"]
        return figures | trained | {"compile_seconds": compiled}

    return run


def of_preset(env: str, **quick: Any) -> Part:
    """An environment of ours as the command line would train it."""
    return ours({"env": env}, QUICK | quick)


def of_race(common: Figures, in_quick: bool = False) -> Part:
    """Our side of a race, taken apart; under --quick only where `in_quick` says so."""
    part = ours({"common": common}, {"common": common | FEW})
    return lambda options: {} if options.quick and not in_quick else part(options)


def against(
    competitors: Mapping[str, Competitor],
    common: Figures,
    seeds: Sequence[int] = (0, 1, 2),
    block_seconds: float = 2.0,
) -> Part:
    """Workers in turn; then each trains from scratch, once a seed.

    Args:
      common: the keys of the configuration that all share.
      seeds: none where only speed is compared.
    """

    def run(options: Options) -> Figures:
        asked, wanted = {**common, "block_seconds": block_seconds}, seeds
        if options.quick:
            asked, wanted = asked | FEW, seeds[:1]
        rows = compare.race(competitors, asked, options.rounds, options.progress)
        figures = {"config": asked, "rounds": options.rounds, "workers": rows}
        able = {
            name: competitor
            for name, competitor in competitors.items()
            if "error" not in rows[name] and (name == compare.OURS or not options.quick)
        }
        if wanted:
            figures["training"] = compare.train(able, asked, wanted, options.progress)
            figures["seeds"] = list(wanted)
        return {"peers": figures}

    return run


def from_the_command(options: Options) -> Figures:
    """The command line, cold and with its cache."""
    flags = ["--env", "hammer", "--total-timesteps", "65536", "--num-evals", "1"]
    if options.quick:
        sizes = {"num-envs": 8, "num-steps": 8, "total-timesteps": 640}
        sizes |= {"num-demonstrations": 1, "cloning-steps": 10}
        flags += [word for n, v in sizes.items() for word in (f"--{n}", str(v))]
    with options.progress.phase("starting the command line, cold, then cached"):
        return startup.measure(flags, 1 if options.quick else STARTS)


_LESS_CLONING = {"num_demonstrations": 1, "cloning_steps": 10, "critic_warmup": 1}

WORKLOADS: dict[str, Workload] = {
    "hammer": Workload(
        "The hammer as the command line trains it, C MuJoCo inside the jitted scan.",
        (of_preset("hammer", **_LESS_CLONING),),
    ),
    "scheduler": Workload(
        "Masked discrete actions; integers and no physics.", (of_preset("scheduler"),)
    ),
    "lifecycle": Workload(
        "A recurrent core and four heads, of which an op makes some matter.",
        (of_preset("lifecycle"),),
    ),
    "deck": Workload(
        "A card game, and k of n cards without replacement.", (of_preset("deck"),)
    ),
    "cartpole": Workload(
        "CartPole in JAX by gymnax, 64 environments x 128 steps, networks 2 x 64.",
        (of_race(races.CARTPOLE, in_quick=True), against(races.IN_JAX, races.CARTPOLE)),
    ),
    "cartpole-8": Workload(
        "CartPole, 8 environments x 128 steps; in Python for SB3 and SBX.",
        (
            of_race(races.CARTPOLE_8),
            against(races.IN_PYTHON, races.CARTPOLE_8),
        ),
    ),
    "cartpole-4": Workload(
        "CartPole, 4 environments x 128 steps.",
        (of_race(races.CARTPOLE_4), against(races.IN_JAX, races.CARTPOLE_4)),
    ),
    "pendulum": Workload(
        "Pendulum: continuous actions, in JAX by gymnax.",
        (of_race(races.PENDULUM), against(races.IN_JAX, races.PENDULUM)),
    ),
    "brax-pendulum": Workload(
        "Brax's inverted pendulum on MJX, 512 environments, Brax's PPO and ours.",
        (of_race(races.BRAX_PENDULUM), against(races.BRAX, races.BRAX_PENDULUM)),
    ),
    # From scratch, with a sparse reward and no demonstrations, none of them learns.
    "brax-hammer": Workload(
        "Our hammer, Brax's PPO and ours.",
        (against(races.BRAX, races.BRAX_HAMMER, seeds=()),),
    ),
    "metaworld": Workload(
        "The hammer as Meta-World and EnvPool have it under SB3, and ours.",
        (against(races.METAWORLD, races.HAMMER, seeds=()),),
    ),
    "simulation": Workload(
        "The hammer under random actions, nobody learning: ours, EnvPool, Meta-World.",
        (against(races.SIMULATION, races.HAMMER, seeds=()),),
    ),
    "update": Workload(
        "Epochs, losses and optimiser on a fixed batch, networks 2 x 256; amounts are "
        "sample passes. 32,768 samples against torch, 4,096 where layers are compared.",
        (
            isolated("layers", {}, {"hidden": 8, "num_envs": 4}),
            against(races.UPDATE, races.NOISE, seeds=()),
        ),
    ),
    "seeds": Workload(
        "Eight seeds in one process, by three ways.",
        (
            isolated(
                "seeds",
                {
                    "num_seeds": 8,
                    "cases": {
                        "cartpole": {"common": races.CARTPOLE},
                        "hammer": {
                            "env": "hammer",
                            "num_demonstrations": 1,
                            "cloning_steps": 10,
                        },
                    },
                },
                {
                    "num_seeds": 2,
                    "cases": {"hammer": {"env": "hammer", **QUICK, **_LESS_CLONING}},
                },
            ),
        ),
    ),
    "startup": Workload(
        "`python -m purejaxppo.train --env hammer`, to the end of its first update.",
        (from_the_command,),
    ),
}


def measure(workload: Workload, options: Options) -> Figures:
    """The figures of all parts; of a part that cannot run, the sentence why."""
    figures: Figures = {"about": workload.about}
    for part in workload.parts:
        try:
            figures |= part(options)
        except ProgramFailed as error:
            figures.setdefault("errors", []).append(str(error))
    return figures
