"""The terms of the loss: by hand, and what they must not do at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxppo.ppo import losses, reduce


def _array(*values):
    return jnp.asarray(values, jnp.float32)


# (ρ, A, ε, loss): the loss is -min(ρA, clip(ρ)A).
_POLICY = [
    (1.0, 2.0, 0.2, -2.0),
    (1.5, 2.0, 0.2, -2.4),  # gain held at 1 + ε
    (0.5, 2.0, 0.2, -1.0),  # a drop is not held
    (1.5, -2.0, 0.2, 3.0),  # neither is a loss
    (0.5, -2.0, 0.2, 1.6),  # held at 1 - ε
    (1.5, 2.0, 1.0, -3.0),  # inside a wider range
    (1.5, 0.0, 0.2, 0.0),
]


@pytest.mark.parametrize("run", [lambda f: f, jax.jit, jax.vmap])
def test_policy_loss_by_hand(run):
    ratio, advantages, eps, expected = (_array(*x) for x in zip(*_POLICY, strict=True))
    loss = run(losses.policy_loss)(jnp.log(ratio), advantages, eps)
    np.testing.assert_allclose(loss, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "inside"),
    [(1.0, 1.0, True), (1.5, 1.0, False), (0.5, 1.0, True), (0.5, -1.0, False)],
)
def test_clipping_stops_the_gradient_on_one_side(ratio, advantage, inside):
    grad = jax.grad(
        lambda log_ratio: losses.policy_loss(log_ratio, jnp.float32(advantage), 0.2)
    )(jnp.log(jnp.float32(ratio)))
    np.testing.assert_allclose(grad, -ratio * advantage if inside else 0.0, rtol=1e-6)


def test_dual_clip_bounds_the_objective_for_negative_advantages():
    log_ratio = jnp.log(_array(10.0, 10.0, 2.0))
    advantages = _array(-1.0, 1.0, -1.0)
    loss = losses.policy_loss(log_ratio, advantages, 0.2, dual_clip=3.0)
    np.testing.assert_allclose(loss, [3.0, -1.2, 2.0], rtol=1e-5)


@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
def test_no_dual_clip_has_a_finite_gradient(advantage):
    """inf * 0 in the branch that is not taken would make it NaN."""
    grad = jax.grad(
        lambda log_ratio: losses.policy_loss(log_ratio, jnp.float32(advantage), 0.2)
    )(jnp.float32(0.1))
    assert jnp.isfinite(grad)


def test_value_loss_by_hand():
    value, old, returns = _array(1.0, 5.0, 5.0), _array(0.0, 0.0, 0.0), _array(3, 6, 2)
    plain = losses.value_loss(value, old, returns)
    np.testing.assert_allclose(plain, [4.0, 1.0, 9.0])
    # Held within 2 of the old value: errors of 2 against 6 and 2; the larger counts.
    clipped = losses.value_loss(value, old, returns, 2.0)
    np.testing.assert_allclose(clipped, [4.0, 16.0, 9.0])


def test_value_clip_has_a_range_of_its_own_unit():
    """Twice the scale of values and range: four times the loss."""
    value, old, returns = _array(5.0), _array(1.0), _array(9.0)
    one = losses.value_loss(value, old, returns, 2.0)
    two = losses.value_loss(2 * value, 2 * old, 2 * returns, 4.0)
    np.testing.assert_allclose(two, 4 * one)


def test_approx_kl_by_hand_and_never_negative():
    log_ratio = jnp.log(_array(1.0, 2.0, 0.5))
    kl = losses.approx_kl(log_ratio)
    expected = [0.0, 1.0 - np.log(2.0), -0.5 + np.log(2.0)]
    np.testing.assert_allclose(kl, expected, rtol=1e-5, atol=1e-7)
    tiny = losses.approx_kl(jnp.linspace(-1e-3, 1e-3, 101, dtype=jnp.float32))
    assert float(jnp.min(tiny)) >= 0.0


def test_approx_kl_is_the_kl_of_two_distributions():
    """E_old[(ρ - 1) - log ρ] over all outcomes is KL(old || new), exactly."""
    old, new = _array(0.5, 0.3, 0.2), _array(0.2, 0.2, 0.6)
    estimate = jnp.sum(old * losses.approx_kl(jnp.log(new) - jnp.log(old)))
    np.testing.assert_allclose(estimate, jnp.sum(old * jnp.log(old / new)), rtol=1e-5)


def test_anchor_is_the_reverse_kl_to_the_reference():
    """E_old[ρ (log π - log π_ref)] over all outcomes is KL(π || π_ref), exactly."""
    old, new, reference = _array(0.5, 0.3, 0.2), _array(0.2, 0.2, 0.6), _array(1, 2, 1)
    reference = reference / 4.0
    terms = losses.anchor_kl(jnp.log(new / old), jnp.log(new), jnp.log(reference))
    expected = jnp.sum(new * jnp.log(new / reference))
    np.testing.assert_allclose(jnp.sum(old * terms), expected, rtol=1e-5)
    here = losses.anchor_kl(jnp.zeros(3), jnp.log(new), jnp.log(new))
    np.testing.assert_array_equal(here, 0.0)


def test_losses_want_equal_shapes():
    with pytest.raises(AssertionError):
        losses.policy_loss(jnp.zeros((3,)), jnp.zeros((3, 1)), 0.2)
    with pytest.raises(AssertionError):
        losses.value_loss(jnp.zeros((3,)), jnp.zeros((3, 1)), jnp.zeros((3,)))


# --- reductions ------------------------------------------------------------------


def test_mean_over_nothing_is_nan():
    x = _array(1.0, 2.0)
    np.testing.assert_allclose(reduce.mean(x, jnp.asarray([False, True])), 2.0)
    assert jnp.isnan(reduce.mean(x, jnp.asarray([False, False])))
    poisoned = _array(jnp.nan, 2.0)
    np.testing.assert_allclose(reduce.mean(poisoned, jnp.asarray([False, True])), 2.0)


def test_reductions_over_a_named_axis_are_those_of_the_whole():
    x = jax.random.normal(jax.random.key(0), (4, 3, 5)) * 3.0 + 100.0
    where = x > 99.0

    def measure(x, where, axis_name=None):
        return (
            reduce.mean(x, where, axis_name),
            *reduce.moments(x, axis_name=axis_name),
            reduce.maximum(x, axis_name),
            reduce.minimum(x, axis_name),
        )

    whole = measure(x, where)
    parts = jax.vmap(
        lambda x, where: measure(x, where, "devices"), axis_name="devices"
    )(x, where)
    for one, several in zip(whole, parts, strict=True):
        np.testing.assert_allclose(several, np.full(4, one), rtol=1e-5)
    np.testing.assert_allclose(whole[2], np.std(np.asarray(x)), rtol=1e-4)
