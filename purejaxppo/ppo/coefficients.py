"""The coefficients of an update: schedules, and factors that follow what training does.

A schedule goes by the update's number, an adaptive factor by the statistics of the
update before.
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
    """Of one update, schedules and adaptive factors applied. Scalars."""

    learning_rate: jax.Array
    rate_factor: jax.Array  # what learning_rate is of the configuration's
    entropy: dict[str, jax.Array]  # per head
    kl: jax.Array
    freeze_policy: jax.Array  # bool: the critic's warm-up


def schedule(kind: str, progress: jax.Array, final: jax.Array | float) -> jax.Array:
    """The factor of a coefficient, from 1 at the start to `final` at the end.

    Args:
      kind: "constant", "linear", "exponential", "cosine", or "kl", which is constant
        here: `adapt_learning_rate` moves it.
      progress: [], the share of training that is done, in [0, 1].
      final: [], the factor at a progress of 1.
    """
    if kind == "linear":
        return 1.0 + (final - 1.0) * progress
    if kind == "exponential":
        # A final of 0 has no exponential path; the smallest float32 stands in.
        return jnp.exp(jnp.log(jnp.maximum(final, 1e-30)) * progress)
    if kind == "cosine":
        return final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.ones_like(progress)


def head_value(hypers: Hypers, field: str, head: str) -> jax.Array | float:
    """The head's own value of `entropy_coef` and its like, or that of all heads.

    Args:
      hypers: the hyperparameters.
      field: one of `config.PER_HEAD`.
      head: the head's name.
    """
    return getattr(hypers, f"head_{field}").get(head, getattr(hypers, field))


def coefficients(task: Task, state: TrainState, hypers: Hypers) -> Coefficients:
    """Schedules and adaptive factors at this update.

    Args:
      task: its configuration names the schedules.
      state: before the update; its count is the update's number.
      hypers: the values at the start of training.
    """
    config = task.config
    # Below 1 at the last update: a rate that ends at 0 still learns until then.
    progress = state.update_count.astype(jnp.float32) / config.num_updates
    rate = schedule(config.learning_rate_schedule, progress, hypers.learning_rate_final)
    rate *= _warmup(task, state)
    kl = schedule(config.kl_schedule, progress, hypers.kl_coef_final)

    def entropy(head: str) -> jax.Array:
        final = head_value(hypers, "entropy_coef_final", head)
        factor = schedule(config.entropy_schedule, progress, final)
        return head_value(hypers, "entropy_coef", head) * factor

    scales, rate_scale = state.adaptive.entropy_scale, state.adaptive.learning_rate_scale
    return Coefficients(
        learning_rate=hypers.learning_rate * rate * rate_scale,
        rate_factor=rate * rate_scale,
        entropy={head: entropy(head) * scale for head, scale in scales.items()},
        kl=hypers.kl_coef * kl,
        freeze_policy=state.update_count < config.critic_warmup,
    )


def _warmup(task: Task, state: TrainState) -> jax.Array:
    """The ramp of the learning rate, from the first update in which the policy moves;
    1 before it, while the critic learns alone."""
    config = task.config
    since = state.update_count - config.critic_warmup + 1
    ramp = jnp.clip(since / (config.learning_rate_warmup + 1), 0.0, 1.0)
    return jnp.where(since > 0, ramp, 1.0)


def init_adaptive(heads: Iterable[str]) -> Adaptive:
    """Factors of 1, of the learning rate and of each head's entropy coefficient."""
    # An array each: the compiled program consumes its state, and none twice.
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
    """The adaptive factors after an update; as they were while the policy is frozen.

    Args:
      task: its configuration says what adapts.
      state: before the update.
      hypers: target KL and entropy floors.
      approx_kl: [], of the last minibatch that ran.
      stopped: bool [], whether the policy moved too far and the epochs were cut.
      head_entropy: head -> [], mean over the update; NaN where it was never active.
    """
    adapted = adapt_learning_rate(task, state.adaptive, hypers, approx_kl, stopped)
    adapted = adapt_entropy(adapted, hypers, head_entropy)
    # A policy that is held says nothing by not moving.
    frozen = state.update_count < task.config.critic_warmup
    return trees.where(frozen, state.adaptive, adapted)


def adapt_learning_rate(
    task: Task,
    adaptive: Adaptive,
    hypers: Hypers,
    approx_kl: jax.Array,
    stopped: jax.Array,
) -> Adaptive:
    """Schedule "kl": slower where the policy moved too far, faster where little.

    Too far is what cuts an update. With a limit of its own, above that of the stop,
    the rate would rise on the updates that are not cut and fall on none of the others.

    Args:
      task: another schedule than "kl" leaves the factors alone.
      adaptive: the factors so far.
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
    """Raise a head's coefficient while its entropy is below its floor, else relax.

    Args:
      adaptive: the factors so far.
      hypers: the entropy floors.
      head_entropy: head -> []; NaN, and no change, for a head that was never active.
    """

    def adapted(name: str, scale: jax.Array) -> jax.Array:
        entropy = head_entropy[name]
        below = entropy < head_value(hypers, "entropy_floor", name)
        factor = jnp.where(below, _ENTROPY_FACTOR, 1.0 / _ENTROPY_FACTOR)
        moved = jnp.clip(scale * factor, *_ENTROPY_RANGE)
        return jnp.where(jnp.isnan(entropy), scale, moved)

    scales = {name: adapted(name, x) for name, x in adaptive.entropy_scale.items()}
    return adaptive.replace(entropy_scale=scales)
