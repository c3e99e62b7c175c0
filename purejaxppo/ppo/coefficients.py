"""The coefficients of an update: schedules and adaptive factors.

A schedule depends on the number of the update, an adaptive factor on the statistics of
the update before.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from purejaxppo import trees
from purejaxppo.config import Hypers
from purejaxppo.ppo.types import Adaptive, Task, TrainState

# Rate of change and range of adaptive coefficients (the KL rule's factor and lower
# bound are those of rsl_rl and Brax; both adapt BEFORE the step).
_KL_FACTOR = 1.5
_LEARNING_RATE_RANGE = (1e-2, 1e2)
_ENTROPY_FACTOR = 1.1
_ENTROPY_RANGE = (1.0, 1e3)


class Coefficients(NamedTuple):
    """The coefficients of one update, with schedules and adaptive factors. Scalars."""

    learning_rate: jax.Array
    rate_factor: jax.Array  # learning_rate / the learning rate of the configuration
    entropy: dict[str, jax.Array]  # head -> coefficient
    kl: jax.Array
    freeze_policy: jax.Array  # bool, True during the warm-up of the critic


def schedule(kind: str, progress: jax.Array, final: jax.Array | float) -> jax.Array:
    """Compute the factor of a coefficient, from 1 at the start to `final` at the end.

    Args:
      kind: "constant", "linear", "exponential", "cosine", or "kl", which is constant
        here because `adapt_learning_rate` changes the rate.
      progress: [], the fraction of training that is done, in [0, 1].
      final: [], the factor at a progress of 1.
    """
    if kind == "linear":
        return 1.0 + (final - 1.0) * progress
    if kind == "exponential":
        # An exponential schedule cannot reach 0, so 0 is replaced by a tiny number.
        return jnp.exp(jnp.log(jnp.maximum(final, 1e-30)) * progress)
    if kind == "cosine":
        return final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.ones_like(progress)


def head_value(hypers: Hypers, field: str, head: str) -> jax.Array | float:
    """Return a hyperparameter of a head: its own value, or the value of all heads.

    Args:
      hypers: the hyperparameters.
      field: "entropy_coef", "entropy_coef_final" or "entropy_floor".
      head: the head's name.
    """
    return getattr(hypers, f"head_{field}").get(head, getattr(hypers, field))


def coefficients(task: Task, state: TrainState, hypers: Hypers) -> Coefficients:
    """Compute the coefficients of this update.

    Args:
      task: its configuration names the schedules.
      state: the state before the update, with the number of the update.
      hypers: the values at the start of training.
    """
    config = task.config
    # Less than 1 at the last update, so that a rate with final value 0 is not 0 there.
    progress = state.update_count.astype(jnp.float32) / config.num_updates
    rate = schedule(config.learning_rate_schedule, progress, hypers.learning_rate_final)
    rate *= _warmup(task, state)
    kl = schedule(config.kl_schedule, progress, hypers.kl_coef_final)

    def entropy(head: str) -> jax.Array:
        final = head_value(hypers, "entropy_coef_final", head)
        factor = schedule(config.entropy_schedule, progress, final)
        return head_value(hypers, "entropy_coef", head) * factor

    scales = state.adaptive.entropy_scale
    rate_scale = state.adaptive.learning_rate_scale
    return Coefficients(
        learning_rate=hypers.learning_rate * rate * rate_scale,
        rate_factor=rate * rate_scale,
        entropy={head: entropy(head) * scale for head, scale in scales.items()},
        kl=hypers.kl_coef * kl,
        freeze_policy=state.update_count < config.critic_warmup,
    )


def _warmup(task: Task, state: TrainState) -> jax.Array:
    """Compute the warm-up factor of the learning rate.

    It rises to 1 from the first update after the warm-up of the critic, during which it
    is 1.
    """
    config = task.config
    policy_updates = state.update_count - config.critic_warmup + 1
    ramp = jnp.clip(policy_updates / (config.learning_rate_warmup + 1), 0.0, 1.0)
    return jnp.where(policy_updates > 0, ramp, 1.0)


def init_adaptive(heads: Iterable[str]) -> Adaptive:
    """Return factors of 1 for the learning rate and each head's entropy coefficient."""
    # Separate arrays, because the compiled program donates each buffer of its state.
    return Adaptive(
        learning_rate_scale=jnp.ones((), jnp.float32),
        entropy_scale={name: jnp.ones((), jnp.float32) for name in heads},
    )


def adapt(
    task: Task,
    state: TrainState,
    hypers: Hypers,
    approx_kl: jax.Array,
    stopped: jax.Array,
    head_entropy: dict[str, jax.Array],
) -> Adaptive:
    """Compute the adaptive factors after an update.

    Args:
      task: its configuration says whether the learning rate adapts.
      state: the state before the update.
      hypers: target KL and entropy floors.
      approx_kl: [], of the last minibatch that ran.
      stopped: bool [], True if a limit ended the epochs early.
      head_entropy: head -> [], mean over the update; NaN if it was never active.
    """
    adapted = adapt_learning_rate(task, state.adaptive, hypers, approx_kl, stopped)
    adapted = adapt_entropy(adapted, hypers, head_entropy)
    # The KL of a frozen policy is 0, which must not increase the learning rate.
    frozen = state.update_count < task.config.critic_warmup
    return trees.where(frozen, state.adaptive, adapted)


def adapt_learning_rate(
    task: Task,
    adaptive: Adaptive,
    hypers: Hypers,
    approx_kl: jax.Array,
    stopped: jax.Array,
) -> Adaptive:
    """Lower the learning rate if the epochs were stopped, raise it if the KL is small.

    The threshold is that of the stop itself. With a higher one of its own, the rate
    would rise after small updates but not fall after most of those that were stopped.

    Args:
      task: its schedule; unless it is "kl", the factors do not change.
      adaptive: the present factors.
      hypers: its `target_kl`.
      approx_kl: [], of the last minibatch that ran.
      stopped: bool [], whether the epochs were cut.
    """
    if task.config.learning_rate_schedule != "kl":
        return adaptive
    scale, too_little = adaptive.learning_rate_scale, 0.5 * hypers.target_kl
    faster = jnp.where(approx_kl < too_little, scale * _KL_FACTOR, scale)
    scale = jnp.where(stopped, scale / _KL_FACTOR, faster)
    return adaptive.replace(learning_rate_scale=jnp.clip(scale, *_LEARNING_RATE_RANGE))


def adapt_entropy(
    adaptive: Adaptive, hypers: Hypers, head_entropy: dict[str, jax.Array]
) -> Adaptive:
    """Raise a head's coefficient while its entropy is below its floor, else lower it.

    Args:
      adaptive: the present factors.
      hypers: the entropy floors.
      head_entropy: head -> []; NaN for a head that was never active, whose factor does
        not change.
    """

    def adapted(name: str, scale: jax.Array) -> jax.Array:
        entropy = head_entropy[name]
        is_low = entropy < head_value(hypers, "entropy_floor", name)
        factor = jnp.where(is_low, _ENTROPY_FACTOR, 1.0 / _ENTROPY_FACTOR)
        new_scale = jnp.clip(scale * factor, *_ENTROPY_RANGE)
        return jnp.where(jnp.isnan(entropy), scale, new_scale)

    scales = {name: adapted(name, x) for name, x in adaptive.entropy_scale.items()}
    return adaptive.replace(entropy_scale=scales)
