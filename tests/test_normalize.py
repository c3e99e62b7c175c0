"""Running statistics against NumPy, however the samples are cut into batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, quick_jit

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
    update = quick_jit(normalize.update)
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
    numbers = [float(stats.count), float(stats.mean), float(stats.square)]
    np.testing.assert_allclose(numbers, [3.0, 3.0, 8.0])
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
