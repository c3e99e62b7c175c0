"""What is measured, as data: each workload is a name, a sentence and its parts.

A part is a function from `Options` to figures; those of all parts of a workload are one
result. Parts that measure us run in a process of their own (`benchmarks.part`), those
against peers start workers (`benchmarks.compare`).
"""

import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks import compare, startup
from benchmarks.compare import Competitor
from benchmarks.processes import ProgramFailed, answer_of
from purejaxppo.run.progress import Progress

Figures = dict[str, Any]
ROUNDS, QUICK_ROUNDS = 15, 2
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
    with options.progress.ticking(f"measuring {part}"):
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


def ours(env: str, quick: Figures | None = None, **values: Any) -> Part:
    """Stages, compile seconds (cold, cached), training: one configuration of ours."""

    def run(options: Options) -> Figures:
        case = {"env": env, **values}
        if options.quick:
            case |= QUICK | (quick or {})
        with tempfile.TemporaryDirectory() as cache:
            request = {"case": case, "rounds": options.rounds}
            figures = _answer("speed", request, options, cache)
            trained = _answer("training", {"case": case}, options, cache)
        compiled = figures["compile_seconds"] | trained["compile_seconds"]
        return figures | trained | {"compile_seconds": compiled}

    return run


def against(
    competitors: Mapping[str, Competitor],
    config: Figures,
    quick: Figures | None = None,
    block_seconds: float = 2.0,
    seeds: tuple[int, ...] = (0, 1, 2),
) -> Part:
    """Workers in turn; then, where `config` has total_steps, training from scratch."""

    def run(options: Options) -> Figures:
        asked, wanted = {**config, "block_seconds": block_seconds}, seeds
        if options.quick:
            asked |= {"block_seconds": 0.1, **(quick or {})}
            wanted = seeds[:1]
        rows = compare.race(competitors, asked, options.rounds, options.progress)
        figures = {"config": asked, "rounds": options.rounds, "workers": rows}
        if "total_steps" in asked:
            able = {n: c for n, c in competitors.items() if "error" not in rows[n]}
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
    with options.progress.ticking("starting the command line, cold, then cached"):
        return startup.measure(flags)


_LESS_CLONING = {"num_demonstrations": 1, "cloning_steps": 10, "critic_warmup": 1}
_SMALL = {"hidden_sizes": [64, 64], "critic_hidden_sizes": [64, 64]}

WORKLOADS: dict[str, Workload] = {
    "hammer": Workload(
        "The hammer as the command line trains it, C MuJoCo inside the jitted scan.",
        (ours("hammer", _LESS_CLONING),),
    ),
    "scheduler": Workload(
        "Masked discrete actions; integers and no physics.", (ours("scheduler"),)
    ),
    "lifecycle": Workload(
        "A recurrent core and four heads, of which an op makes some matter.",
        (ours("lifecycle"),),
    ),
    "deck": Workload(
        "A card game, and k of n cards without replacement.", (ours("deck"),)
    ),
    "update": Workload(
        "Epochs, losses and optimiser on a fixed batch; amounts are sample passes.",
        (isolated("layers", {}, {"hidden": 8, "num_envs": 4}),),
    ),
    "seeds": Workload(
        "Eight seeds in one process, by three ways.",
        (
            isolated(
                "seeds",
                {
                    "num_seeds": 8,
                    "cases": {
                        "scheduler": {"env": "scheduler", "num_envs": 8, **_SMALL},
                        "hammer": {
                            "env": "hammer",
                            "num_envs": 8,
                            "num_demonstrations": 1,
                            "cloning_steps": 10,
                            **_SMALL,
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
