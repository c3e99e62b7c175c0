"""Reduction of the statistics of all minibatches to one number per update."""

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.ppo.coefficients import Coefficients
from purejaxppo.ppo.epochs import Outcome
from purejaxppo.ppo.minibatch import Ratio
from purejaxppo.ppo.types import Metrics


class Summary(struct.PyTreeNode):
    """Statistics of an update. float32 [].

    `approx_kl`, `stopped` and `head_entropy` change the adaptive coefficients, the
    other fields are checked by `status`. `logged` is only for the log.
    """

    approx_kl: jax.Array  # of the last minibatch that had one
    head_entropy: dict[str, jax.Array]  # mean; NaN for a head that was never active
    first_ratio_error: jax.Array  # of the first minibatch, before any optimiser step
    last_epoch_ratio_std: jax.Array
    num_nonfinite: jax.Array  # minibatches whose step was skipped
    stopped: jax.Array  # bool, True if a limit ended the epochs early
    rate_factor: jax.Array  # the learning rate's, see `Coefficients`
    logged: Metrics


def summarise(outcomes: Outcome, coefficients: Coefficients) -> Summary:
    """Reduce the outcomes of an update.

    Args:
      outcomes: [epochs, minibatches].
      coefficients: the coefficients of the update, which are logged.
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
        first_ratio_error=measures.largest.error[0, 0],
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
        "ratio/min": 1.0 - jnp.max(jnp.where(ran, measures.largest.fall, -jnp.inf)),
        "ratio/max": 1.0 + jnp.max(jnp.where(ran, measures.largest.rise, -jnp.inf)),
        "ratio/first_minibatch_error": summary.first_ratio_error,
        "ratio/last_epoch_std": summary.last_epoch_ratio_std,
        "ratio/exploded": _total(measures.ratio.exploded, ran),
        "ratio/collapsed": _total(measures.ratio.collapsed, ran),
        "surrogate/before": measures.surrogate[0, 0],
        "surrogate/after": _mean(measures.surrogate, last_epoch),
        "update/nonfinite": summary.num_nonfinite,
        "update/epochs": jnp.sum(jnp.any(ran, axis=1)).astype(jnp.float32),
        "update/minibatches": num_ran.astype(jnp.float32),
        "update/learning_rate": coefficients.learning_rate,
        "update/kl_coef": coefficients.kl,
    }
    for name, entropy in summary.head_entropy.items():
        logged[f"head/{name}/entropy"] = entropy
        logged[f"head/{name}/entropy_coef"] = coefficients.entropy[name]
    for name, error in measures.largest.head_error.items():
        logged[f"head/{name}/first_ratio_error"] = error[0, 0]
    return summary.replace(logged=logged)


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Average over the minibatches in `mask` whose figure is not NaN.

    The figure of a head is NaN if it was active in no sample of the minibatch.
    """
    valid = mask & ~jnp.isnan(x)
    return jnp.sum(jnp.where(valid, x, 0.0)) / jnp.sum(valid.astype(x.dtype))


def _total(x: jax.Array, ran: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(ran, x, 0.0))


def _last(x: jax.Array) -> jax.Array:
    """Return the figure of the last minibatch that has one; NaN if none has."""
    x = x.ravel()
    index = jnp.max(jnp.where(jnp.isnan(x), -1, jnp.arange(x.size)))
    return jnp.where(index < 0, jnp.nan, x[index])


def _ratio_std(ratio: Ratio, mask: jax.Array) -> jax.Array:
    """Return the standard deviation of ρ over all samples of minibatches in `mask`."""
    excess, square = _mean(ratio.excess, mask), _mean(ratio.square, mask)
    return jnp.sqrt(jnp.maximum(square - jnp.square(excess), 0.0))
