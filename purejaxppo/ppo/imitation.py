"""Demonstrations and behaviour cloning, as pure functions.

Cloning maximises the log-prob of the demonstrated actions under the SAME policy, by
the same `policy.log_prob`, that PPO trains afterwards.
"""

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from purejaxppo.config import Config
from purejaxppo.env import Action, Box, Env, Obs
from purejaxppo.errors import ConfigError
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Params, Policy, Stored
from purejaxppo.ppo import normalize
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.types import Metrics

# Attempts per demonstration that is kept, plus a few: a noisy expert may fail.
_ATTEMPTS = 2
_SPARE = 4
_LOG_EVERY = 100  # cloning steps per logged loss


class Demonstrations(struct.PyTreeNode):
    """K episodes of at most L steps, [K, L, ...]; `valid` says which steps exist."""

    obs: Obs  # raw, not normalised
    action: Action
    action_mask: dict[str, jax.Array]
    active: dict[str, jax.Array]
    reward: jax.Array  # [K, L]
    valid: jax.Array  # bool [K, L]


def _noisy(env: Env, action: Action, noise: float, key: jax.Array) -> Action:
    """Gaussian noise on continuous heads, for coverage; other heads as they are."""
    heads = env.spec.heads
    noisy = {}
    for index, (name, value) in enumerate(action.items()):
        noisy[name] = value
        if isinstance(heads[name], Box):
            key_head = jax.random.fold_in(key, index)
            value = value + noise * jax.random.normal(key_head, value.shape)
            noisy[name] = jnp.clip(value, -1.0, 1.0)
    return noisy


def collect(env: Env, config: Config, key: jax.Array) -> Demonstrations:
    """Let the environment's demonstrator act, noisily, and keep its successes.

    The action stored is the one that was executed. Where fewer than
    `num_demonstrations` attempts succeed, the rest have no valid step.
    """
    if not hasattr(env, "demonstrator"):
        raise ConfigError("env", env.spec.name, "an environment with a demonstrator")
    outcome = env.spec.success
    if outcome is None or env.spec.max_episode_steps is None:
        raise ConfigError(
            "env", env.spec.name, "an environment whose spec has success and a limit"
        )
    num = config.num_demonstrations * _ATTEMPTS + _SPARE
    key_reset, key_noise = jax.random.split(key)
    state = jax.vmap(env.reset)(jax.random.split(key_reset, num))

    def step(carry, key):
        state, alive = carry
        action = jax.vmap(env.demonstrator)(state)
        action = jax.vmap(lambda a, k: _noisy(env, a, config.demonstration_noise, k))(
            action, jax.random.split(key, num)
        )
        # Nothing to see once all have ended, long before the limit as a rule.
        after = jax.lax.cond(
            jnp.any(alive), jax.vmap(env.step), lambda state, _: state, state, action
        )
        taken = (state.obs, action, state.action_mask, state.active, after.reward)
        success = after.metrics[outcome] > 0.5
        # Cut at the first success: what comes after shows nothing.
        going = alive & ~(after.terminated | after.truncated | success)
        return (after, going), (taken, alive, alive & success)

    _, (taken, alive, success) = jax.lax.scan(
        step,
        (state, jnp.ones((num,), bool)),
        jax.random.split(key_noise, env.spec.max_episode_steps),
    )
    succeeded = jnp.any(success, axis=0)
    keep = jnp.argsort(~succeeded, stable=True)[: config.num_demonstrations]
    valid = alive & succeeded[None]

    def kept(x: jax.Array) -> jax.Array:
        return jnp.swapaxes(x, 0, 1)[keep]

    return Demonstrations(*jax.tree.map(kept, taken), valid=kept(valid))


def observation_statistics(demonstrations: Demonstrations) -> Statistics:
    """Statistics of all valid observations."""
    flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), demonstrations.obs)
    example = jax.tree.map(lambda x: x[0], flat)
    weight = demonstrations.valid.ravel().astype(jnp.float32)
    return normalize.update(normalize.init(example), flat, weight)


def _as_stored(
    policy: Policy, demonstrations: Demonstrations, obs_stats: Statistics | None
) -> Stored:
    """Time-major sequences [L, K], each an episode of its own."""
    swapped = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), demonstrations)
    num_steps, num_episodes = swapped.valid.shape
    start = jnp.zeros((num_steps, num_episodes), bool).at[0].set(True)
    inputs = PolicyInput(
        obs=normalize.apply(obs_stats, swapped.obs),
        start=start,
        action_mask=swapped.action_mask,
        active=swapped.active,
    )
    return Stored(inputs, swapped.action, policy.initial_carry(num_episodes))


def _without_padding(demonstrations: Demonstrations) -> Demonstrations:
    """Zeros where there is no valid step: a NaN there would reach the gradient."""
    valid = demonstrations.valid

    def zeroed(x: jax.Array) -> jax.Array:
        column = valid.reshape(valid.shape + (1,) * (x.ndim - valid.ndim))
        return jnp.where(column, x, jnp.zeros_like(x))

    return jax.tree.map(zeroed, demonstrations)


def clone(
    policy: Policy,
    config: Config,
    params: Params,
    obs_stats: Statistics | None,
    demonstrations: Demonstrations,
    key: jax.Array,
) -> tuple[Params, Metrics]:
    """Maximum likelihood of the demonstrated actions; Adam, cosine to zero.

    Without a recurrent core a step sees `cloning_batch` samples, with one it sees
    every episode whole.

    Returns:
      cloned params, and the loss (negative log-prob) at the start and at the end.
    """
    stored = _as_stored(policy, _without_padding(demonstrations), obs_stats)
    valid = jnp.swapaxes(demonstrations.valid, 0, 1)
    chex.assert_rank(valid, 2)
    if config.core == "none":
        stored = jax.tree.map(lambda x: x.reshape((1, -1, *x.shape[2:])), stored)
        valid = valid.reshape((1, -1))
    real_first = jnp.argsort(~valid[0], stable=True)
    num_valid = jnp.sum(valid[0])
    schedule = optax.cosine_decay_schedule(
        config.cloning_learning_rate, max(config.cloning_steps, 1)
    )
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))

    def loss_fn(params, stored, valid):
        log_prob = policy.log_prob(params, stored).joint_log_prob()
        total = jnp.sum(jnp.where(valid, log_prob, 0.0))
        return -total / jnp.maximum(jnp.sum(valid.astype(total.dtype)), 1.0)

    def sample(key):
        if config.core != "none":
            return stored, valid
        # Real samples are first in that order, so padding is never drawn.
        rank = jax.random.randint(key, (config.cloning_batch,), 0, num_valid)
        index = real_first[rank]
        return jax.tree.map(lambda x: x[:, index], (stored, valid))

    def step(carry, key):
        params, opt_state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, *sample(key))
        # optax raises floats to integer powers, which strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = optimizer.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    keys = jax.random.split(key, config.cloning_steps)
    (params, _), loss = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    window = min(_LOG_EVERY, config.cloning_steps)
    return params, {
        "cloning/first_loss": jnp.mean(loss[:window]),
        "cloning/last_loss": jnp.mean(loss[-window:]),
        "cloning/demonstrations": jnp.sum(demonstrations.valid[:, 0]).astype(
            jnp.float32
        ),
        "cloning/samples": jnp.sum(demonstrations.valid).astype(jnp.float32),
    }
