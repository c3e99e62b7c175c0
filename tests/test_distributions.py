"""Distributions against SciPy, TFP, integrals, and enumeration by hand."""

import itertools
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from purejaxppo.policy.distributions import (
    INVALID_LOGIT,
    Categorical,
    Normal,
    PlackettLuce,
    TanhNormal,
    TruncatedNormal,
)

# (mean, std): centre, off centre, at the edge, narrow, wide.
_SHAPES = [(0.0, 0.5), (0.7, 0.3), (-0.99, 0.2), (0.3, 0.01), (-0.2, 1.0)]
_CONTINUOUS = [Normal, TruncatedNormal, TanhNormal]


def _one(kind, mean, std):
    return kind(jnp.full((1,), mean, jnp.float32), jnp.full((1,), std, jnp.float32))


def _samples(dist, key, num):
    """That many samples, with noise drawn at once as a rollout draws it."""
    shape = jax.tree.leaves(dist)[0].shape
    return jax.vmap(dist.sample)(dist.noise(key, (num, *shape)))


def _scipy(kind, mean, std):
    if kind is TruncatedNormal:
        return scipy.stats.truncnorm((-1 - mean) / std, (1 - mean) / std, mean, std)
    return scipy.stats.norm(mean, std)


def _density(kind, mean, std, action):
    """float64, from SciPy alone."""
    if kind is TanhNormal:
        return scipy.stats.norm(mean, std).pdf(np.arctanh(action)) / (1 - action**2)
    return _scipy(kind, mean, std).pdf(action)


@pytest.mark.parametrize("kind", _CONTINUOUS)
@pytest.mark.parametrize(("mean", "std"), _SHAPES)
def test_log_prob_matches_scipy(kind, mean, std):
    actions = np.linspace(-0.999, 0.999, 41)
    near = np.clip(mean + std * np.linspace(-3, 3, 41), -0.999, 0.999)
    actions = np.concatenate([actions, near]).astype(np.float32)
    dist = _one(kind, mean, std)
    ours = jax.vmap(dist.log_prob)(jnp.asarray(actions)[:, None])
    with np.errstate(divide="ignore"):
        theirs = np.log(_density(kind, mean, std, actions.astype(np.float64)))
    use = np.isfinite(theirs)
    np.testing.assert_allclose(ours[use], theirs[use], rtol=2e-4, atol=2e-3)


def test_truncated_normal_matches_tfp():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TFP warns of is not ours to mend
        tfp = pytest.importorskip("tensorflow_probability.substrates.jax")
    mean, std = np.meshgrid([-0.9, 0.0, 0.5], [0.05, 0.3, 1.0])
    mean, std = (x.ravel().astype(np.float32)[:, None] for x in (mean, std))
    action = np.tanh(mean + 0.3 * std)
    ours = TruncatedNormal(mean, std)
    with warnings.catch_warnings(), jax.numpy_dtype_promotion("standard"):
        warnings.simplefilter("ignore")
        with jax.numpy_rank_promotion("allow"):
            theirs = tfp.distributions.TruncatedNormal(mean, std, -1.0, 1.0)
            log_prob, entropy = theirs.log_prob(action), theirs.entropy()
    np.testing.assert_allclose(ours.log_prob(action), log_prob[:, 0], rtol=1e-3)
    np.testing.assert_allclose(ours.entropy(), entropy[:, 0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", _CONTINUOUS)
@pytest.mark.parametrize(("mean", "std"), _SHAPES)
def test_entropy_matches_the_integral(kind, mean, std):
    def integrand(action):
        density = _density(kind, mean, std, action)
        return -density * math.log(density) if density > 0 else 0.0

    ends = (-1 + 1e-9, 1 - 1e-9)
    if kind is Normal:
        ends = (mean - 9 * std, mean + 9 * std)
    middle = np.tanh(mean) if kind is TanhNormal else mean
    spread = [middle + d * std for d in (-4, 0, 4) if ends[0] < middle + d * std]
    points = [p for p in spread if p < ends[1]]
    expected, _ = scipy.integrate.quad(integrand, *ends, points=points, limit=400)
    np.testing.assert_allclose(_one(kind, mean, std).entropy(), expected, atol=2e-3)


@pytest.mark.parametrize("kind", _CONTINUOUS)
@pytest.mark.parametrize(("mean", "std"), _SHAPES)
def test_samples_follow_the_density(kind, mean, std, key):
    dist = _one(kind, mean, std)
    samples = _samples(dist, key, 20_000)[:, 0]
    samples = np.asarray(samples, np.float64)
    if kind is TanhNormal:
        assert np.abs(samples).max() < 1.0
        samples = np.arctanh(samples)
    elif kind is TruncatedNormal:
        assert np.abs(samples).max() <= 1.0
    # Kolmogorov-Smirnov: about 0.0138 is passed by 1 in 1000 right samplers.
    distance = scipy.stats.kstest(samples, _scipy(kind, mean, std).cdf).statistic
    assert distance < 0.0138


@pytest.mark.parametrize("kind", _CONTINUOUS)
def test_dimensions_add_up_and_gradients_are_finite(kind):
    mean = jnp.asarray([[0.1, -0.9, 1.0], [0.0, 0.3, -1.0]], jnp.float32)
    std = jnp.asarray([[1e-5, 0.2, 0.01], [1.0, 0.5, 1e-5]], jnp.float32)
    action = jnp.clip(mean + 0.5 * std, -1.0, 1.0)
    dist = kind(mean, std)
    each = [
        kind(mean[:, i : i + 1], std[:, i : i + 1]).log_prob(action[:, i : i + 1])
        for i in range(3)
    ]
    np.testing.assert_allclose(dist.log_prob(action), sum(each), rtol=1e-5)

    def total(mean, std):
        dist = kind(mean, std)
        return jnp.sum(dist.log_prob(action)) + jnp.sum(dist.entropy())

    for grad in jax.grad(total, argnums=(0, 1))(mean, std):
        assert bool(jnp.all(jnp.isfinite(grad)))


def test_truncated_normal_keeps_its_mass_where_std_is_large_or_tiny():
    """The normaliser must not round to 0 (log 0) nor exceed 1."""
    for std in (1e-5, 1e-3, 1.0, 10.0):
        for mean in (-1.0, 0.0, 1.0):
            dist = _one(TruncatedNormal, mean, std)
            expected = _scipy(TruncatedNormal, mean, std).logpdf(mean)
            log_prob = dist.log_prob(jnp.full((1,), mean, jnp.float32))
            np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", _CONTINUOUS)
def test_a_sample_has_a_finite_log_prob_at_every_edge(kind, key):
    mean = jnp.asarray([-1.0, 1.0, 0.999, 5.0], jnp.float32)
    if kind is TruncatedNormal:
        mean = jnp.clip(mean, -1.0, 1.0)
    dist = kind(mean, jnp.asarray([0.01, 1.0, 1e-5, 1.0], jnp.float32))
    actions = _samples(dist, key, 1000)
    assert bool(jnp.all(jnp.isfinite(jax.vmap(dist.log_prob)(actions))))


# --- categorical -----------------------------------------------------------------

_LOGITS = [1.0, 0.0, -1.0, 5.0]
_MASK = [True, True, True, False]


def _categorical(normalize=False, dtype=jnp.float32, shift=0.0):
    logits = jnp.asarray(_LOGITS, dtype) + jnp.asarray(shift, dtype)
    return Categorical(logits, jnp.asarray(_MASK), normalize)


def _probabilities():
    weights = np.exp(np.asarray(_LOGITS)) * np.asarray(_MASK)
    return weights / weights.sum()


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_masked_categorical_by_hand(shift):
    dist, p = _categorical(shift=shift), _probabilities()
    ours = jax.vmap(dist.log_prob)(jnp.arange(4, dtype=jnp.int32))
    np.testing.assert_allclose(np.exp(ours), p, rtol=1e-4, atol=1e-7)
    entropy = -sum(x * math.log(x) for x in p if x > 0)
    np.testing.assert_allclose(dist.entropy(), entropy, rtol=1e-4)
    normalised = _categorical(True, shift=shift).entropy()
    np.testing.assert_allclose(normalised, entropy / math.log(3), rtol=1e-4)


def test_masked_categorical_samples_and_mode(key):
    dist = _categorical()
    samples = _samples(dist, key, 20_000)
    assert samples.dtype == jnp.int32
    counts = np.bincount(np.asarray(samples), minlength=4)
    assert counts[3] == 0
    assert scipy.stats.chisquare(counts[:3], _probabilities()[:3] * 20_000)[1] > 1e-3
    assert int(dist.mode()) == 0  # not 3, which is masked


def test_uniform_has_a_normalised_entropy_of_one_whatever_the_mask():
    for num_valid in range(2, 6):
        mask = jnp.arange(6) < num_valid
        dist = Categorical(jnp.full((6,), 7.0), mask, normalize_entropy=True)
        np.testing.assert_allclose(dist.entropy(), 1.0, rtol=1e-5)


@pytest.mark.parametrize("normalize", [False, True])
def test_one_valid_action_has_no_entropy_and_no_gradient(normalize):
    mask = jnp.asarray([False, True, False])

    def entropy(logits):
        return Categorical(logits, mask, normalize).entropy()

    logits = jnp.asarray([3.0, -2.0, 1.0], jnp.float32)
    assert float(entropy(logits)) == 0.0
    np.testing.assert_array_equal(jax.grad(entropy)(logits), 0.0)
    log_prob = Categorical(logits, mask).log_prob(jnp.int32(1))
    np.testing.assert_allclose(log_prob, 0.0, atol=1e-7)


def test_masked_logits_get_no_gradient():
    def loss(logits):
        dist = Categorical(logits, jnp.asarray(_MASK))
        return dist.log_prob(jnp.int32(1)) + dist.entropy()

    grad = jax.grad(loss)(jnp.asarray(_LOGITS, jnp.float32))
    assert float(grad[3]) == 0.0
    assert float(jnp.max(jnp.abs(grad[:3]))) > 0.01


def test_masking_is_safe_in_bf16():
    """-1e9 stays finite there, exp() of it is 0, and sums of a few stay finite."""
    dist = _categorical(dtype=jnp.bfloat16)
    terms = jax.vmap(dist.log_prob)(jnp.arange(3, dtype=jnp.int32))
    assert terms.dtype == jnp.bfloat16
    p = _probabilities()[:3]
    np.testing.assert_allclose(np.exp(np.asarray(terms, np.float32)), p, atol=0.02)
    entropy, grad = jax.value_and_grad(
        lambda logits: Categorical(logits, jnp.asarray(_MASK)).entropy()
    )(dist.logits)
    assert bool(jnp.isfinite(entropy))
    assert bool(jnp.all(jnp.isfinite(grad)))
    invalid = jnp.asarray(INVALID_LOGIT, jnp.bfloat16)
    assert bool(jnp.isfinite(invalid * 4))
    assert float(jnp.exp(invalid)) == 0.0


def test_entropy_is_that_of_scipy_for_many_masks(key):
    key_logits, key_mask = jax.random.split(key)
    logits = 3.0 * jax.random.normal(key_logits, (50, 7))
    mask = jax.random.bernoulli(key_mask, 0.5, (50, 7)).at[:, 2].set(True)
    p = np.exp(np.asarray(logits, np.float64)) * np.asarray(mask)
    expected = scipy.stats.entropy(p, axis=1)
    np.testing.assert_allclose(
        Categorical(logits, mask).entropy(), expected, rtol=1e-4, atol=1e-5
    )


def test_categorical_wants_a_mask_of_its_own_shape():
    with pytest.raises(AssertionError):
        Categorical(jnp.zeros((2, 3)), jnp.ones((3,), bool)).entropy()


# --- Plackett-Luce ---------------------------------------------------------------

_PL_LOGITS = np.asarray([0.5, -1.0, 2.0, 0.0, 1.0], np.float32)
_PL_MASK = np.asarray([True, True, True, False, True])


def _choice(k, mask=_PL_MASK, logits=_PL_LOGITS):
    return PlackettLuce(jnp.asarray(logits), k, jnp.asarray(mask))


def _enumerated(k, mask=_PL_MASK, logits=_PL_LOGITS):
    """Each allowed order and its probability, pick by pick, in float64."""
    weights = np.exp(np.asarray(logits, np.float64))
    table = {}
    for order in itertools.permutations(np.flatnonzero(mask), k):
        left, p = set(np.flatnonzero(mask)), 1.0
        for pick in order:
            p *= weights[pick] / sum(weights[i] for i in left)
            left.remove(pick)
        table[tuple(int(i) for i in order)] = p
    return table


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_plackett_luce_matches_enumeration_and_sums_to_one(k):
    table = _enumerated(k)
    orders = jnp.asarray(list(table), jnp.int32)
    ours = np.exp(jax.vmap(_choice(k).log_prob)(orders))
    np.testing.assert_allclose(ours, list(table.values()), rtol=1e-4)
    np.testing.assert_allclose(ours.sum(), 1.0, rtol=1e-5)


def test_plackett_luce_by_hand():
    """Weights 1, 2, 3: P(2 then 0) = 3/6 * 1/3 = 1/6; order counts."""
    dist = PlackettLuce(jnp.log(jnp.asarray([1.0, 2.0, 3.0])), 2)
    log_prob = jax.vmap(dist.log_prob)(jnp.asarray([[2, 0], [0, 2]], jnp.int32))
    np.testing.assert_allclose(np.exp(log_prob), [1 / 6, 1 / 6 * 3 / 5], rtol=1e-5)


def test_plackett_luce_sampler_matches_its_log_prob(key):
    table = _enumerated(2)
    samples = _samples(_choice(2), key, 20_000)
    assert samples.dtype == jnp.int32
    drawn, counts = np.unique(np.asarray(samples), axis=0, return_counts=True)
    observed = {tuple(map(int, o)): c for o, c in zip(drawn, counts, strict=True)}
    assert set(observed) <= set(table)
    expected = np.asarray(list(table.values())) * 20_000
    found = np.asarray([observed.get(order, 0) for order in table])
    assert scipy.stats.chisquare(found, expected)[1] > 1e-3


def test_plackett_luce_gradient_matches_finite_differences():
    order = jnp.asarray([2, 0, 4], jnp.int32)
    grad = jax.grad(lambda logits: _choice(3, logits=logits).log_prob(order))(
        jnp.asarray(_PL_LOGITS)
    )
    step = 1e-5
    for i in range(5):
        up, down = (_PL_LOGITS.astype(np.float64).copy() for _ in range(2))
        up[i] += step
        down[i] -= step
        slope = math.log(_enumerated(3, logits=up)[2, 0, 4])
        slope -= math.log(_enumerated(3, logits=down)[2, 0, 4])
        np.testing.assert_allclose(grad[i], slope / (2 * step), atol=1e-4)


def test_plackett_luce_of_one_is_the_categorical(key):
    logits = jax.random.normal(key, (6, 5))
    mask = jnp.asarray(_PL_MASK)[None] & jnp.ones((6, 1), bool)
    picks = jnp.asarray([0, 1, 2, 4, 2, 0], jnp.int32)
    one = PlackettLuce(logits, 1, mask).log_prob(picks[:, None])
    np.testing.assert_allclose(
        one, Categorical(logits, mask).log_prob(picks), rtol=1e-5
    )


def test_plackett_luce_mode_takes_the_best_in_order():
    np.testing.assert_array_equal(_choice(3).mode(), [2, 4, 0])
    assert _choice(3).mode().dtype == jnp.int32


@pytest.mark.parametrize("run", [jax.jit, jax.vmap])
def test_distributions_under_jit_and_vmap(run, key):
    logits = jax.random.normal(key, (4, 5))
    mask = jnp.broadcast_to(jnp.asarray(_PL_MASK), (4, 5))
    action = jnp.asarray([[0, 1], [1, 2], [4, 0], [2, 4]], jnp.int32)

    def measure(logits, mask, action):
        dist = PlackettLuce(logits, 2, mask)
        return dist.log_prob(action), dist.entropy(), dist.mode()

    for ours, plain in zip(
        run(measure)(logits, mask, action), measure(logits, mask, action), strict=True
    ):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-6)
