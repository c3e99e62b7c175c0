"""What workers written in JAX share: compiled blocks, each going on from the last."""

from collections.abc import Callable
from typing import Any

import jax

from benchmarks.peers import worker


def in_blocks(
    run: Callable[[Any, int], tuple[Any, Any]], state: Any
) -> tuple[worker.Prepare, Callable[[], Any]]:
    """Make a training that starts at `state`: its `prepare`, and () -> its state.

    Args:
      run: (state, number of units) -> (state, output), traceable; the number is
        static. What is put out (metrics) must be computed, though nobody looks at it.
      state: of the training, a tree of arrays.
    """
    latest = [state]

    def prepare(num: int) -> Callable[[], None]:
        compiled = jax.jit(lambda state: run(state, num)).lower(latest[0]).compile()

        def block() -> None:
            latest[0], _ = jax.block_until_ready(compiled(latest[0]))

        return block

    return prepare, lambda: latest[0]


def train(
    run: Callable[[jax.Array], tuple[Any, Any]],
    key: jax.Array,
    mean_return: Callable[[Any], float],
    steps: int,
) -> worker.Json:
    """Train, and make the answer to `train`; compiling is not in its seconds.

    Args:
      run: key -> (the trained state, output), traceable.
      key: of the training.
      mean_return: of a trained state.
      steps: environment steps that `run` takes.
    """
    compiled = jax.jit(run).lower(key).compile()
    return worker.trained(
        lambda: jax.block_until_ready(compiled(key)),
        lambda trained: mean_return(trained[0]),
        steps,
    )
