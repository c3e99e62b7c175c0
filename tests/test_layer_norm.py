"""Our LayerNorm against flax's: values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxppo.policy.layer_norm import LayerNorm, layer_norm


@pytest.mark.parametrize("shape", [(7, 32), (3, 5, 32), (32,)])
def test_values_and_gradients_are_those_of_flax(shape):
    keys = jax.random.split(jax.random.key(0), 4)
    # Off the origin and off unit scale: an error in the mean or the std would show.
    x = 3.0 + 5.0 * jax.random.normal(keys[0], shape)
    params = {
        "scale": jax.random.normal(keys[1], shape[-1:]),
        "bias": jax.random.normal(keys[2], shape[-1:]),
    }
    weight = jax.random.normal(keys[3], shape)

    def loss(module):
        def f(params, x):
            with jax.numpy_rank_promotion("allow"):  # flax relies on it
                return jnp.sum(weight * jnp.tanh(module.apply({"params": params}, x)))

        return jax.value_and_grad(f, argnums=(0, 1))(params, x)

    ours, theirs = loss(LayerNorm()), loss(nn.LayerNorm(use_fast_variance=False))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5),
        ours,
        theirs,
    )


def test_output_has_mean_0_and_std_1_over_features_alone():
    x = 10.0 + 4.0 * jax.random.normal(jax.random.key(1), (6, 64))
    y = layer_norm(x, jnp.ones(64), jnp.zeros(64))
    np.testing.assert_allclose(np.mean(y, axis=-1), np.zeros(6), atol=1e-5)
    np.testing.assert_allclose(np.std(y, axis=-1), np.ones(6), rtol=1e-4)
