"""A dict of action heads: from network outputs to actions and log-probs.

A head is *active* at a step if its action mattered there: the state says so
(`active`), and so does its parent's choice. What an inactive head did is no evidence,
so it adds nothing to log-prob or entropy.
"""

import functools
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo import trees
from purejaxppo.config import Config, Hypers
from purejaxppo.env import Action, Box, Choice, Custom, Discrete, Head, Obs
from purejaxppo.errors import ConfigError
from purejaxppo.policy import custom
from purejaxppo.policy.custom import CustomDistribution
from purejaxppo.policy.distributions import (
    Categorical,
    Distribution,
    Normal,
    PlackettLuce,
    Shape,
    TanhNormal,
    TruncatedNormal,
)

Heads = Mapping[str, Head]
# Per head: float32 [..., A] or [..., n]; random keys [...] of a custom distribution.
Noise = dict[str, jax.Array]
# Head -> the arrays that its distribution is made of: "mean" and "std", or "logits".
Outputs = dict[str, dict[str, jax.Array]]


class PolicyInput(struct.PyTreeNode):
    """What a policy acts on, as the network saw it (observations normalised).

    All leaves share their leading axes. Masks and activity are those of the very
    state in which the action is chosen.
    """

    obs: Obs  # [..., D], or a dict of "actor" and "critic"
    start: jax.Array  # bool [...], the first step of an episode: the carry is reset
    action_mask: dict[str, jax.Array]  # bool, True is allowed
    active: dict[str, jax.Array]  # bool [...]


class HeadTerms(struct.PyTreeNode):
    """Per head and sample, [...]; log_prob and entropy are 0 where inactive."""

    log_prob: dict[str, jax.Array]
    entropy: dict[str, jax.Array]
    active: dict[str, jax.Array]  # bool
    std: dict[str, jax.Array]  # mean over dimensions; continuous heads alone
    no_valid_action: jax.Array  # bool [...], an active head had nothing to choose

    def joint_log_prob(self) -> jax.Array:
        """Log-prob of the action as a whole: the sum over active heads."""
        return joint(self.log_prob)

    def joint_entropy(self) -> jax.Array:
        return joint(self.entropy)


def joint(per_head: dict[str, jax.Array]) -> jax.Array:
    """Sum over heads, in the order of their names (float sums have an order)."""
    return functools.reduce(jnp.add, [per_head[name] for name in sorted(per_head)])


_CONTINUOUS: dict[str, type[Distribution]] = {
    "truncated_normal": TruncatedNormal,
    "tanh_normal": TanhNormal,
    "normal": Normal,
}


def _continuous(outputs: dict[str, jax.Array], config: Config) -> Distribution:
    mean, std = outputs["mean"], outputs["std"]
    if config.distribution == "truncated_normal":
        return TruncatedNormal(jnp.tanh(mean), std)
    if config.distribution == "tanh_normal":
        return TanhNormal(mean, std)
    if config.distribution == "normal":
        return Normal(mean, std)
    factory = custom.resolve("distribution", config.distribution)
    return CustomDistribution((mean, std), factory)


def _mask_of(
    name: str, head: Head, heads: Heads, inputs: PolicyInput, action: Action
) -> jax.Array | None:
    """The mask that applies: the parent's choice picks the row of a mask table."""
    mask = inputs.action_mask.get(name)
    if mask is None or not isinstance(head, Discrete) or head.parent is None:
        return mask
    if mask.ndim == inputs.start.ndim + 1:
        return mask
    row = action[head.parent][..., None, None]
    return jnp.take_along_axis(mask, row, axis=-2)[..., 0, :]


def _is_active(
    name: str,
    head: Head,
    inputs: PolicyInput,
    action: Action,
    active: dict[str, jax.Array],
) -> jax.Array:
    is_active = inputs.active.get(name, jnp.ones(inputs.start.shape, bool))
    if isinstance(head, Discrete) and head.parent is not None:
        is_active &= active[head.parent]
        if head.active_when is not None:
            is_active &= jnp.isin(
                action[head.parent], jnp.asarray(head.active_when, jnp.int32)
            )
    return is_active


def _distribution(
    head: Head, outputs: dict[str, jax.Array], mask: jax.Array | None, config: Config
) -> Distribution:
    if isinstance(head, Box):
        return _continuous(outputs, config)
    if isinstance(head, Custom):
        factory = custom.resolve("distribution", head.distribution)
        return CustomDistribution((outputs["raw"],), factory)
    if mask is not None:
        # An inactive head may have an empty mask. It is not used, but it must not be
        # NaN either; an active one is reported through `no_valid_action`.
        mask = mask | ~jnp.any(mask, axis=-1, keepdims=True)
    if isinstance(head, Choice):
        return PlackettLuce(outputs["logits"], head.k, mask)
    return Categorical(outputs["logits"], mask, config.normalize_entropy)


def _kind(head: Head, config: Config) -> type[Distribution]:
    if isinstance(head, Box):
        return _CONTINUOUS.get(config.distribution, CustomDistribution)
    if isinstance(head, Custom):
        return CustomDistribution
    return PlackettLuce if isinstance(head, Choice) else Categorical


def _width(head: Head) -> int:
    """Last axis of the parameters of a head's distribution."""
    if isinstance(head, Box):
        return head.size
    return head.num_outputs if isinstance(head, Custom) else head.n


def noise(heads: Heads, config: Config, key: jax.Array, shape: Shape) -> Noise:
    """Draw what is random about an action of every head.

    Not drawn where it is used: random numbers are many tiny kernels, which inside the
    scan of a rollout cost as much as the policy's network.

    Args:
      heads: head name -> kind; each draws with a key of its own.
      config: names the distribution of continuous heads.
      key: a typed key.
      shape: the leading axes, [...], of the samples.
    """
    return {
        name: _kind(head, config).noise(
            jax.random.fold_in(key, index), (*shape, _width(head))
        )
        for index, (name, head) in enumerate(heads.items())
    }


def choose(
    heads: Heads,
    outputs: Outputs,
    inputs: PolicyInput,
    config: Config,
    noise: Noise | None,
) -> Action:
    """An action of every head, in order; the mode where there is no noise.

    Args:
      heads: head name -> kind.
      outputs: head name -> what the network gives for it, [..., n] each.
      inputs: what the network saw, with masks, [...].
      config: names the distribution of continuous heads.
      noise: as drawn by `noise` for the same leading axes; None for the mode.

    Returns:
      head name -> its action: Box [..., size], Discrete [...], Choice [..., k].
    """
    action: Action = {}
    for name, head in heads.items():
        mask = _mask_of(name, head, heads, inputs, action)
        dist = _distribution(head, outputs[name], mask, config)
        action[name] = dist.mode() if noise is None else dist.sample(noise[name])
    return action


def evaluate_actions(
    heads: Heads,
    outputs: Outputs,
    inputs: PolicyInput,
    action: Action,
    config: Config,
) -> HeadTerms:
    """Log-prob and entropy of each head at a stored action.

    The one function from which log-probs come, in the rollout and in the loss.

    Args:
      heads: head name -> kind, parents before their children.
      outputs: head name -> what the network gives for it, [..., n] each.
      inputs: what the network saw, with masks and activity, [...].
      action: as it is stored; that of an inactive head may be anything.
      config: names the distribution of continuous heads.

    Returns:
      the terms of every head, [...].
    """
    log_prob, entropy, active, std = {}, {}, {}, {}
    no_valid_action = jnp.zeros(inputs.start.shape, bool)
    for name, head in heads.items():
        mask = _mask_of(name, head, heads, inputs, action)
        dist = _distribution(head, outputs[name], mask, config)
        active[name] = _is_active(name, head, inputs, action, active)
        if mask is not None:
            needed = head.k if isinstance(head, Choice) else 1
            too_few = jnp.sum(mask, axis=-1) < needed
            no_valid_action |= active[name] & too_few
        # where, not a product, and twice: an unused action may be anything, and a
        # NaN in the branch that is not taken would still reach the gradient.
        unused = jnp.zeros_like(action[name])
        used = trees.where(active[name], action[name], unused)
        log_prob[name] = jnp.where(active[name], dist.log_prob(used), 0.0)
        entropy[name] = jnp.where(active[name], dist.entropy(), 0.0)
        if isinstance(head, Box):
            std[name] = jnp.mean(outputs[name]["std"], axis=-1)
    return HeadTerms(log_prob, entropy, active, std, no_valid_action)


def validate_distributions(heads: Heads, config: Config) -> None:
    """Check the distributions that users bring, by tracing alone.

    Raises:
      ConfigError: one that cannot be sampled and differentiated, that does not fit its
        head, or that lacks the entropy which the configuration asks for.
    """
    for name, head in heads.items():
        if isinstance(head, Box) and config.distribution not in _CONTINUOUS:
            field, target = "distribution", config.distribution
            facts = custom.describe(field, target, (head.size, head.size))
            if (facts.shape, facts.dtype) != ((head.size,), jnp.float32):
                raise ConfigError(
                    field,
                    target,
                    f"a distribution over float32 [{head.size}] for the head {name}, "
                    f"not over {facts.dtype} {list(facts.shape)}",
                )
        elif isinstance(head, Custom):
            field, target = f"heads.{name}", head.distribution
            facts = custom.describe(field, target, (head.num_outputs,))
        else:
            continue
        if not facts.has_entropy:
            _check_without_entropy(name, config.hypers)


def _check_without_entropy(name: str, hypers: Hypers) -> None:
    """A distribution without a formula of its entropy cannot have a bonus on it.

    The estimate from one stored action is no way out: its gradient is 0 on average.
    """
    coef = hypers.head_entropy_coef.get(name, hypers.entropy_coef)
    limit = hypers.entropy_limit
    for field, value, off in (
        ("entropy_coef", coef, 0.0),
        ("entropy_limit", limit, math.inf),
    ):
        # An array is traced, or one value for each vmapped member.
        if isinstance(value, (int, float)) and value != off:
            raise ConfigError(
                field,
                value,
                f"{off} with the head {name}, whose distribution has no entropy()",
            )
