"""One number each, per update, from what its minibatches measured."""

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.ppo.coefficients import Coefficients
from purejaxppo.ppo.epochs import Outcome
from purejaxppo.ppo.minibatch import Ratio
from purejaxppo.ppo.types import Metrics


class Summary(struct.PyTreeNode):
    """What an update says to whatever steers training. float32 [].

    `approx_kl`, `stopped` and `head_entropy` move the adaptive coefficients, the others
    are checked by `status`. `logged` is for people alone, and holds these figures too.
    """

    approx_kl: jax.Array  # of the last minibatch that had one
    head_entropy: dict[str, jax.Array]  # mean; NaN for a head that was never active
    first_ratio_error: jax.Array  # of the first minibatch, before parameters moved
    last_epoch_ratio_std: jax.Array
    num_nonfinite: jax.Array  # minibatches whose step was skipped
    stopped: jax.Array  # bool, the policy moved too far and the epochs were cut
    rate_factor: jax.Array  # the learning rate's, see `Coefficients`
    logged: Metrics


def summarise(outcomes: Outcome, coefficients: Coefficients) -> Summary:
    """Reduce the outcomes of an update.

    Args:
      outcomes: [epochs, minibatches].
      coefficients: of the update, to be logged.
    """
    ran, measures = outcomes.ran, outcomes.measures
    num_epochs, num_minibatches = ran.shape
    num_ran = jnp.sum(ran)
    epoch = jnp.arange(num_epochs)[:, None]
    last_epoch = ran & (epoch == (num_ran - 1) // num_minibatches)

    def mean(x: jax.Array) -> jax.Array:
        return _mean(x, ran)

    ratio_std = _ratio_std(measures.ratio, ran)
    summary = Summary(
        approx_kl=_last(measures.approx_kl),
        head_entropy={name: mean(x) for name, x in measures.head_entropy.items()},
        first_ratio_error=measures.ratio.error[0, 0],
        last_epoch_ratio_std=_ratio_std(measures.ratio, last_epoch),
        num_nonfinite=jnp.sum(outcomes.nonfinite.astype(jnp.float32)),
        stopped=jnp.any(outcomes.stopped),
        rate_factor=coefficients.rate_factor,
        logged={},
    )
    averaged = measures.logged | outcomes.logged
    averaged["entropy_change"] = measures.entropy_change
    logged = {name: mean(x) for name, x in averaged.items()} | {
        "approx_kl/last": summary.approx_kl,
        "approx_kl/mean": mean(measures.approx_kl),
        "approx_kl/max": jnp.nanmax(measures.approx_kl),
        "ratio/mean": 1.0 + mean(measures.ratio.excess),
        "ratio/std": ratio_std,
        "ratio/min": jnp.min(jnp.where(ran, measures.ratio.minimum, jnp.inf)),
        "ratio/max": jnp.max(jnp.where(ran, measures.ratio.maximum, -jnp.inf)),
        "ratio/first_minibatch_error": summary.first_ratio_error,
        "ratio/last_epoch_std": summary.last_epoch_ratio_std,
        "ratio/exploded": _total(measures.ratio.exploded, ran),
        "ratio/collapsed": _total(measures.ratio.collapsed, ran),
        "update/nonfinite": summary.num_nonfinite,
        "update/epochs": jnp.sum(jnp.any(ran, axis=1)).astype(jnp.float32),
        "update/minibatches": num_ran.astype(jnp.float32),
        "update/learning_rate": coefficients.learning_rate,
        "update/kl_coef": coefficients.kl,
    }
    for name, entropy in summary.head_entropy.items():
        logged[f"head/{name}/entropy"] = entropy
        logged[f"head/{name}/entropy_coef"] = coefficients.entropy[name]
    return summary.replace(logged=logged)


def _mean(x: jax.Array, among: jax.Array) -> jax.Array:
    """Of the minibatches that had a figure: a head may be valid in some of them."""
    use = among & ~jnp.isnan(x)
    return jnp.sum(jnp.where(use, x, 0.0)) / jnp.sum(use.astype(x.dtype))


def _total(x: jax.Array, ran: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(ran, x, 0.0))


def _last(x: jax.Array) -> jax.Array:
    """The last figure in the order of minibatches; NaN where there is none."""
    x = x.ravel()
    index = jnp.max(jnp.where(jnp.isnan(x), -1, jnp.arange(x.size)))
    return jnp.where(index < 0, jnp.nan, x[index])


def _ratio_std(ratio: Ratio, among: jax.Array) -> jax.Array:
    """Standard deviation of ρ over all samples of those minibatches."""
    excess, square = _mean(ratio.excess, among), _mean(ratio.square, among)
    return jnp.sqrt(jnp.maximum(square - jnp.square(excess), 0.0))
