"""What flows through an update. T steps, N environments, D observation size.

What the next update needs is in `TrainState`; what only people look at is in
`Metrics`. So one scan of 100 updates, ten chunks of ten, and a run that was killed
and resumed are the same computation by construction.
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
    """What is trained, with what: the static facts, and first argument, of all of PPO.

    Attributes:
      env: the environment, of one instance.
      policy: its policy and critic, as functions of parameters.
      config: the static configuration.
      axis_name: the named axis over which environments are sharded, if any.
    """

    env: Env
    policy: Policy
    config: Config
    axis_name: AxisName = None


class Reference(struct.PyTreeNode):
    """A frozen policy, with the statistics of the observations it was made for."""

    params: Params
    obs_stats: Statistics | None
    carry: Carries  # its own recurrent state, [N, H]: the learner's is another


class Adaptive(struct.PyTreeNode):
    """Coefficients that follow what training does."""

    learning_rate_scale: jax.Array  # float32 [], schedule "kl"
    entropy_scale: dict[str, jax.Array]  # head -> float32 [], entropy floor


class TrainState(struct.PyTreeNode):
    """All that the next update depends on."""

    params: Params
    opt_state: optax.OptState
    obs_stats: Statistics | None  # None: observations are not normalised
    return_stats: Statistics | None  # None: rewards are not scaled
    discounted_return: jax.Array  # float32 [N], running, for return_stats
    episodes: Episode  # [N, ...]
    carry: Carries  # recurrent state per network, [N, H]
    reference: Reference | None  # None: no KL anchor, and no cost
    adaptive: Adaptive
    key: jax.Array
    update_count: jax.Array  # int32 []
    still_updates: jax.Array  # int32 [], in a row, which did not move the policy


class Transition(struct.PyTreeNode):
    """One step of every environment; the rollout stacks T of them."""

    stored: Stored  # [T, N, ...]
    log_prob: dict[str, jax.Array]  # head -> [T, N], of the policy that acted
    entropy: jax.Array  # [T, N], joint, of the policy that acted
    reference_log_prob: jax.Array  # [T, N], 0 without a reference
    reward: jax.Array  # [T, N]
    terminated: jax.Array  # bool [T, N]
    truncated: jax.Array  # bool [T, N]
    final_obs: Obs  # [T, N, D], the true next observation, normalised


class Batch(struct.PyTreeNode):
    """What the epochs learn from: M sequences of L steps (1 without a core)."""

    stored: Stored  # [L, M, ...]; carry [M, H], before the first step
    log_prob: dict[str, jax.Array]  # head -> [L, M]
    entropy: jax.Array  # [L, M]
    reference_log_prob: jax.Array  # [L, M]
    advantages: jax.Array  # [L, M]
    returns: jax.Array  # [L, M]
    value: jax.Array  # [L, M], of the critic before the update
