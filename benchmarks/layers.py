"""The update alone: sample passes per second, with our layers and with flax's.

    python -m benchmarks update

A batch of 4,096 random samples, observation 39, 4 actions, networks 2 x 256, 4 epochs
x 4 minibatches: epochs, losses and optimiser, no environment. The variants are timed in
turn within each round and compared within it.
"""

from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks import timing
from benchmarks.stages import first_state, fixed_batch, update_alone
from purejaxppo.config import Config
from purejaxppo.env import Box, EnvSpec, State
from purejaxppo.policy import networks
from purejaxppo.policy.dense import Dense
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run.compiler import Compiler
from purejaxppo.run.progress import Progress


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


def config_of(hidden: int, num_envs: int) -> Config:
    """4 epochs x 4 minibatches of 64 steps, both networks two layers deep."""
    return Config(
        env="noise:noise",
        num_envs=num_envs,
        num_steps=64,
        num_epochs=4,
        num_minibatches=4,
        hidden_sizes=(hidden, hidden),
        critic_hidden_sizes=(hidden, hidden),
    )


def measure(rounds: int, hidden: int = 256, num_envs: int = 64) -> dict[str, Any]:
    """Passes/s of each variant, and the ratio of ours to each of the others."""
    config = config_of(hidden, num_envs)
    learner = make_learner(config, Noise())
    compile = Compiler(Progress())
    # Of our layers; but for rounding another's would sample the same.
    batch = fixed_batch(learner, first_state(learner, compile), compile)
    tasks = {}
    for name, layers in VARIANTS.items():
        with mock.patch.multiple(networks, **layers):
            learner = make_learner(config, Noise())
            state = first_state(learner, compile)
            work = update_alone(learner, state, batch, compile)
        tasks[name] = timing.timed(work, config.batch_size * config.epochs)
    rates = timing.interleave(tasks, rounds)
    return {
        "passes_per_second": timing.spreads(rates),
        "ratios": {
            f"ours_over_{name}": timing.ratio(rates, "ours", name)
            for name in VARIANTS
            if name != "ours"
        },
        "rounds": rounds,
    }
