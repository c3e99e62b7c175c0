"""Demonstrations and behaviour cloning, as pure functions.

Cloning maximises the log-prob of the demonstrated actions, computed by the same
`policy.log_prob` that PPO uses afterwards.
"""

import chex
import jax
import jax.numpy as jnp
import optax

from purejaxppo import quarantine, trees
from purejaxppo.config import Config
from purejaxppo.env import Action, Box, DemonstratedEnv, Env, State
from purejaxppo.errors import ConfigError
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Params, Policy, Stored
from purejaxppo.ppo import normalize, optim
from purejaxppo.ppo.demonstrations import Demonstrations
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.types import Metrics, Task

# Episodes attempted: _ATTEMPTS per demonstration plus _SPARE, since some may fail.
_ATTEMPTS = 2
_SPARE = 4
_LOSS_WINDOW = 100  # number of cloning steps over which a logged loss is averaged


def num_attempts(num_demonstrations: int) -> int:
    """Return the number of episodes that are played to collect demonstrations."""
    return num_demonstrations * _ATTEMPTS + _SPARE


def _noisy(env: Env, action: Action, noise: float, key: jax.Array) -> Action:
    """Add Gaussian noise with standard deviation `noise` to continuous heads.

    An action that is NaN or outside [-1, 1] stays as it is: clipping it would hide a
    fault of the demonstrator, which `demonstrations.faults` finds.
    """
    heads = env.spec.heads
    noisy = {}
    for index, (name, value) in enumerate(action.items()):
        noisy[name] = value
        if isinstance(heads[name], Box):
            key_head = jax.random.fold_in(key, index)
            sample = value + noise * jax.random.normal(key_head, value.shape)
            within = jnp.abs(value) <= 1.0
            noisy[name] = jnp.where(within, jnp.clip(sample, -1.0, 1.0), value)
    return noisy


def collect(task: Task, key: jax.Array) -> Demonstrations:
    """Play episodes with the environment's demonstrator and keep successful ones.

    Noise is added to its actions, for coverage, and the noisy actions are stored. If
    fewer than `num_demonstrations` attempts succeed, the other demonstrations have no
    valid step.

    Raises:
      ConfigError: the environment has no demonstrator, success or time limit.
    """
    env, config = task.env, task.config
    if not isinstance(env, DemonstratedEnv):
        raise ConfigError("env", env.spec.name, "an environment with a demonstrator")
    outcome, limit = env.spec.success, env.spec.max_episode_steps
    if outcome is None or limit is None:
        raise ConfigError(
            "env", env.spec.name, "an environment whose spec has success and a limit"
        )
    num = num_attempts(config.num_demonstrations)
    key_reset, key_noise = jax.random.split(key)
    state = jax.vmap(env.reset)(jax.random.split(key_reset, num))

    def step(carry: tuple[State, jax.Array], key: jax.Array):
        state, alive = carry
        action = jax.vmap(env.demonstrator)(state)
        action = jax.vmap(lambda a, k: _noisy(env, a, config.demonstration_noise, k))(
            action, jax.random.split(key, num)
        )
        # All episodes usually end long before the limit; then steps are skipped.
        next_state = jax.lax.cond(
            jnp.any(alive), jax.vmap(env.step), lambda state, _: state, state, action
        )
        sample = (state.obs, action, state.action_mask, state.active, next_state.reward)
        numbers = (next_state.obs, next_state.reward)
        broken = ~jax.vmap(quarantine.is_usable)(numbers)
        success = (next_state.metrics[outcome] > 0.5) & ~broken
        # A demonstration ends at its first success; a broken attempt has none.
        done = next_state.terminated | next_state.truncated | success | broken
        return (next_state, alive & ~done), (sample, alive, alive & success)

    start = (state, jax.vmap(quarantine.is_usable)(state.obs))
    _, (samples, alive, success) = jax.lax.scan(
        step, start, jax.random.split(key_noise, limit)
    )
    succeeded = jnp.any(success, axis=0)
    successes_first = jnp.argsort(~succeeded, stable=True)
    chosen = successes_first[: config.num_demonstrations]
    steps = (*samples, alive & succeeded[None])
    return Demonstrations(*trees.take(trees.swap_axes(steps), chosen))


def observation_statistics(demonstrations: Demonstrations) -> Statistics:
    """Compute the statistics of all valid observations."""
    flat = trees.merge_axes(demonstrations.obs)
    example = trees.take(flat, 0)
    weight = demonstrations.valid.ravel().astype(jnp.float32)
    return normalize.update(normalize.init(example), flat, weight)


def _as_stored(
    policy: Policy, demonstrations: Demonstrations, obs_stats: Statistics | None
) -> Stored:
    """Transpose to time-major sequences [L, K], one per episode."""
    swapped = trees.swap_axes(demonstrations)
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
    """Replace invalid steps by zeros, because a NaN there would reach the gradient."""
    zeros = jax.tree.map(jnp.zeros_like, demonstrations)
    return trees.where(demonstrations.valid, demonstrations, zeros)


def clone(
    task: Task,
    params: Params,
    obs_stats: Statistics | None,
    demonstrations: Demonstrations,
    key: jax.Array,
) -> tuple[Params, Metrics]:
    """Maximise the log-prob of the demonstrated actions by Adam, with cosine decay.

    Without a recurrent core each optimiser step uses `cloning_batch` random samples.
    With a core it uses all episodes as whole sequences.

    Args:
      task: policy, and the configuration of cloning.
      params: the initial parameters.
      obs_stats: statistics to normalise observations by; None to not normalise.
      demonstrations: [K, L, ...].
      key: the random key of the samples of each step.

    Returns:
      cloned params, and the loss (negative log-prob) at the start and at the end.
    """
    config = task.config
    stored = _as_stored(task.policy, _without_padding(demonstrations), obs_stats)
    valid = jnp.swapaxes(demonstrations.valid, 0, 1)
    chex.assert_rank(valid, 2)
    if config.core == "none":
        stored, valid = trees.unsqueeze(trees.merge_axes((stored, valid)))
    valid_first = jnp.argsort(~valid[0], stable=True)
    num_valid = jnp.sum(valid[0])
    optimizer = _optimizer(config)

    def loss_fn(params: Params, stored: Stored, valid: jax.Array) -> jax.Array:
        log_prob = task.policy.log_prob(params, stored).joint_log_prob()
        total = jnp.sum(jnp.where(valid, log_prob, 0.0))
        return -total / jnp.maximum(jnp.sum(valid.astype(total.dtype)), 1.0)

    def draw(key: jax.Array) -> tuple[Stored, jax.Array]:
        if config.core != "none":
            return stored, valid
        # `valid_first` begins with the valid samples, so padding is never drawn.
        rank = jax.random.randint(key, (config.cloning_batch,), 0, num_valid)
        return trees.take((stored, valid), valid_first[rank], axis=1)

    def step(carry: tuple[Params, optax.OptState], key: jax.Array):
        params, opt_state = carry
        loss, grads = jax.value_and_grad(loss_fn)(params, *draw(key))
        return optim.apply(optimizer, params, grads, opt_state), loss

    keys = jax.random.split(key, config.cloning_steps)
    start = (params, optim.init(optimizer, params))
    (params, _), loss = jax.lax.scan(step, start, keys)
    return params, _cloning_metrics(loss, demonstrations.valid)


def _optimizer(config: Config) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(
        config.cloning_learning_rate, max(config.cloning_steps, 1)
    )
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))


def _cloning_metrics(loss: jax.Array, valid: jax.Array) -> Metrics:
    """Compute metrics from the loss of each optimiser step and `valid` [K, L]."""
    metrics = {
        "cloning/demonstrations": jnp.sum(jnp.any(valid, axis=1)).astype(jnp.float32),
        "cloning/samples": jnp.sum(valid).astype(jnp.float32),
    }
    window = min(_LOSS_WINDOW, loss.shape[0])
    if window:
        metrics["cloning/first_loss"] = jnp.mean(loss[:window])
        metrics["cloning/last_loss"] = jnp.mean(loss[-window:])
    return metrics
