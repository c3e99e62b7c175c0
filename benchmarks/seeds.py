"""Several seeds in one process: ways to run their updates.

Rates are environment steps/s of all seeds together. A way is one line of `WAYS`; all
start from the same states and do the same updates.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.stages import described
from purejaxppo.config import Config
from purejaxppo.ppo.learner import as_arrays, make_learner
from purejaxppo.ppo.types import TrainState
from purejaxppo.run.compiler import Compiler
from purejaxppo.run.progress import Progress

Update = Callable[[TrainState], TrainState]
Work = Callable[[], Any]
Way = Callable[[Update, TrainState, Compiler], Work]  # states are [S, ...]


def _together(over: Callable[[Update, TrainState], TrainState]) -> Way:
    """All seeds in one program."""

    def way(update: Update, states: TrainState, compile: Compiler) -> Work:
        compiled = compile("together", lambda states: over(update, states), states)
        return lambda: jax.block_until_ready(compiled(states))

    return way


def _one_by_one(update: Update, states: TrainState, compile: Compiler) -> Work:
    """A program of one seed, called for each."""
    num = jax.tree.leaves(states)[0].shape[0]
    each = [jax.tree.map(lambda x, i=i: x[i], states) for i in range(num)]
    compiled = compile("one", update, each[0])
    return lambda: [jax.block_until_ready(compiled(state)) for state in each]


WAYS: dict[str, Way] = {
    "vmap": _together(lambda update, states: jax.vmap(update)(states)),
    "lax.map": _together(lambda update, states: jax.lax.map(update, states)),
    "one by one": _one_by_one,
}


def measure(config: Config, num_seeds: int, rounds: int) -> dict[str, Any]:
    """Steps/s of all seeds together, way by way, and each over one by one."""
    learner, hypers = make_learner(config), as_arrays(config.hypers)
    compile = Compiler(Progress())
    init = jax.vmap(learner.init, in_axes=(0, None))
    keys = jax.vmap(jax.random.key)(jnp.arange(num_seeds))
    states, _ = compile("init", init, keys, hypers)(keys, hypers)

    def update(state: TrainState) -> TrainState:
        return learner.update(state, hypers)[0]

    tasks, seconds = {}, {}
    for name, way in WAYS.items():
        compile.ledger.clear()
        work = way(update, states, compile)
        tasks[name] = timing.timed(work, num_seeds * config.batch_size)
        (seconds[name],) = compile.ledger.values()
    rates = timing.interleave(tasks, rounds)
    return {
        "steps_per_second": timing.spreads(rates),
        "ratios": timing.ratios_over(rates, "one by one"),
        "compile_seconds": seconds,
        "rounds": rounds,
        "num_seeds": num_seeds,
        **described(config),
    }
