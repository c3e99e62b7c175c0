"""Running statistics against NumPy, however the samples are cut into batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from purejaxppo.ppo import normalize


def _samples(num=60, scale=1.0, origin=0.0):
    rng = np.random.default_rng(0)
    return {
        "a": (rng.normal(size=(num, 3)) * scale + origin).astype(np.float32),
        "b": (rng.normal(size=(num,)) * scale - origin).astype(np.float32),
    }


def _example(samples):
    return jax.tree.map(lambda x: x[0], samples)


def _merged(samples, cuts, weight=None):
    update = jax.jit(normalize.update)
    stats = normalize.init(_example(samples))
    for low, high in zip([0, *cuts], [*cuts, 60], strict=True):
        part = jax.tree.map(lambda x, low=low, high=high: x[low:high], samples)
        stats = update(stats, part, None if weight is None else weight[low:high])
    return stats


def test_by_hand():
    """1, 3 then 5: mean 3, squared deviations 4 + 0 + 4."""
    stats = normalize.init(jnp.zeros(()))
    stats = normalize.update(stats, jnp.asarray([1.0, 3.0]))
    stats = normalize.update(stats, jnp.asarray([5.0]))
    assert normalize.num_samples(stats) == 3
    np.testing.assert_allclose(stats.mean, 3.0)
    np.testing.assert_allclose(normalize.variance(stats), 8 / 3, rtol=1e-6)


@pytest.mark.parametrize("cuts", [[], [30], [1, 2, 59]])
@pytest.mark.parametrize(("scale", "origin"), [(1.0, 0.0), (10.0, 1000.0), (1e-3, 0.0)])
def test_matches_numpy_however_samples_are_cut(cuts, scale, origin):
    samples = _samples(scale=scale, origin=origin)
    stats = _merged(samples, cuts)
    atol = 1e-5 * (scale + origin)
    for name, x in samples.items():
        np.testing.assert_allclose(stats.mean[name], x.mean(axis=0), atol=atol)
        variance = normalize.variance(stats)[name]
        np.testing.assert_allclose(
            variance, x.astype(np.float64).var(axis=0), rtol=2e-3
        )


def test_order_does_not_matter():
    samples = _samples()
    order = np.random.default_rng(1).permutation(60)
    shuffled = jax.tree.map(lambda x: x[order], samples)
    assert_trees_close(
        _merged(samples, [20]), _merged(shuffled, [20]), rtol=1e-4, atol=1e-5
    )


def test_weight_leaves_samples_out_even_where_they_are_nan():
    samples = _samples()
    weight = (np.arange(60) % 3 > 0).astype(np.float32)
    kept = jax.tree.map(lambda x: x[weight > 0], samples)
    poisoned = jax.tree.map(np.copy, samples)
    for x in poisoned.values():
        x[weight == 0] = np.nan
    stats = _merged(poisoned, [20], weight)
    expected = normalize.update(normalize.init(_example(kept)), kept)
    assert_trees_close(stats, expected, rtol=1e-4, atol=1e-5)


def test_over_a_named_axis_it_is_the_whole():
    samples = _samples()
    stats = normalize.init(_example(samples))
    whole = normalize.update(stats, samples)
    parts = jax.tree.map(lambda x: x.reshape((4, 15, *x.shape[1:])), samples)
    sharded = jax.vmap(
        lambda part: normalize.update(stats, part, axis_name="devices"),
        axis_name="devices",
    )(parts)
    for device in range(4):
        one = jax.tree.map(lambda x, device=device: x[device], sharded)
        assert_trees_close(one, whole, rtol=1e-4, atol=1e-5)


def test_apply_centres_and_scales_with_any_leading_axes():
    samples = _samples(scale=5.0, origin=100.0)
    stats = _merged(samples, [])
    applied = normalize.apply(stats, samples)
    for x in applied.values():
        np.testing.assert_allclose(np.mean(x, axis=0), 0.0, atol=1e-3)
        np.testing.assert_allclose(np.std(x, axis=0), 1.0, atol=1e-3)
    folded = jax.tree.map(lambda x: x.reshape((5, 12, *x.shape[1:])), samples)
    again = normalize.apply(stats, folded)
    for name, x in applied.items():
        np.testing.assert_array_equal(np.asarray(again[name]).reshape(x.shape), x)
    one = normalize.apply(stats, _example(samples))
    np.testing.assert_allclose(one["a"], applied["a"][0], rtol=1e-5)


def test_apply_before_the_first_sample_changes_nothing():
    x = jnp.asarray([1.5, -2.0])
    np.testing.assert_array_equal(normalize.apply(normalize.init(x), x), x)
    np.testing.assert_array_equal(normalize.apply(None, x), x)


def test_apply_is_clipped_and_does_not_blow_up_what_hardly_moves():
    still = jnp.full((10, 1), 7.0) + 1e-5 * jnp.arange(10.0)[:, None]
    stats = normalize.update(normalize.init(still[0]), still)
    assert float(jnp.max(jnp.abs(normalize.apply(stats, still)))) < 0.01
    assert float(normalize.apply(stats, jnp.asarray([1e6]))[0]) == 10.0
    assert float(normalize.apply(stats, jnp.asarray([-1e6]))[0]) == -10.0


def test_discounted_returns_by_hand_and_across_rollouts():
    reward = jnp.asarray([[1.0], [2.0], [4.0], [8.0]])
    done = jnp.asarray([[False], [True], [False], [False]])
    totals, after = normalize.discounted_returns(jnp.asarray([2.0]), reward, done, 0.5)
    # 1 + 0.5 * 2; 2 + 0.5 * 2, then anew from 0: 4; 8 + 0.5 * 4
    np.testing.assert_allclose(totals[:, 0], [2.0, 3.0, 4.0, 10.0])
    np.testing.assert_allclose(after, [10.0])
    first, middle = normalize.discounted_returns(
        jnp.asarray([2.0]), reward[:2], done[:2], 0.5
    )
    second, end = normalize.discounted_returns(middle, reward[2:], done[2:], 0.5)
    np.testing.assert_allclose(jnp.concatenate([first, second]), totals)
    np.testing.assert_allclose(end, after)
    assert float(middle[0]) == 0.0


# --- counts beyond what float32 holds ---------------------------------------------


def _exact(parts, count, mean, variance):
    """The same merges in float64."""
    for x in parts:
        num, batch_mean, batch_variance = x.shape[0], x.mean(axis=0), x.var(axis=0)
        total = count + num
        delta = batch_mean - mean
        square = count * variance + num * batch_variance
        square += np.square(delta) * count * num / total
        mean, variance = mean + delta * num / total, square / total
        count = total
    return count, mean, variance


@pytest.mark.parametrize("count", [0, 2**24 - 1, 2**24 * 64, 2**32 - 300, 10**12])
def test_statistics_go_on_after_any_number_of_samples(count):
    """1,000 batches of 257 samples after `count` others, of another mean and scale."""
    rng = np.random.default_rng(3)
    parts = rng.normal(3.0, 2.0, size=(1000, 257, 2)).astype(np.float32)
    mean, variance = np.asarray([1.0, -2.0]), np.asarray([4.0, 0.5])
    stats = normalize.init(jnp.zeros((2,)))
    if count:
        stats = stats.replace(
            count=normalize.count_of(count),
            mean=jnp.asarray(mean, jnp.float32),
            variance=jnp.asarray(variance, jnp.float32),
        )
    merge = jax.jit(
        lambda stats, parts: jax.lax.scan(
            lambda s, x: (normalize.update(s, x), None), stats, parts
        )[0]
    )
    stats = merge(stats, parts)
    total, mean, variance = _exact(parts.astype(np.float64), count, mean, variance)
    assert normalize.num_samples(stats) == total == count + 257_000
    np.testing.assert_allclose(stats.mean, mean, rtol=3e-5)
    np.testing.assert_allclose(normalize.variance(stats), variance, rtol=3e-5)


def test_samples_of_a_large_count_are_not_lost_one_step_at_a_time():
    """4,096 environments and a shift: half of the change after as many samples more."""
    stats = normalize.init(jnp.zeros(())).replace(
        count=normalize.count_of(2**36),
        mean=jnp.zeros(()),
        variance=jnp.ones(()),
    )
    one = normalize.update(normalize.init(jnp.zeros(())), jnp.ones((1024,)))
    one = one.replace(count=normalize.count_of(2**36))
    both = normalize.merge(stats, one)
    assert normalize.num_samples(both) == 2**37
    np.testing.assert_allclose(both.mean, 0.5, rtol=1e-6)
    np.testing.assert_allclose(both.variance, 0.5 + 0.25, rtol=1e-6)


def test_merging_is_updating_with_all_samples_at_once():
    samples = _samples(scale=3.0, origin=7.0)
    empty = normalize.init(_example(samples))
    first, rest = (
        normalize.update(empty, jax.tree.map(lambda x, part=part: x[part], samples))
        for part in (slice(20), slice(20, 60))
    )
    whole = normalize.update(empty, samples)
    for merged in (normalize.merge(first, rest), normalize.merge(rest, first)):
        assert normalize.num_samples(merged) == 60
        assert_trees_close(merged, whole, rtol=1e-5)
    assert_trees_equal(normalize.merge(empty, first), first)
    assert_trees_equal(normalize.merge(first, empty), first)
    assert_trees_equal(normalize.merge(empty, empty), empty)
