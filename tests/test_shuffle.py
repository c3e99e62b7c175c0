"""Random orders: each sequence once, in every minibatch equally often, by groups."""

import jax
import numpy as np
import pytest
import scipy.stats

from purejaxppo.ppo import shuffle


@pytest.mark.parametrize("num", [1, 2, 3, 7, 64, 1000, 1024, 8192])
def test_every_number_comes_once(num, key):
    order = np.asarray(shuffle.permutations(key, 2, num))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), [np.arange(num)] * 2)


@pytest.mark.parametrize("num", [2**20, 2**20 + 4])
def test_also_where_few_bits_are_left_to_be_random(num, key):
    (order,) = np.asarray(shuffle.permutations(key, 1, num))
    np.testing.assert_array_equal(np.sort(order), np.arange(num))
    # Those of the first quarter fall into every minibatch alike.
    counts = np.sum(order.reshape(4, -1) < num // 4, axis=1)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_small_orders_are_all_equally_likely(key):
    orders = shuffle.permutations(key, 24000, 4)
    _, counts = np.unique(np.asarray(orders), axis=0, return_counts=True)
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


def test_each_sample_falls_into_each_minibatch_equally_often(key):
    """And any two of them together as often as chance has it."""
    num, minibatches, draws = 1024, 4, 4000
    orders = np.asarray(shuffle.permutations(key, draws, num))
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
        shuffle.permutations(one, 1, 64), shuffle.permutations(other, 1, 64)
    )


def test_rows_have_orders_of_their_own(key):
    first, second = shuffle.permutations(key, 2, 64)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("num_envs", "per_env", "num_minibatches", "size"),
    [(16, 128, 32, 1), (4, 8, 8, 1), (6, 4, 8, 2), (64, 1, 8, 8), (1, 8, 4, 1)],
)
def test_each_minibatch_has_as_many_of_every_group(
    num_envs, per_env, num_minibatches, size, key
):
    """So devices that hold whole groups need no samples of one another."""
    assert shuffle.group_size(num_envs, per_env, num_minibatches) == size
    index = np.asarray(shuffle.minibatches(key, num_envs, per_env, num_minibatches))
    assert index.shape[0] == num_minibatches
    np.testing.assert_array_equal(np.sort(index.ravel()), np.arange(num_envs * per_env))
    group = index % num_envs // size
    for minibatch in group:
        counts = np.bincount(minibatch, minlength=num_envs // size)
        np.testing.assert_array_equal(counts, index.shape[1] * size // num_envs)


def test_groups_of_one_order_are_shuffled_apart(key):
    """Two environments of the same minibatches do not send the same steps to each."""
    index = np.asarray(shuffle.minibatches(key, 2, 64, 4))
    steps = [np.sort(row[row % 2 == env] // 2) for row in index for env in (0, 1)]
    assert any(
        not np.array_equal(a, b) for a, b in zip(steps[::2], steps[1::2], strict=True)
    )
