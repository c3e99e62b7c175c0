"""A dict of action heads: from network outputs to actions and log-probs.

A head is *active* at a step if its action has an effect there, which depends on the
state (`active`) and on the choice of its parent head. An inactive head adds nothing to
log-prob and entropy, because its action has no influence on the return.
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
# Head -> float32 [..., A] or [..., n]; for a custom distribution, random keys [...].
Noise = dict[str, jax.Array]
# Head -> the parameters of its distribution: "mean" and "std", "logits", or "raw".
Outputs = dict[str, dict[str, jax.Array]]


class PolicyInput(struct.PyTreeNode):
    """The input of a policy: normalised observations, masks and activity.

    All leaves have the same leading axes. Masks and activity belong to the state in
    which the action is chosen.
    """

    obs: Obs  # [..., D], or a dict of "actor" and "critic"
    start: jax.Array  # bool [...], the first step of an episode: the carry is reset
    action_mask: dict[str, jax.Array]  # bool, True is allowed
    active: dict[str, jax.Array]  # bool [...]


class HeadTerms(struct.PyTreeNode):
    """Terms of the loss per head and sample, [...]; 0 where the head is inactive."""

    log_prob: dict[str, jax.Array]
    entropy: dict[str, jax.Array]
    active: dict[str, jax.Array]  # bool
    std: dict[str, jax.Array]  # mean over dimensions; only of continuous heads
    no_valid_action: jax.Array  # bool [...], the mask of an active head allows too few

    def joint_log_prob(self) -> jax.Array:
        """Return the log-prob of the whole action: the sum over active heads."""
        return joint(self.log_prob)

    def joint_entropy(self) -> jax.Array:
        """Return the sum of the entropies of active heads."""
        return joint(self.entropy)


def joint(per_head: dict[str, jax.Array]) -> jax.Array:
    """Sum over heads in the order of their names, so that rounding is the same."""
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
    """Return the head's mask; of a mask per parent choice, the row of that choice."""
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
        # An inactive head may have an empty mask, which would give NaN. An empty mask
        # of an active head is reported through `no_valid_action`.
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
    """Return the size of the last axis of a head's distribution parameters."""
    if isinstance(head, Box):
        return head.size
    return head.num_outputs if isinstance(head, Custom) else head.n


def noise(heads: Heads, config: Config, key: jax.Array, shape: Shape) -> Noise:
    """Draw the random numbers of an action of every head.

    They are drawn before the rollout, because random numbers take many small kernels,
    which inside the scan over steps would cost as much as the policy's network.

    Args:
      heads: head name -> head.
      config: names the distribution of continuous heads.
      key: a typed random key, from which each head derives its own.
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
    """Choose the action of every head: a sample, or the mode if `noise` is None.

    Args:
      heads: head name -> head, parents before their children.
      outputs: head name -> parameters of its distribution, [..., n] each.
      inputs: the input of the network, with masks, [...].
      config: names the distribution of continuous heads.
      noise: random numbers from `noise`, for the same leading axes; None for the mode.

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
    """Compute log-prob and entropy of each head at a stored action.

    Rollout and loss both compute their log-probs by this function.

    Args:
      heads: head name -> head, parents before their children.
      outputs: head name -> parameters of its distribution, [..., n] each.
      inputs: the input of the network, with masks and activity, [...].
      action: the stored action; that of an inactive head may have any value.
      config: names the distribution of continuous heads.

    Returns:
      log-prob, entropy, activity and std of every head, [...].
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
        # The action of an inactive head may have any value, so it is replaced by zeros
        # first: a NaN in the branch not selected would still reach the gradient.
        zeros = jnp.zeros_like(action[name])
        safe_action = trees.where(active[name], action[name], zeros)
        log_prob[name] = jnp.where(active[name], dist.log_prob(safe_action), 0.0)
        entropy[name] = jnp.where(active[name], dist.entropy(), 0.0)
        if isinstance(head, Box):
            std[name] = jnp.mean(outputs[name]["std"], axis=-1)
    return HeadTerms(log_prob, entropy, active, std, no_valid_action)


def allowed(heads: Heads, inputs: PolicyInput, action: Action) -> dict[str, jax.Array]:
    """Whether the mask of each head allows its action.

    Args:
      heads: head name -> kind, parents before their children.
      inputs: the network's input, with masks and activity, [...].
      action: head name -> action, [...].

    Returns:
      head name -> bool [...], also True where the head is inactive; without the heads
      that have no mask.
    """
    active, result = {}, {}
    for name, head in heads.items():
        active[name] = _is_active(name, head, inputs, action, active)
        mask = _mask_of(name, head, heads, inputs, action)
        if mask is None or not isinstance(head, Discrete | Choice):
            continue
        chosen = action[name] if isinstance(head, Choice) else action[name][..., None]
        chosen = jnp.clip(chosen, 0, head.n - 1)
        permitted = jnp.all(jnp.take_along_axis(mask, chosen, axis=-1), axis=-1)
        result[name] = permitted | ~active[name]
    return result


def validate_distributions(heads: Heads, config: Config) -> None:
    """Check custom distributions by tracing, without computing anything.

    Raises:
      ConfigError: a distribution that cannot be sampled and differentiated, that has
        the wrong shape, or that lacks the entropy that the configuration uses.
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
    """Refuse an entropy bonus or limit for a distribution that defines no entropy.

    An estimate from the stored action would not help: the expectation of its gradient
    is 0.
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
