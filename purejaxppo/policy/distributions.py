"""The distributions of the action heads.

Each is a pytree with `sample(noise)`, `log_prob(action)`, `entropy()` and `mode()`, and
a static `noise(key, shape)`. The noise of a sample does not depend on the parameters,
so the noise of a whole rollout can be drawn at once. `log_prob` takes the action as it
is stored and uses no intermediate result of sampling, so that rollout and loss compute
log-probs by the same function. There may be any leading axes; the last axis holds the
head's action dimensions or choices and is reduced.
"""

import math
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.scipy.special import erf
from jax.scipy.stats import norm

Shape = tuple[int, ...]


class Distribution(Protocol):
    """The methods that a head uses of a built-in or a custom distribution."""

    @staticmethod
    def noise(key: jax.Array, shape: Shape) -> jax.Array:
        """Draw the noise of samples; `shape` is that of the parameters, [..., n]."""
        ...

    def sample(self, noise: jax.Array) -> jax.Array:
        """Compute the action from the noise, deterministically."""
        ...

    def log_prob(self, action: jax.Array) -> jax.Array:
        """Return the log-prob [...] of a stored action."""
        ...

    def entropy(self) -> jax.Array:
        """Return the entropy [...]."""
        ...

    def mode(self) -> jax.Array:
        """Return the action of the deterministic policy."""
        ...


# Logit of a masked action, in float32 or bf16. It is so low that exp() of it is exactly
# 0, and finite, because -inf would give NaN in 0 * -inf.
INVALID_LOGIT = -1e9

# Gauss-Hermite nodes and weights for expectations under a standard normal.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(20)
_WEIGHTS = (_WEIGHTS / _WEIGHTS.sum()).astype(np.float32)
_NODES = _NODES.astype(np.float32)

# tanh-normal actions keep this distance from -1 and 1, so that atanh is finite.
_TANH_EDGE = 1e-6
# Half of the smallest positive number that `jax.random.uniform` draws in float32.
_LEAST_NOISE = 2.0**-24
_SQRT_TWO = math.sqrt(2.0)


class Normal(struct.PyTreeNode):
    """Independent normal distributions."""

    mean: jax.Array  # [..., A]
    std: jax.Array  # [..., A]

    @staticmethod
    def noise(key: jax.Array, shape: Shape) -> jax.Array:
        return jax.random.normal(key, shape, jnp.float32)

    def sample(self, noise: jax.Array) -> jax.Array:
        chex.assert_equal_shape([noise, self.mean])
        return self.mean + self.std * noise

    def log_prob(self, action: jax.Array) -> jax.Array:
        chex.assert_equal_shape([action, self.mean])
        return jnp.sum(norm.logpdf(action, self.mean, self.std), axis=-1)

    def entropy(self) -> jax.Array:
        std = jnp.broadcast_to(self.std, self.mean.shape)
        return jnp.sum(0.5 * jnp.log(2 * jnp.pi * jnp.e) + jnp.log(std), axis=-1)

    def mode(self) -> jax.Array:
        return self.mean


class TruncatedNormal(struct.PyTreeNode):
    """Independent normal distributions truncated to [-1, 1], with means in [-1, 1].

    With the mean inside the interval the normaliser Φ(β) - Φ(α) is at least
    Φ(2 / std) - 1/2, so the plain difference is accurate for every std up to 1.
    """

    mean: jax.Array  # [..., A], in [-1, 1]
    std: jax.Array  # [..., A]

    def _bounds(self) -> tuple[jax.Array, jax.Array]:
        return (-1.0 - self.mean) / self.std, (1.0 - self.mean) / self.std

    def _mass(self) -> jax.Array:
        low, high = self._bounds()
        return norm.cdf(high) - norm.cdf(low)

    @staticmethod
    def noise(key: jax.Array, shape: Shape) -> jax.Array:
        """Draw uniform numbers in the open interval (0, 1).

        `jax.random.uniform` can return 0, for which the action would be -1 however
        improbable that is, so 0 is replaced by a small positive number.
        """
        return jnp.maximum(jax.random.uniform(key, shape, jnp.float32), _LEAST_NOISE)

    def sample(self, noise: jax.Array) -> jax.Array:
        """Apply the inverse of the distribution function to noise uniform in (0, 1)."""
        chex.assert_equal_shape([noise, self.mean])
        low, high = (erf(bound / _SQRT_TWO) for bound in self._bounds())
        standard = _SQRT_TWO * jax.lax.erf_inv(low + (high - low) * noise)
        # Rounding errors can put the sample outside the interval, even at infinity.
        return jnp.clip(self.mean + self.std * standard, -1.0, 1.0)

    def log_prob(self, action: jax.Array) -> jax.Array:
        chex.assert_equal_shape([action, self.mean])
        density = norm.logpdf(action, self.mean, self.std) - jnp.log(self._mass())
        return jnp.sum(density, axis=-1)

    def entropy(self) -> jax.Array:
        low, high = self._bounds()
        mass = self._mass()
        full = 0.5 * jnp.log(2 * jnp.pi * jnp.e) + jnp.log(self.std * mass)
        cut = (low * norm.pdf(low) - high * norm.pdf(high)) / (2 * mass)
        return jnp.sum(full + cut, axis=-1)

    def mode(self) -> jax.Array:
        return self.mean


class TanhNormal(struct.PyTreeNode):
    """The tanh of independent normal variables."""

    mean: jax.Array  # [..., A], before tanh
    std: jax.Array  # [..., A]

    noise = staticmethod(Normal.noise)

    def sample(self, noise: jax.Array) -> jax.Array:
        action = jnp.tanh(Normal(self.mean, self.std).sample(noise))
        return jnp.clip(action, -1.0 + _TANH_EDGE, 1.0 - _TANH_EDGE)

    def log_prob(self, action: jax.Array) -> jax.Array:
        chex.assert_equal_shape([action, self.mean])
        pre_tanh = jnp.arctanh(jnp.clip(action, -1.0 + _TANH_EDGE, 1.0 - _TANH_EDGE))
        density = norm.logpdf(pre_tanh, self.mean, self.std) - _log_slope(pre_tanh)
        return jnp.sum(density, axis=-1)

    def entropy(self) -> jax.Array:
        """Compute the entropy by quadrature; a one-sample estimate would be noisy."""
        nodes = jnp.expand_dims(_NODES, tuple(range(self.mean.ndim)))
        weights = jnp.expand_dims(_WEIGHTS, tuple(range(self.mean.ndim)))
        pre_tanh = self.mean[..., None] + self.std[..., None] * nodes
        slope = jnp.sum(_log_slope(pre_tanh) * weights, axis=-1)
        return Normal(self.mean, self.std).entropy() + jnp.sum(slope, axis=-1)

    def mode(self) -> jax.Array:
        return jnp.tanh(self.mean)


def _log_slope(x: jax.Array) -> jax.Array:
    """Compute log(1 - tanh(x)^2), stable for large |x|."""
    return 2.0 * (jnp.log(2.0) - x - jax.nn.softplus(-2.0 * x))


def _masked(logits: jax.Array, action_mask: jax.Array | None) -> jax.Array:
    if action_mask is None:
        return logits
    chex.assert_equal_shape([logits, action_mask])
    return jnp.where(action_mask, logits, jnp.asarray(INVALID_LOGIT, logits.dtype))


class Categorical(struct.PyTreeNode):
    """One of n actions, among those that the mask allows (True is allowed)."""

    logits: jax.Array  # [..., n]
    action_mask: jax.Array | None = None  # [..., n]
    normalize_entropy: bool = struct.field(pytree_node=False, default=False)

    def _log_probs(self) -> jax.Array:
        return jax.nn.log_softmax(_masked(self.logits, self.action_mask))

    @staticmethod
    def noise(key: jax.Array, shape: Shape) -> jax.Array:
        return jax.random.gumbel(key, shape, jnp.float32)

    def sample(self, noise: jax.Array) -> jax.Array:
        """Sample by the Gumbel-max method: the argmax of logits plus Gumbel noise."""
        chex.assert_equal_shape([noise, self.logits])
        logits = _masked(self.logits, self.action_mask)
        return jnp.argmax(logits + noise, axis=-1).astype(jnp.int32)

    def log_prob(self, action: jax.Array) -> jax.Array:
        index = action[..., None]
        return jnp.take_along_axis(self._log_probs(), index, axis=-1)[..., 0]

    def entropy(self) -> jax.Array:
        """Return the entropy over valid actions; 0 if only one action is valid."""
        log_probs = self._log_probs()
        terms = jnp.exp(log_probs) * log_probs
        if self.action_mask is None:
            num_valid = jnp.full(terms.shape[:-1], terms.shape[-1])
        else:
            # A selection, not a product: the gradient of 0 * INVALID_LOGIT is not 0.
            terms = jnp.where(self.action_mask, terms, 0.0)
            num_valid = jnp.sum(self.action_mask, axis=-1)
        entropy = -jnp.sum(terms, axis=-1)
        if self.normalize_entropy:
            entropy = entropy / jnp.log(jnp.maximum(num_valid, 2).astype(entropy.dtype))
        return jnp.where(num_valid > 1, entropy, 0.0)

    def mode(self) -> jax.Array:
        logits = _masked(self.logits, self.action_mask)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)


class PlackettLuce(struct.PyTreeNode):
    """An ordered choice of k of n without replacement (Plackett 1975; Luce 1959).

    P(a_1, ..., a_k) = Π_i softmax(logits of the items not yet chosen)[a_i]. The items
    not yet chosen follow from the order of the action, so the log-prob can be computed
    from the stored action alone.
    """

    logits: jax.Array  # [..., n]
    k: int = struct.field(pytree_node=False)
    action_mask: jax.Array | None = None  # [..., n]

    noise = staticmethod(Categorical.noise)

    def sample(self, noise: jax.Array) -> jax.Array:
        """Sample by Gumbel top-k: the k largest of logits plus Gumbel noise."""
        chex.assert_equal_shape([noise, self.logits])
        return self._top_k(self.logits + noise)

    def _top_k(self, scores: jax.Array) -> jax.Array:
        return jax.lax.top_k(_masked(scores, self.action_mask), self.k)[1]

    def log_prob(self, action: jax.Array) -> jax.Array:
        chex.assert_axis_dimension(action, -1, self.k)
        logits = _masked(self.logits, self.action_mask)
        total = jnp.zeros(logits.shape[:-1], logits.dtype)
        index = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
        for i in range(self.k):
            pick = action[..., i : i + 1]
            log_probs = jax.nn.log_softmax(logits)
            total += jnp.take_along_axis(log_probs, pick, axis=-1)[..., 0]
            logits = jnp.where(
                index == pick, jnp.asarray(INVALID_LOGIT, logits.dtype), logits
            )
        return total

    def entropy(self) -> jax.Array:
        """Return the entropy of the first pick, a lower bound of the joint entropy.

        The joint entropy has no closed form. The lower bound serves as a bonus because
        all picks have the same logits.
        """
        return Categorical(self.logits, self.action_mask).entropy()

    def mode(self) -> jax.Array:
        return self._top_k(self.logits)
