"""The optimiser: clip, Adam, schedules, and rates that adapt to KL."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from purejaxppo.config import Config, Hypers
from purejaxppo.policy.policy import Params
from purejaxppo.ppo.types import Adaptive

# Rate of change and range of adaptive coefficients (the KL rule and its factor 1.5
# are those of rsl_rl and Brax; both adapt BEFORE the step).
_KL_FACTOR = 1.5
_LEARNING_RATE_RANGE = (1e-2, 1e2)
_ENTROPY_FACTOR = 1.1
_ENTROPY_RANGE = (1.0, 1e3)


def schedule(kind: str, progress: jax.Array, final: jax.Array | float) -> jax.Array:
    """Factor at `progress` in [0, 1]: from 1 to `final`. "kl" is constant here."""
    if kind == "linear":
        return 1.0 + (final - 1.0) * progress
    if kind == "exponential":
        # A final of 0 has no exponential path; the smallest float32 stands in.
        return jnp.exp(jnp.log(jnp.maximum(final, 1e-30)) * progress)
    if kind == "cosine":
        return final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return jnp.ones_like(progress)


def _split(params: Params) -> dict[str, Params]:
    """The critic's modules, by the prefix of their names, and all others."""
    parts: dict[str, Params] = {"policy": {}, "critic": {}}
    for name, branch in params.items():
        parts["critic" if name.startswith("critic") else "policy"][name] = branch
    return parts


def _adam(hypers: Hypers) -> optax.GradientTransformation:
    # Transformations are cheap closures: built anew in every trace, so that each of
    # their numbers may be traced.
    return optax.scale_by_adam(eps=hypers.adam_eps)


def init(params: Params, hypers: Hypers) -> dict[str, Any]:
    """Adam's state, of policy and critic apart: one may rest while the other learns."""
    return {name: _adam(hypers).init(part) for name, part in _split(params).items()}


def step(
    params: Params,
    grads: Params,
    opt_state: dict[str, Any],
    hypers: Hypers,
    learning_rate: jax.Array,
    freeze_policy: jax.Array,
) -> tuple[Params, dict[str, Any], jax.Array]:
    """Clip by the global norm, then Adam; weight decay on the critic alone.

    While `freeze_policy`, neither the policy nor its moments move, and its gradient
    does not count towards the norm: else Adam would start on stale bias correction.

    Returns:
      new params, new optimiser state, and the norm of the gradient before clipping.
    """
    grads = _split(grads)
    grads["policy"] = jax.tree.map(
        lambda g: jnp.where(freeze_policy, jnp.zeros_like(g), g), grads["policy"]
    )
    norm = optax.tree.norm(grads)
    factor = jnp.minimum(1.0, hypers.max_grad_norm / jnp.maximum(norm, 1e-12))
    grads = jax.tree.map(lambda g: g * factor, grads)
    new_params, new_state = {}, {}
    for name, part in _split(params).items():
        # optax raises floats to integer powers, which strict promotion forbids.
        with jax.numpy_dtype_promotion("standard"):
            updates, new_state[name] = _adam(hypers).update(
                grads[name], opt_state[name]
            )
        decay = hypers.critic_weight_decay if name == "critic" else 0.0
        new_part = jax.tree.map(
            lambda p, u, decay=decay: p - learning_rate * (u + decay * p),
            part,
            updates,
        )
        if name == "policy":
            new_part, new_state[name] = _keep(
                freeze_policy, (part, opt_state[name]), (new_part, new_state[name])
            )
        new_params |= new_part
    return new_params, new_state, norm


def _keep(condition: jax.Array, old: Any, new: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), old, new)


def init_adaptive(heads: Iterable[str]) -> Adaptive:
    # An array each: the compiled program consumes its state, and none twice.
    return Adaptive(
        learning_rate_scale=jnp.ones((), jnp.float32),
        entropy_scale={name: jnp.ones((), jnp.float32) for name in heads},
    )


def of_head(hypers: Hypers, field: str, head: str) -> jax.Array | float:
    """The head's own value of `entropy_coef` and its like, or that of all heads."""
    return getattr(hypers, f"head_{field}").get(head, getattr(hypers, field))


def adapt_learning_rate(
    adaptive: Adaptive, config: Config, hypers: Hypers, kl: jax.Array
) -> Adaptive:
    """Schedule "kl": slower where the last epoch moved too far, faster where little."""
    if config.learning_rate_schedule != "kl":
        return adaptive
    scale = adaptive.learning_rate_scale
    scale = jnp.where(kl > 2.0 * hypers.target_kl, scale / _KL_FACTOR, scale)
    scale = jnp.where(kl < 0.5 * hypers.target_kl, scale * _KL_FACTOR, scale)
    return adaptive.replace(learning_rate_scale=jnp.clip(scale, *_LEARNING_RATE_RANGE))


def adapt_entropy(
    adaptive: Adaptive, hypers: Hypers, entropy: dict[str, jax.Array]
) -> Adaptive:
    """Raise a head's coefficient while its entropy is below its floor, else relax.

    A head that was never active has no entropy (NaN), and stays as it is.
    """

    def adapted(name: str, scale: jax.Array) -> jax.Array:
        below = entropy[name] < of_head(hypers, "entropy_floor", name)
        factor = jnp.where(below, _ENTROPY_FACTOR, 1.0 / _ENTROPY_FACTOR)
        moved = jnp.clip(scale * factor, *_ENTROPY_RANGE)
        return jnp.where(jnp.isnan(entropy[name]), scale, moved)

    scales = {name: adapted(name, x) for name, x in adaptive.entropy_scale.items()}
    return adaptive.replace(entropy_scale=scales)
