"""Our Dense against flax's: values and gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxppo.policy.dense import Dense, apply_layers, apply_to_rows


@pytest.mark.parametrize("batched", [False, True])
def test_dense_is_that_of_flax_in_values_and_gradients(batched):
    keys = jax.random.split(jax.random.key(2), 3)
    x = jax.random.normal(keys[0], (3, 10, 5) if batched else (10, 5))
    ours, theirs = Dense(7, 2.0), nn.Dense(7, nn.initializers.orthogonal(2.0))
    params = ours.init(keys[1], jnp.zeros((10, 5)))
    weight = jax.random.normal(keys[2], (10, 7))

    def loss(module):
        def f(params, x):
            with jax.numpy_rank_promotion("allow"):  # flax relies on it
                return jnp.sum(weight * jnp.tanh(module.apply(params, x)))

        grad = jax.value_and_grad(f, argnums=(0, 1))
        return (jax.vmap(grad, (None, 0)) if batched else grad)(params, x)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
        loss(ours),
        loss(theirs),
    )


def test_several_layers_in_one_product_are_each_of_them():
    class Two(nn.Module):
        joined: bool

        @nn.compact
        def __call__(self, x):
            layers = [Dense(3, 1.0, name="a"), Dense(4, 2.0, name="b")]
            return apply_layers(layers, x) if self.joined else [f(x) for f in layers]

    x = jax.random.normal(jax.random.key(3), (6, 5))
    params = Two(True).init(jax.random.key(4), x)
    joined, apart = Two(True).apply(params, x), Two(False).apply(params, x)
    assert [y.shape for y in joined] == [(6, 3), (6, 4)]
    for a, b in zip(joined, apart, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_apply_to_rows_keeps_leading_axes():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    out = apply_to_rows(lambda rows: {"sum": jnp.sum(rows, axis=-1), "same": rows}, x)
    np.testing.assert_array_equal(out["sum"], jnp.sum(x, axis=-1))
    np.testing.assert_array_equal(out["same"], x)
