"""The functions of a run, each over all of its seeds, and over a chunk of updates."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import jax
import jax.custom_batching
import jax.numpy as jnp

from purejaxppo.config import Hypers
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.types import Metrics, TrainState
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import demonstrations
from purejaxppo.run.options import Options

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

MAX_CHUNK = 64  # updates whose metrics one call can return


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
    """The key of each seed: seed i of many is the run with that seed alone."""
    keys = [jax.random.key(seed + i) for i in range(num_seeds)]
    return jnp.stack(keys) if num_seeds > 1 else keys[0]


def over_seeds(
    function: Callable[[*Args], Result], num_seeds: int, *axes: int | None
) -> Callable[[*Args], Result]:
    """The function over seeds in one program, if there are several.

    On an accelerator side by side. On a CPU one after the other: one seed keeps the
    cores busy, and vmap can be slower than no batching at all
    (benchmarks/results/seeds.json). And so each seed is to the bit what it is alone.

    Args:
      function: of one seed.
      num_seeds: S; 1 gives the function back as it is.
      axes: per argument, 0 where its leaves are [S, ...], None where all seeds share
        it.

    Returns:
      The function of arguments of that kind, with results [S, ...].
    """
    if num_seeds == 1:
        return function
    if jax.default_backend() != "cpu":
        return jax.vmap(function, in_axes=axes)

    # Without the function's defaults, which would be traced as arguments.
    @jax.custom_batching.sequential_vmap
    def one_by_one(*args: *Args) -> Result:
        return function(*args)

    return jax.vmap(one_by_one, in_axes=axes)


def run_chunk(
    update: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    hypers: Hypers,
    num: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Run several updates.

    The bound is traced on purpose: XLA inlines a loop of one known trip, and could
    then fuse, and so round, otherwise than in the scan of `make_train`.

    Args:
      update: one update, of the learner's or over seeds.
      state, hypers: its arguments.
      num: int32 [], of updates, at most MAX_CHUNK.

    Returns:
      The last state, and the metrics of each update, [MAX_CHUNK, ...], zeros beyond
      `num`.
    """
    update = jax.jit(update)  # traced once, for the shapes and for the loop
    shapes = jax.eval_shape(update, state, hypers)[1]
    empty = jax.tree.map(lambda s: jnp.zeros((MAX_CHUNK, *s.shape), s.dtype), shapes)

    def body(i: jax.Array, carry: tuple[TrainState, Metrics]):
        state, metrics = carry
        state, new = update(state, hypers)
        return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, new)

    return jax.lax.fori_loop(0, num, body, (state, empty))


def state_shapes(learner: Learner, options: Options) -> TrainState:
    """Shapes and dtypes of a run's state, for restoring it: nothing is computed."""
    keys = seed_keys(options.seed, options.num_seeds)
    demos = None
    if (
        learner.task.config.num_demonstrations
    ):  # any number of any length: no state has them
        demos = demonstrations.shapes(learner.task.env, 1, 1)
    init = over_seeds(learner.init, options.num_seeds, 0, None, None)
    return jax.eval_shape(init, keys, as_arrays(learner.task.config.hypers), demos)[0]
