"""The data structures of an update. T steps, N environments, D observation size.

Everything that the next update depends on is in `TrainState`; values that are only
logged are in `Metrics`. So one scan of 100 updates, ten chunks of ten updates, and a
run that was stopped and resumed are the same computation.
"""

from typing import NamedTuple

import jax
import optax
from flax import struct

from purejaxppo.autoreset import Episode
from purejaxppo.config import Config
from purejaxppo.env import Env, Obs
from purejaxppo.policy.policy import Carries, Params, Policy, Stored
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.reduce import AxisName

Metrics = dict[str, jax.Array]  # "loss/policy" -> float32 []


class Task(NamedTuple):
    """Environment, policy and configuration: the static arguments of PPO's functions.

    Attributes:
      env: the environment; its functions are for one instance.
      policy: policy and critic, as functions of parameters.
      config: the static configuration.
      axis_name: the named axis over which environments are sharded, if any.
    """

    env: Env
    policy: Policy
    config: Config
    axis_name: AxisName = None


class Reference(struct.PyTreeNode):
    """A frozen policy and the observation statistics with which it was trained."""

    params: Params
    obs_stats: Statistics | None
    carry: Carries  # recurrent state of the reference, [N, H]


class Adaptive(struct.PyTreeNode):
    """Factors of coefficients that adapt to the statistics of training."""

    learning_rate_scale: jax.Array  # float32 [], schedule "kl"
    entropy_scale: dict[str, jax.Array]  # head -> float32 [], entropy floor


class Initial(struct.PyTreeNode):
    """Parameters and statistics that training begins with, in place of new ones."""

    params: Params  # a network that begins anew is None
    obs_stats: Statistics | None  # those with which the parameters were trained
    return_stats: Statistics | None  # the scale of the critic's values; None without it


class TrainState(struct.PyTreeNode):
    """The state of training: everything that the next update depends on."""

    params: Params
    opt_state: optax.OptState
    obs_stats: Statistics | None  # None: observations are not normalised
    return_stats: Statistics | None  # None: rewards are not scaled
    discounted_return: jax.Array  # float32 [N], running discounted return of rewards
    episodes: Episode  # [N, ...]
    carry: Carries  # recurrent state per network, [N, H]
    reference: Reference | None  # None: no KL anchor, and no cost
    adaptive: Adaptive
    key: jax.Array
    update_count: jax.Array  # int32 []
    still_updates: jax.Array  # int32 [], in a row, without a change of the policy


class Transition(struct.PyTreeNode):
    """One step of every environment; the rollout stacks T of them."""

    stored: Stored  # [T, N, ...]
    log_prob: dict[str, jax.Array]  # head -> [T, N], under the rollout's policy
    entropy: jax.Array  # [T, N], joint, of the rollout's policy
    reference_log_prob: jax.Array  # [T, N], 0 without a reference
    reward: jax.Array  # [T, N]
    terminated: jax.Array  # bool [T, N]
    truncated: jax.Array  # bool [T, N]
    final_obs: Obs  # [T, N, D], the true next observation, normalised


class Batch(struct.PyTreeNode):
    """The training batch: M sequences of L steps (L is 1 without a recurrent core)."""

    stored: Stored  # [L, M, ...]; carry [M, H], before the first step
    log_prob: dict[str, jax.Array]  # head -> [L, M]
    entropy: jax.Array  # [L, M]
    reference_log_prob: jax.Array  # [L, M]
    advantages: jax.Array  # [L, M]
    returns: jax.Array  # [L, M]
    value: jax.Array  # [L, M], of the critic before the update
