"""The optimiser: one `optax.chain` with a separate Adam for policy and critic."""

from typing import cast

import jax
import jax.numpy as jnp
import optax

from purejaxppo import trees
from purejaxppo.config import Hypers
from purejaxppo.policy.policy import Params

# The label of each field of `Params`, by which `optax.partition` selects parameters.
_PARTS = Params(critic={}, policy={}).replace(critic="critic", policy="policy")


def clip_by_global_norm(limit: jax.Array | float) -> optax.GradientTransformation:
    """Scale gradients down so that their global norm is at most `limit`.

    This equals `optax.clip_by_global_norm` up to rounding and is faster: one product
    per element, instead of a division, a product and a selection.
    """

    def scale(grads: optax.Updates, params: optax.Params | None) -> optax.Updates:
        del params
        norm = jnp.maximum(optax.tree.norm(grads), 1e-12)
        factor = jnp.minimum(1.0, limit / norm)
        return jax.tree.map(lambda g: g * factor, grads)

    return optax.stateless(scale)


def optimizer(
    hypers: Hypers, learning_rate: jax.Array | float
) -> optax.GradientTransformation:
    """Build the optimiser: clip by global norm, Adam, weight decay, learning rate.

    Weight decay applies to the critic only. Policy and critic have separate Adam
    states, because their step counts differ after a warm-up of the critic. The
    optimiser is built each time that a step is traced, so its numbers may be traced.

    Args:
      hypers: norm limit, Adam's epsilon, weight decay.
      learning_rate: [], of this step.
    """

    def adam() -> optax.GradientTransformation:
        return optax.scale_by_adam(eps=hypers.adam_eps)

    decay = optax.add_decayed_weights(hypers.critic_weight_decay)
    return optax.chain(
        clip_by_global_norm(hypers.max_grad_norm),
        optax.partition(
            {"critic": optax.chain(adam(), decay), "policy": adam()}, _PARTS
        ),
        optax.scale_by_learning_rate(learning_rate),
    )


def init(
    transformation: optax.GradientTransformation, params: Params
) -> optax.OptState:
    """Return the optimiser's state before the first step."""
    return transformation.init(cast(optax.Params, params))


def apply(
    transformation: optax.GradientTransformation,
    params: Params,
    grads: Params,
    opt_state: optax.OptState,
) -> tuple[Params, optax.OptState]:
    """Apply one step of an optax optimiser.

    Args:
      transformation: the optimiser.
      params, grads: parameters and gradients of policy and critic.
      opt_state: from `init` or the step before.

    Returns:
      the new parameters and the new optimiser state.
    """
    tree = cast(optax.Params, params)
    # optax raises floats to integer powers, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, opt_state = transformation.update(
            cast(optax.Updates, grads), opt_state, tree
        )
    return cast(Params, optax.apply_updates(tree, updates)), opt_state


def step(
    params: Params,
    grads: Params,
    opt_state: optax.OptState,
    hypers: Hypers,
    learning_rate: jax.Array | float,
    freeze_policy: jax.Array,
) -> tuple[Params, optax.OptState, jax.Array]:
    """Apply one step of PPO's optimiser.

    With `freeze_policy` the policy's parameters and its Adam state do not change, and
    its gradient does not count towards the norm. So Adam's bias correction starts at
    the policy's first step.

    Args:
      params, grads: parameters and gradients of policy and critic.
      opt_state: from `init` or the step before.
      hypers: see `optimizer`.
      learning_rate: [], of this step.
      freeze_policy: bool [].

    Returns:
      new params, new optimiser state, and the norm of the gradient before clipping.
    """
    zeros = jax.tree.map(jnp.zeros_like, grads.policy)
    grads = grads.replace(policy=trees.where(freeze_policy, zeros, grads.policy))
    transformation = optimizer(hypers, learning_rate)
    after, new_state = apply(transformation, params, grads, opt_state)
    policy = trees.where(freeze_policy, params.policy, after.policy)
    new_state = _with_policy_state(
        freeze_policy, cast(tuple, opt_state), cast(tuple, new_state)
    )
    return after.replace(policy=policy), new_state, optax.tree.norm(grads)


def _with_policy_state(freeze_policy: jax.Array, old: tuple, new: tuple) -> tuple:
    """Return `new`, with the policy's Adam state from `old` if the policy is frozen."""
    clip, partition, rate = new  # in the order of the chain
    inner = dict(partition.inner_states)
    frozen = old[1].inner_states["policy"]
    inner["policy"] = trees.where(freeze_policy, frozen, inner["policy"])
    return clip, partition._replace(inner_states=inner), rate
