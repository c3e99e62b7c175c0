"""The update alone: sample passes per second, with each way of having a LayerNorm.

    python -m benchmarks.update_speed [--rounds 9]

A batch of 4,096 random samples, observation 39, 4 actions, networks 2 x 256, 4 epochs
x 4 minibatches: epochs, losses and optimiser, no environment. The variants are timed in
turn within each round and compared within it.
Writes benchmarks/results/update_speed.json.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import record
from benchmarks.hammer_speed import median_and_spread
from purejaxppo.config import Config
from purejaxppo.env import Box, EnvSpec, State
from purejaxppo.policy import networks
from purejaxppo.ppo.learner import as_arrays, make_learner
from purejaxppo.ppo.update import make_batch, optimise


class Noise:
    """An environment of random observations, for their shapes alone."""

    spec = EnvSpec("noise", {"arm": Box(4)}, 100)

    def reset(self, key: jax.Array) -> State:
        zero, false = jnp.zeros((), jnp.float32), jnp.zeros((), bool)
        obs = jax.random.normal(key, (39,), jnp.float32)
        return State(data=key, obs=obs, reward=zero, terminated=false, truncated=false)

    def step(self, state: State, action: dict[str, jax.Array]) -> State:
        key, key_obs = jax.random.split(state.data)
        obs = jax.random.normal(key_obs, (39,), jnp.float32)
        return state.replace(data=key, obs=obs, reward=jnp.sum(action["arm"]))


def make_task(config: Config) -> Callable[[], Any]:
    """A compiled update, bound to a batch."""
    from purejaxppo import autoreset
    from purejaxppo.ppo.rollout import rollout

    learner = make_learner(config, Noise())
    hypers = as_arrays(config.hypers)
    key = jax.random.key(0)
    state, _ = jax.jit(learner.init)(key, hypers)

    @jax.jit
    def sample(state):
        kind, num_starts = config.reset, config.num_starts
        starts = autoreset.draw_starts(learner.env, kind, num_starts, key)
        after, transitions, _, _ = rollout(
            learner.env, learner.policy, config, state, starts, key
        )
        return make_batch(
            learner.policy, config, after, transitions, state.carry["critic"], hypers
        )[0]

    batch = sample(state)
    policy = learner.policy
    update = jax.jit(lambda: optimise(policy, config, state, batch, hypers, key))
    compiled = update.lower().compile()
    return lambda: jax.block_until_ready(compiled())


def measure(rounds: int, hidden: int = 256, num_envs: int = 64) -> dict[str, Any]:
    """Passes/s of each variant, and their ratios to the critic without LayerNorm."""
    config = Config(
        env="noise:noise",
        num_envs=num_envs,
        num_steps=64,
        num_epochs=4,
        num_minibatches=4,
        hidden_sizes=(hidden, hidden),
        critic_hidden_sizes=(hidden, hidden),
    )
    without = config.__class__(**{**vars(config), "critic_layer_norm": False})
    tasks = {"none": make_task(without), "ours": make_task(config)}
    with mock.patch.object(networks, "LayerNorm", nn.LayerNorm):
        tasks["flax"] = make_task(config)
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    passes = config.batch_size * config.num_epochs
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            rates[name].append(passes / (time.perf_counter() - begin))
    return {
        "passes_per_second": {n: median_and_spread(v) for n, v in rates.items()},
        "ratios": {
            f"{name}_over_none": median_and_spread(
                [a / b for a, b in zip(rates[name], rates["none"], strict=True)]
            )
            for name in ("ours", "flax")
        },
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the update alone.")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    results = measure(arguments.rounds)
    for name, rate in results["passes_per_second"].items():
        print(f"{name:<6}{rate['median']:>12,.0f} sample passes/s")
    print(record.write("update_speed", results))


if __name__ == "__main__":
    main()
