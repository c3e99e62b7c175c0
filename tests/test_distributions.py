"""Distributions against distrax, TFP and SciPy in float64, and numbers by hand."""

import itertools
import math
import warnings
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from purejaxppo.numerics import permissive_numerics
from purejaxppo.policy.custom import import_distrax
from purejaxppo.policy.distributions import (
    INVALID_LOGIT,
    Categorical,
    Normal,
    PlackettLuce,
    TanhNormal,
    TruncatedNormal,
)

distrax = import_distrax()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from tensorflow_probability.substrates.jax import distributions as tfd

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


def _theirs(function, *arrays):
    """What distrax or TFP computes of our float32 numbers, in float64."""
    with (
        warnings.catch_warnings(),
        jax.enable_x64(True),
        permissive_numerics(),
    ):
        warnings.simplefilter("ignore")  # what TFP warns of is not ours to mend
        wide = (np.asarray(x) for x in arrays)
        wide = (x.astype(np.float64) if x.dtype == np.float32 else x for x in wide)
        return np.asarray(function(*map(jnp.asarray, wide)))


_ORACLES = {
    Normal: distrax.Normal,
    TruncatedNormal: lambda mean, std: tfd.TruncatedNormal(mean, std, -1.0, 1.0),
    TanhNormal: lambda mean, std: distrax.Transformed(
        distrax.Normal(mean, std), distrax.Tanh()
    ),
}
# Every mean with every std; the origin is one case of many.
_GRIDS = {
    Normal: ([-100.0, 0.0, 3.7], [1e-5, 0.01, 1.0, 100.0]),
    TruncatedNormal: ([-1.0, -0.9, 0.0, 0.5, 1.0], [1e-5, 1e-3, 0.05, 0.3, 1.0, 10.0]),
    TanhNormal: ([-2.0, -0.1, 0.0, 1.5], [0.01, 0.1, 1.0, 3.0]),
}


def _grid(kind):
    """Means and stds, [rows, 1]."""
    mean, std = np.meshgrid(*(np.asarray(x, np.float32) for x in _GRIDS[kind]))
    return jnp.asarray(mean.reshape(-1, 1)), jnp.asarray(std.reshape(-1, 1))


@pytest.mark.parametrize("kind", _CONTINUOUS)
@pytest.mark.parametrize("distance", [-4.0, -1.0, 0.0, 0.3, 2.5])
def test_log_prob_is_that_of_the_oracle(kind, distance):
    mean, std = _grid(kind)
    action = mean + distance * std
    if kind is TanhNormal:
        action = jnp.clip(jnp.tanh(action), -0.999, 0.999)
    elif kind is TruncatedNormal:
        action = jnp.clip(action, -1.0, 1.0)
    expected = _theirs(
        lambda *x: _ORACLES[kind](*x[:2]).log_prob(x[2]), mean, std, action
    )
    # arctanh in float32, close to 1 and in units of a small std, is the coarsest.
    rtol, atol = (1e-3, 5e-3) if kind is TanhNormal else (2e-5, 2e-5)
    ours = kind(mean, std).log_prob(action)
    np.testing.assert_allclose(ours, expected[:, 0], rtol=rtol, atol=atol)


@pytest.mark.parametrize("kind", [Normal, TruncatedNormal])
def test_entropy_and_mode_are_those_of_the_oracle(kind):
    mean, std = _grid(kind)
    entropy = _theirs(lambda *x: _ORACLES[kind](*x).entropy(), mean, std)
    mode = _theirs(lambda *x: _ORACLES[kind](*x).mode(), mean, std)
    np.testing.assert_allclose(
        kind(mean, std).entropy(), entropy[:, 0], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(kind(mean, std).mode(), mode, rtol=1e-6)


@pytest.mark.parametrize("kind", _CONTINUOUS)
def test_moments_of_samples_are_those_of_the_oracle(kind, key):
    num = 40_000
    mean, std = _grid(kind)
    samples = np.asarray(_samples(kind(mean, std), key, num), np.float64)
    if kind is TanhNormal:  # no formula: of as many samples of its own
        drawn = _theirs(
            lambda *x: _ORACLES[kind](*x).sample(seed=key, sample_shape=num), mean, std
        )
        centre, spread = drawn.mean(axis=0), drawn.std(axis=0)
    else:
        centre = _theirs(lambda *x: _ORACLES[kind](*x).mean(), mean, std)
        spread = _theirs(lambda *x: _ORACLES[kind](*x).stddev(), mean, std)
    # Seven standard errors, for two samples; and where the grid of float32 is coarser.
    near = 7.0 * spread / math.sqrt(num) + 1e-7 * np.abs(mean)
    assert np.all(np.abs(samples.mean(axis=0) - centre) < near)
    loose = 0.1 if kind is TanhNormal else 0.03  # one side of it is a long tail
    rounding = np.spacing(np.abs(np.asarray(mean)) + np.float32(1e-6))
    np.testing.assert_array_less(
        np.abs(samples.std(axis=0) - spread), loose * spread + rounding
    )


# The least noise there can be, the least that is drawn, the largest; and the middle.
_TAILS = [2.0**-24, 2.0**-23, 1e-4, 0.5, 1.0 - 1e-4, 1.0 - 2.0**-23]


@pytest.mark.parametrize("noise", _TAILS)
def test_tails_of_the_truncated_normal_are_those_of_float64(noise):
    mean, std = _grid(TruncatedNormal)
    dist = TruncatedNormal(mean, std)
    action = dist.sample(jnp.full(mean.shape, noise, jnp.float32))
    exact = _scipy(TruncatedNormal, *(np.asarray(x, np.float64) for x in (mean, std)))
    away = np.abs(np.asarray(action, np.float64) - exact.ppf(np.float32(noise)))
    # In standard deviations, of the 5.3 that a tail of 2^-24 has: close to 1 the steps
    # of float32 are no smaller.
    assert np.all(away <= 0.25 * np.asarray(std) + 1.2e-7)
    log_prob = exact.logpdf(np.asarray(action, np.float64))[:, 0]
    np.testing.assert_allclose(dist.log_prob(action), log_prob, rtol=1e-4, atol=1e-4)
    peak = exact.logpdf(np.asarray(mean, np.float64))[:, 0]
    assert np.all(peak - log_prob < 20.0)


def test_noise_of_the_truncated_normal_is_inside_the_open_interval(key, monkeypatch):
    uniform = jax.random.uniform(key, (1000, 3), jnp.float32)
    np.testing.assert_array_equal(TruncatedNormal.noise(key, (1000, 3)), uniform)
    monkeypatch.setattr(
        jax.random, "uniform", lambda key, shape, dtype: jnp.zeros(shape, dtype)
    )
    noise = TruncatedNormal.noise(key, (1, 1))
    dist = _one(TruncatedNormal, 0.0, 0.05)
    assert float(noise[0, 0]) > 0.0
    # At a noise of 0 the action is -1, twenty standard deviations away.
    assert float(dist.sample(jnp.zeros((1,)))[0]) == -1.0
    assert -0.3 < float(dist.sample(noise[0])[0]) < -0.2


@pytest.mark.parametrize(("mean", "std"), _SHAPES)
def test_entropy_of_the_tanh_normal_is_the_integral(mean, std):
    """distrax has none: the Jacobian of tanh is not constant."""

    def integrand(action):
        density = scipy.stats.norm(mean, std).pdf(np.arctanh(action)) / (1 - action**2)
        return -density * math.log(density) if density > 0 else 0.0

    ends = (-1 + 1e-9, 1 - 1e-9)
    points = [np.tanh(mean) + d * std for d in (-4, 0, 4)]
    points = [p for p in points if ends[0] < p < ends[1]]
    expected, _ = scipy.integrate.quad(integrand, *ends, points=points, limit=400)
    np.testing.assert_allclose(
        _one(TanhNormal, mean, std).entropy(), expected, atol=2e-3
    )


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


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("shift", [0.0, -200.0, 1e4])
def test_masked_categorical_is_that_of_distrax(scale, shift, key):
    """Of the allowed actions alone, renormalised; whatever is added to the logits."""
    key_logits, key_mask = jax.random.split(key)
    logits = shift + scale * jax.random.normal(key_logits, (50, 7))
    mask = jax.random.bernoulli(key_mask, 0.5, (50, 7)).at[:, 2].set(True)
    index = jnp.broadcast_to(jnp.arange(7, dtype=jnp.int32)[:, None], (7, 50))
    ours = Categorical(logits, mask)

    def theirs(function):
        return _theirs(
            lambda x, m: function(distrax.Categorical(jnp.where(m, x, -jnp.inf))),
            logits,
            mask,
        )

    log_prob = jax.vmap(ours.log_prob)(index).T
    expected = theirs(lambda d: d.log_prob(index)).T
    allowed = np.asarray(mask)
    np.testing.assert_allclose(
        log_prob[allowed], expected[allowed], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_array_less(log_prob[~allowed], -1e8)
    np.testing.assert_allclose(
        ours.entropy(), theirs(lambda d: d.entropy()), rtol=2e-3, atol=1e-5
    )
    np.testing.assert_array_equal(ours.mode(), theirs(lambda d: d.mode()))


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


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.1, 50.0), (5.0, -3.0)])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_plackett_luce_is_that_of_tfp(k, scale, shift, key):
    """TFP's is over whole orders; the first k of them are the sum over the rest."""
    logits = shift + scale * jax.random.normal(key, (4,))
    orders = np.asarray(list(itertools.permutations(range(4))), np.int32)
    log_prob = _theirs(
        lambda x, o: tfd.PlackettLuce(jnp.exp(x - shift)).log_prob(o), logits, orders
    )
    table = defaultdict(float)
    for order, p in zip(orders[:, :k], np.exp(log_prob), strict=True):
        table[tuple(order)] += p
    ours = jax.vmap(PlackettLuce(logits, k).log_prob)(jnp.asarray(list(table)))
    np.testing.assert_allclose(ours, np.log(list(table.values())), rtol=1e-4, atol=1e-4)
    mode = _theirs(lambda x: tfd.PlackettLuce(jnp.exp(x - shift)).mode(), logits)
    np.testing.assert_array_equal(PlackettLuce(logits, k).mode(), mode[:k])


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
