"""A dict of action heads: from network outputs to actions and log-probs.

A head is *active* at a step if its action mattered there: the state says so
(`active`), and so does its parent's choice. What an inactive head did is no evidence,
so it adds nothing to log-prob or entropy.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.config import Config
from purejaxppo.env import Action, Box, Choice, Discrete, Head
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
Noise = dict[str, jax.Array]  # per head, [..., A] or [..., n]
# Head -> the arrays that its distribution is made of: "mean" and "std", or "logits".
Outputs = dict[str, dict[str, jax.Array]]


class PolicyInput(struct.PyTreeNode):
    """What a policy acts on, as the network saw it (observations normalised).

    All leaves share their leading axes. Masks and activity are those of the very
    state in which the action is chosen.
    """

    obs: object  # [..., D], or a dict of "actor" and "critic"
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


_CONTINUOUS = {
    "truncated_normal": TruncatedNormal,
    "tanh_normal": TanhNormal,
    "normal": Normal,
}


def _continuous(outputs: dict[str, jax.Array], config: Config) -> Distribution:
    mean, std = outputs["mean"], outputs["std"]
    if config.distribution == "truncated_normal":
        mean = jnp.tanh(mean)
    return _CONTINUOUS[config.distribution](mean, std)


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
    if mask is not None:
        # An inactive head may have an empty mask. It is not used, but it must not be
        # NaN either; an active one is reported through `no_valid_action`.
        mask = mask | ~jnp.any(mask, axis=-1, keepdims=True)
    if isinstance(head, Choice):
        return PlackettLuce(outputs["logits"], head.k, mask)
    return Categorical(outputs["logits"], mask, config.normalize_entropy)


def noise(heads: Heads, config: Config, key: jax.Array, shape: Shape) -> Noise:
    """What is random about an action of every head, for samples of that shape.

    Not drawn where it is used: random numbers are many tiny kernels, which inside the
    scan of a rollout cost as much as the policy's network.
    """

    def of_head(head: Head, key: jax.Array) -> jax.Array:
        if isinstance(head, Box):
            return _CONTINUOUS[config.distribution].noise(key, (*shape, head.size))
        kind = PlackettLuce if isinstance(head, Choice) else Categorical
        return kind.noise(key, (*shape, head.n))

    return {
        name: of_head(head, jax.random.fold_in(key, index))
        for index, (name, head) in enumerate(heads.items())
    }


def choose(
    heads: Heads,
    outputs: Outputs,
    inputs: PolicyInput,
    config: Config,
    noise: Noise | None,
) -> Action:
    """An action of every head, in order; the mode where there is no noise."""
    action: Action = {}
    for name, head in heads.items():
        mask = _mask_of(name, head, heads, inputs, action)
        dist = _distribution(head, outputs[name], mask, config)
        action[name] = dist.mode() if noise is None else dist.sample(noise[name])
    return action


def _where_active(active: jax.Array, action: jax.Array) -> jax.Array:
    column = active.reshape(active.shape + (1,) * (action.ndim - active.ndim))
    return jnp.where(column, action, jnp.zeros_like(action))


def evaluate_actions(
    heads: Heads,
    outputs: Outputs,
    inputs: PolicyInput,
    action: Action,
    config: Config,
) -> HeadTerms:
    """Log-prob and entropy of each head at a stored action.

    The one function from which log-probs come, in the rollout and in the loss.
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
        used = _where_active(active[name], action[name])
        log_prob[name] = jnp.where(active[name], dist.log_prob(used), 0.0)
        entropy[name] = jnp.where(active[name], dist.entropy(), 0.0)
        if isinstance(head, Box):
            std[name] = jnp.mean(outputs[name]["std"], axis=-1)
    return HeadTerms(log_prob, entropy, active, std, no_valid_action)
