"""Operations on pytrees, by hand, with jit and with vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal

from purejaxppo import trees


def test_expand_to_appends_axes():
    assert trees.expand_to(jnp.ones((2, 3)), 4).shape == (2, 3, 1, 1)
    assert trees.expand_to(jnp.ones(()), 0).shape == ()


@pytest.mark.parametrize("run", [lambda f: f, jax.jit])
def test_where_selects_rows_of_leaves_of_any_rank_and_type(run):
    condition = jnp.array([True, False])
    new = {"a": jnp.array([1.0, 2.0]), "b": jnp.full((2, 3), 5)}
    old = {"a": jnp.array([jnp.nan, 4.0]), "b": jnp.zeros((2, 3), jnp.int32)}
    out = run(trees.where)(condition, new, old)
    np.testing.assert_array_equal(out["a"], [1.0, 4.0])
    np.testing.assert_array_equal(out["b"], [[5, 5, 5], [0, 0, 0]])


def test_where_selects_typed_keys():
    new = jax.random.split(jax.random.key(1), 2)
    old = jax.random.split(jax.random.key(2), 2)
    out = trees.where(jnp.array([False, True]), new, old)
    np.testing.assert_array_equal(
        jax.random.key_data(out),
        jnp.stack([jax.random.key_data(old[0]), jax.random.key_data(new[1])]),
    )
    one = jax.vmap(trees.where)(jnp.array([False, True]), new, old)
    assert_trees_equal(one, out)


def test_take_reads_either_of_two_axes():
    x = jnp.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(trees.take({"x": x}, 1)["x"], [3, 4, 5])
    np.testing.assert_array_equal(trees.take({"x": x}, 1, axis=1)["x"], [1, 4])
    index = jnp.array([2, 0])
    np.testing.assert_array_equal(trees.take(x, index, axis=1), [[2, 0], [5, 3]])


def test_axes_are_added_merged_and_swapped():
    x = jnp.arange(24).reshape(2, 3, 4)
    assert trees.unsqueeze([x])[0].shape == (1, 2, 3, 4)
    np.testing.assert_array_equal(trees.merge_axes((x,))[0], x.reshape(6, 4))
    np.testing.assert_array_equal(trees.swap_axes(x)[2, 1], x[1, 2])
