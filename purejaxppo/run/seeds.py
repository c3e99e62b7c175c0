"""Functions of the learner mapped over seeds, and a chunk of several updates."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar, TypeVarTuple

import jax
import jax.custom_batching
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from purejaxppo import platforms, trees
from purejaxppo.config import Hypers
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.types import Metrics, TrainState
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import demonstrations, devices
from purejaxppo.run.options import Options

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

MAX_CHUNK = 64  # largest number of updates in one call


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
    """Return the key of each seed, the same as in a run with that seed only."""
    keys = [jax.random.key(seed + i) for i in range(num_seeds)]
    return jnp.stack(keys) if num_seeds > 1 else keys[0]


def map_over_seeds(
    function: Callable[[*Args], Result],
    num_seeds: int,
    *axes: int | None,
    mesh: Mesh | None = None,
) -> Callable[[*Args], Result]:
    """Map a function over seeds, in one program.

    On an accelerator the seeds run in parallel, by `jax.vmap`. On a CPU they run one
    after the other, because one seed already uses all cores and vmap can be slower
    (benchmarks/results/seeds.json). Each seed then has bit for bit the results of a run
    with that seed only.

    Args:
      function: the function for one seed.
      num_seeds: S; if it is 1, the function is returned unchanged.
      axes: for each argument, 0 if its leaves are [S, ...], None if all seeds share it.
      mesh: the devices of the run; seeds are sharded over its axis "seeds", if it has
        one. A device with a single seed rounds differently, as XLA inlines its loop.

    Returns:
      the mapped function, with results [S, ...].
    """
    if num_seeds == 1:
        return function
    mapped = _map_on_one_device(function, axes)
    if devices.having(devices.SEEDS, mesh) is None:
        return mapped
    specs = {0: PartitionSpec(devices.SEEDS), None: PartitionSpec()}
    return jax.shard_map(
        mapped,
        mesh=mesh,
        in_specs=tuple(specs[axis] for axis in axes),
        out_specs=specs[0],
        check_vma=False,  # nothing is reduced over seeds
    )


def _map_on_one_device(
    function: Callable[[*Args], Result], axes: tuple[int | None, ...]
) -> Callable[[*Args], Result]:
    if platforms.backend() != "cpu":
        return jax.vmap(function, in_axes=axes)

    # `*args` hides the function's default arguments, which JAX would trace otherwise.
    @jax.custom_batching.sequential_vmap
    def one_by_one(*args: *Args) -> Result:
        return function(*args)

    return jax.vmap(one_by_one, in_axes=axes)


def of_seed(state: TrainState, index: int, num_seeds: int) -> TrainState:
    """Return the state of one seed; that of a single seed has no axis of seeds."""
    return trees.take(state, index) if num_seeds > 1 else state


def run_chunk(
    update: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    hypers: Hypers,
    num: jax.Array,
    stop_at_fault: bool = False,
) -> tuple[TrainState, Metrics]:
    """Run several updates.

    The number of updates is traced, because XLA inlines a loop that it knows to run
    once, and might then fuse and round differently from the scan of `make_train`. Some
    programs differ in a last bit all the same: with the distribution "normal", one bias
    of the policy by 1e-9 in one of ten updates.

    Args:
      update: the learner's update, for one seed or mapped over seeds.
      state: the state before the first update.
      hypers: the hyperparameters.
      num: int32 [], the number of updates, at most MAX_CHUNK.
      stop_at_fault: end with the first update that has a fault, and return the state
        before it. This takes the memory of a second state.

    Returns:
      the last state, and the metrics of each update, [MAX_CHUNK, ...], which are zeros
      after the updates that were run.
    """
    update = jax.jit(update)  # so that it is traced once, not for the shapes again
    shapes = jax.eval_shape(update, state, hypers)[1]
    empty = jax.tree.map(lambda s: jnp.zeros((MAX_CHUNK, *s.shape), s.dtype), shapes)

    def body(i: jax.Array, carry: tuple[TrainState, Metrics]):
        state, metrics = carry
        state, new = update(state, hypers)
        return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, new)

    if not stop_at_fault:
        return jax.lax.fori_loop(0, num, body, (state, empty))
    start = _Loop(jnp.int32(0), jnp.zeros((), bool), state, state, empty)

    def one_update(loop: _Loop) -> _Loop:
        state, metrics = body(loop.count, (loop.state, loop.metrics))
        has_fault = jnp.any(metrics["status"][loop.count] != 0)
        return _Loop(loop.count + 1, has_fault, loop.state, state, metrics)

    def must_continue(loop: _Loop) -> jax.Array:
        return (loop.count < num) & ~loop.has_fault

    end = jax.lax.while_loop(must_continue, one_update, start)
    # Only here, for a selection inside the loop could change how an update is rounded.
    return trees.where(end.has_fault, end.before, end.state), end.metrics


class _Loop(NamedTuple):
    """The carry of a loop over updates that ends at a fault."""

    count: jax.Array  # int32 [], updates so far
    has_fault: jax.Array  # bool [], of the last of them, in any seed
    before: TrainState  # before the last of them
    state: TrainState
    metrics: Metrics  # [MAX_CHUNK, ...]


def num_run(metrics: Metrics, num: int) -> int:
    """Count the updates of a chunk that were run, the one with a fault included.

    Args:
      metrics: of `run_chunk` with `stop_at_fault`, on the host.
      num: the number of updates that it was to run.
    """
    status = np.asarray(metrics["status"])[:num].reshape(num, -1)
    faulty = np.flatnonzero(np.any(status != 0, axis=1))
    return int(faulty[0]) + 1 if faulty.size else num


def state_shapes(learner: Learner, options: Options) -> TrainState:
    """Return shapes and dtypes of a run's state, without computing anything."""
    keys = seed_keys(options.seed, options.num_seeds)
    demos = None
    if learner.task.config.num_demonstrations:
        # The state does not depend on the number and length of demonstrations.
        demos = demonstrations.shapes(learner.task.env, 1, 1)
    # Nor on whether its parameters are given.
    init = map_over_seeds(learner.init, options.num_seeds, 0, None, None)
    return jax.eval_shape(init, keys, as_arrays(learner.task.config.hypers), demos)[0]
