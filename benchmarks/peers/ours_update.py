"""purejaxppo's update alone as a worker (see `worker`): epochs, losses and optimiser.

A unit is one update of a batch that stays the same, num_envs * num_steps samples of an
environment of noise; amounts are sample passes. `torch_update` does the same in torch:
same layers (no LayerNorm on either side), a plain normal whose standard deviation does
not depend on the observation, no clipping of values. Ours also computes what it logs,
and guards against what is not finite.
"""

import jax
import jax.numpy as jnp

from benchmarks import stages
from benchmarks.peers import in_jax, ours, worker
from benchmarks.prepared import prepare
from purejaxppo.env import Action, Box, EnvSpec, State


class Noise:
    """An environment of random observations, for their shapes alone."""

    spec = EnvSpec("noise", {"arm": Box(4)}, 100)

    def reset(self, key: jax.Array) -> State:
        zero, false = jnp.zeros((), jnp.float32), jnp.zeros((), bool)
        obs = jax.random.normal(key, (39,), jnp.float32)
        return State(data=key, obs=obs, reward=zero, terminated=false, truncated=false)

    def step(self, state: State, action: Action) -> State:
        key, key_obs = jax.random.split(state.data)
        obs = jax.random.normal(key_obs, (39,), jnp.float32)
        return state.replace(data=key, obs=obs, reward=jnp.sum(action["arm"]))


def make(config: worker.Json) -> worker.Task:
    settings = ours.make_config({**config, "env": "noise:noise"})
    prepared = prepare(settings, Noise())
    batch, hypers = stages.fixed_batch(prepared), prepared.hypers

    def run(state: tuple, num: int) -> tuple:
        train_state, key = state
        key, key_block = jax.random.split(key)
        update = stages.epochs(prepared, num)
        train_state, metrics = update(train_state, batch, hypers, key_block)
        return (train_state, key), metrics

    key = jax.random.key(config.get("seed", 0))
    return worker.Task(
        prepare=in_jax.in_blocks(run, (prepared.state, key))[0],
        steps_per_unit=settings.batch_size * settings.epochs,
        versions=ours.versions(),
    )


if __name__ == "__main__":
    worker.main(make)
