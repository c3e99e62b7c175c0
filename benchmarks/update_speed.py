"""The update alone: sample passes per second, with our layers and with flax's.

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
from purejaxppo import autoreset
from purejaxppo.config import Config
from purejaxppo.env import Box, EnvSpec, State
from purejaxppo.policy import networks
from purejaxppo.policy.layers import Dense
from purejaxppo.ppo.batch import make_batch
from purejaxppo.ppo.learner import as_arrays, make_learner
from purejaxppo.ppo.rollout import rollout
from purejaxppo.ppo.types import Batch
from purejaxppo.ppo.update import optimise


class FlaxDense(nn.Module):
    """flax's Dense under the arguments of ours."""

    size: int
    gain: float
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.orthogonal(self.gain)
        return nn.Dense(self.size, use_bias=self.use_bias, kernel_init=init)(x)


# What `networks` uses, as flax has it: each layer on all leading axes, by itself.
FLAX_DENSE = {
    "Dense": FlaxDense,
    "several": lambda layers, x: [layer(x) for layer in layers],
    "by_rows": lambda f, x: f(x),
}
VARIANTS = {"ours": {"Dense": Dense}, "flax": FLAX_DENSE}


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


def sample_batch(config: Config) -> Batch:
    """A batch as a rollout gives it; which layers the networks have is no matter."""
    learner = make_learner(config, Noise())
    hypers = as_arrays(config.hypers)

    @jax.jit
    def sample(key: jax.Array) -> Batch:
        state, _ = learner.init(key, hypers)
        starts = autoreset.draw_starts(
            learner.env, config.reset, config.num_starts, key
        )
        after, transitions, _, _ = rollout(
            learner.env, learner.policy, config, state, starts, key
        )
        carry = state.carry["critic"]
        policy = learner.policy
        return make_batch(policy, config, after, transitions, carry, hypers)[0]

    return sample(jax.random.key(0))


def make_task(config: Config, batch: Batch) -> Callable[[], Any]:
    """A compiled update, bound to a batch."""
    learner = make_learner(config, Noise())
    hypers = as_arrays(config.hypers)
    key = jax.random.key(0)
    state, _ = jax.jit(learner.init)(key, hypers)
    update = jax.jit(
        lambda: optimise(learner.policy, config, state, batch, hypers, key)
    )
    compiled = update.lower().compile()
    return lambda: jax.block_until_ready(compiled())


def measure(rounds: int, hidden: int = 256, num_envs: int = 64) -> dict[str, Any]:
    """Passes/s of each variant, and the ratio of ours to each of the others."""
    config = Config(
        env="noise:noise",
        num_envs=num_envs,
        num_steps=64,
        num_epochs=4,
        num_minibatches=4,
        hidden_sizes=(hidden, hidden),
        critic_hidden_sizes=(hidden, hidden),
    )
    batch = sample_batch(config)
    tasks = {}
    for name, layers in VARIANTS.items():
        with mock.patch.multiple(networks, **layers):
            tasks[name] = make_task(config, batch)
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
            f"ours_over_{name}": median_and_spread(
                [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
            )
            for name in VARIANTS
            if name != "ours"
        },
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of the update alone.")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    results = measure(arguments.rounds)
    for name, rate in results["passes_per_second"].items():
        print(f"{name:<16}{rate['median']:>12,.0f} sample passes/s")
    print(record.write("update_speed", results))


if __name__ == "__main__":
    main()
