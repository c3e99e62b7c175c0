"""Distributions of a user's own, as `--distribution` or a `Custom` head names them."""

import jax
import jax.numpy as jnp

from purejaxppo.policy.custom import import_distrax

distrax = import_distrax()  # a plain `import distrax`, but for warnings as errors


def beta(mean, std):
    """On [-1, 1], with one mode: both of its parameters are above 1."""
    share, strength = jax.nn.sigmoid(mean), 1.0 / jnp.square(std)
    alpha, beta = 1.0 + strength * share, 1.0 + strength * (1.0 - share)
    return distrax.Transformed(
        distrax.Beta(alpha, beta), distrax.ScalarAffine(-1.0, 2.0)
    )


def laplace(mean, std):
    return distrax.Independent(distrax.Laplace(mean, std), 1)


def mixture(mean, std):
    """Two normals beside each other: it has a mean, no mode and no entropy."""
    means = jnp.stack([mean - 0.4, mean + 0.4], axis=-1)
    weights = distrax.Categorical(jnp.zeros_like(means))
    parts = distrax.Normal(means, jnp.stack([std, std], axis=-1))
    return distrax.MixtureSameFamily(weights, parts)


def tanh_normal(mean, std):
    """Through a bijector: neither mean, mode nor entropy."""
    return distrax.Transformed(distrax.Normal(mean, std), distrax.Tanh())


def switches(outputs):
    """Each output switches something on or off."""
    return distrax.Independent(distrax.Bernoulli(logits=outputs), 1)


def gumbel(mean, std):
    """TFP's own."""
    from tensorflow_probability.substrates.jax import distributions as tfd

    return tfd.Gumbel(mean, std)


# --- none of these is a distribution of a head ------------------------------------

NOT_CALLABLE = 3


def raises(mean, std):
    raise ValueError("no such thing")


def nothing(mean, std):
    return mean + std


def scalar(mean, std):
    """Forgets the leading axes."""
    return distrax.Normal(jnp.sum(mean), 1.0)


def narrow(mean, std):
    """One number, whatever the size of the head."""
    return distrax.Normal(mean[..., :1], std[..., :1])


def counts(mean, std):
    """Whole numbers, where a continuous head takes float32."""
    return distrax.Bernoulli(logits=mean + std)


def without_mode(mean, std):
    return distrax.Independent(tanh_normal(mean, std), 1)
