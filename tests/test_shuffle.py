"""Random orders: each number once, and each in every minibatch equally often."""

import jax
import numpy as np
import pytest
import scipy.stats

from purejaxppo.ppo import shuffle


@pytest.mark.parametrize("num", [1, 2, 3, 7, 64, 1000, 1024, 8192])
def test_every_number_comes_once(num, key):
    order = np.asarray(shuffle.permutation(key, num))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(num))


@pytest.mark.parametrize("num", [2**20, 2**20 + 4])
def test_also_where_few_bits_are_left_to_be_random(num, key):
    order = np.asarray(shuffle.permutation(key, num))
    np.testing.assert_array_equal(np.sort(order), np.arange(num))
    # Those of the first quarter fall into every minibatch alike.
    counts = np.sum(order.reshape(4, -1) < num // 4, axis=1)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_small_orders_are_all_equally_likely(key):
    orders = jax.vmap(lambda k: shuffle.permutation(k, 4))(jax.random.split(key, 24000))
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_each_sample_falls_into_each_minibatch_equally_often(key):
    """And any two of them together as often as chance has it."""
    num, minibatches, draws = 1024, 4, 4000
    keys = jax.random.split(key, draws)
    orders = np.asarray(jax.vmap(lambda k: shuffle.permutation(k, num))(keys))
    place = np.argsort(orders, axis=1) // (num // minibatches)
    for sample in (0, 1, 511, 1023):
        counts = np.bincount(place[:, sample], minlength=minibatches)
        assert scipy.stats.chisquare(counts).pvalue > 1e-4
    together = (num // minibatches - 1) / (num - 1)
    for a, b in ((0, 1), (510, 511), (0, 1023)):
        count = int(np.sum(place[:, a] == place[:, b]))
        assert scipy.stats.binomtest(count, draws, together).pvalue > 1e-4


def test_other_keys_give_other_orders(key):
    one, other = jax.random.split(key)
    assert not np.array_equal(
        shuffle.permutation(one, 64), shuffle.permutation(other, 64)
    )
