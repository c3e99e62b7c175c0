"""The optimiser: one `optax.chain`, with policy and critic apart inside it."""

import jax
import jax.numpy as jnp
import optax

from purejaxppo import trees
from purejaxppo.config import Hypers
from purejaxppo.policy.policy import Params


def clip_by_global_norm(limit: jax.Array | float) -> optax.GradientTransformation:
    """Scale gradients down so that their global norm is at most `limit`.

    The same as `optax.clip_by_global_norm` up to rounding, with one product for each
    element where that divides, multiplies and selects.
    """

    def scale(grads: Params, params: Params | None) -> Params:
        del params
        norm = jnp.maximum(optax.tree.norm(grads), 1e-12)
        factor = jnp.minimum(1.0, limit / norm)
        return jax.tree.map(lambda g: g * factor, grads)

    return optax.stateless(scale)


def optimizer(
    hypers: Hypers, learning_rate: jax.Array
) -> optax.GradientTransformationExtraArgs:
    """Clip by the global norm; Adam; weight decay on the critic alone; learning rate.

    Policy and critic each have an Adam of their own, whose counts differ where the
    critic was warmed up alone. A transformation is a pair of closures, so the chain is
    built anew wherever it is traced, and each of its numbers may be traced.

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
            {"policy": adam(), "critic": optax.chain(adam(), decay)},
            Params(policy="policy", critic="critic"),
        ),
        optax.scale_by_learning_rate(learning_rate),
    )


def init(params: Params, hypers: Hypers) -> optax.OptState:
    """The optimiser's state before the first step."""
    return optimizer(hypers, jnp.zeros((), jnp.float32)).init(params)


def step(
    params: Params,
    grads: Params,
    opt_state: optax.OptState,
    hypers: Hypers,
    learning_rate: jax.Array,
    freeze_policy: jax.Array,
) -> tuple[Params, optax.OptState, jax.Array]:
    """One step of the optimiser.

    While `freeze_policy`, neither the policy nor its moments move, and its gradient
    does not count towards the norm: else Adam would start on stale bias correction.

    Args:
      params, grads: of policy and critic.
      opt_state: from `init` or the step before.
      hypers: see `optimizer`.
      learning_rate: [], of this step.
      freeze_policy: bool [].

    Returns:
      new params, new optimiser state, and the norm of the gradient before clipping.
    """
    held = trees.where(freeze_policy, _zeros_like(grads.policy), grads.policy)
    grads = grads.replace(policy=held)
    # optax raises floats to integer powers, which strict promotion forbids.
    with jax.numpy_dtype_promotion("standard"):
        updates, new_state = optimizer(hypers, learning_rate).update(
            grads, opt_state, params
        )
    new_params = optax.apply_updates(params, updates)
    policy = trees.where(freeze_policy, params.policy, new_params.policy)
    new_state = _with_policy_state(freeze_policy, opt_state, new_state)
    return new_params.replace(policy=policy), new_state, optax.tree.norm(grads)


def _with_policy_state(
    freeze_policy: jax.Array, old: optax.OptState, new: optax.OptState
) -> optax.OptState:
    """The new state; of the policy's Adam the old one while the policy is frozen."""
    clip, partition, rate = new
    before, after = old[1].inner_states, dict(partition.inner_states)
    after["policy"] = trees.where(freeze_policy, before["policy"], after["policy"])
    return clip, partition._replace(inner_states=after), rate


def _zeros_like(tree: Params) -> Params:
    return jax.tree.map(jnp.zeros_like, tree)
