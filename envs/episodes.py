"""Whole episodes of a rule that does not learn, for the baselines of environments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from purejaxppo.env import Action, Env, State


def evaluate(
    env: Env, baseline: Callable[[Any, State, jax.Array], Action], keys: jax.Array
) -> dict[str, jax.Array]:
    """Figures of one episode from each key, [E]: return, length and the metrics.

    Args:
      env: ends its episodes by its own rules.
      baseline: (env, state, key) -> action.
    """

    def one(key: jax.Array) -> dict[str, jax.Array]:
        state = env.reset(key)

        def going(carry):
            return ~carry[0].terminated

        def step(carry):
            state, total, length = carry
            key_action = jax.random.fold_in(key, length)
            state = env.step(state, baseline(env, state, key_action))
            return state, total + state.reward, length + 1

        start = (state, jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32))
        state, total, length = jax.lax.while_loop(going, step, start)
        return {"return": total, "length": length, **state.metrics}

    return jax.vmap(one)(keys)
