"""purejaxppo's update alone as a worker (see `worker`): epochs, losses and optimiser.

A unit is one update of a batch that stays the same, num_envs * num_steps samples of an
environment of noise; amounts are sample passes. `torch_update` does the same in torch:
same layers (no LayerNorm on either side), a plain normal whose standard deviation does
not depend on the observation, no clipping of values. Ours also computes what it logs,
and guards against what is not finite.
"""

import jax

from benchmarks.layers import Noise
from benchmarks.peers import ours, worker
from benchmarks.stages import fixed_batch
from purejaxppo.ppo.learner import as_arrays, make_learner, optimise
from purejaxppo.ppo.types import Batch, TrainState
from purejaxppo.run.compiler import Compiler
from purejaxppo.run.progress import Progress


def make(config: worker.Json) -> worker.Task:
    settings = ours.make_config({**config, "env": "noise:noise"})
    learner = make_learner(settings, Noise())
    hypers = settings.hypers
    key = jax.random.key(config.get("seed", 0))
    state, _ = jax.jit(learner.init)(key, hypers)
    batch = fixed_batch(learner, state, Compiler(Progress()))

    def prepare(num_updates: int):
        @jax.jit
        def block(state: TrainState, batch: Batch, key: jax.Array):
            def body(state: TrainState, key: jax.Array):
                arrays = as_arrays(hypers)
                state, summary = optimise(learner.task, state, batch, arrays, key)
                return state, summary.logged

            return jax.lax.scan(body, state, jax.random.split(key, num_updates))

        compiled = block.lower(state, batch, key).compile()

        def run() -> None:
            nonlocal state, key
            key, key_block = jax.random.split(key)
            state, _ = jax.block_until_ready(compiled(state, batch, key_block))

        return run

    return worker.Task(
        prepare=prepare,
        steps_per_unit=settings.batch_size * settings.epochs,
        versions=ours.versions(),
    )


if __name__ == "__main__":
    worker.main(make)
