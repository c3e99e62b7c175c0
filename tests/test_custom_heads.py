"""Heads of any `distrax.Distribution`: the adapter, its check, and PPO learns them."""

import dataclasses
import functools
import sys

import custom_distributions
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config
from probe_envs import HeadsProbe, Probe

from purejaxppo.check import check_env
from purejaxppo.config import Hypers
from purejaxppo.env import Box, Custom, EnvSpec, executed
from purejaxppo.errors import ConfigError
from purejaxppo.numerics import permissive_numerics
from purejaxppo.policy import custom
from purejaxppo.policy import heads as heads_lib
from purejaxppo.policy.custom import CustomDistribution, import_distrax
from purejaxppo.ppo.learner import make_train
from purejaxppo.ppo.status import UpdateStatus
from purejaxppo.run import demonstrations

distrax = import_distrax()

_MEAN = jnp.asarray([[0.3, -0.5], [0.0, 1.0], [2.0, -2.0]], jnp.float32)
_STD = jnp.asarray([[0.3, 0.5], [0.1, 0.9], [0.2, 0.4]], jnp.float32)
# TFP asks for the shape of None, which JAX warns of.
_GUMBEL = pytest.param(
    "gumbel", marks=pytest.mark.filterwarnings("ignore:shape requires ndarray")
)
_CONTINUOUS = ["beta", "laplace", "mixture", "tanh_normal", _GUMBEL]


def _dist(name):
    return CustomDistribution((_MEAN, _STD), getattr(custom_distributions, name))


def _theirs(name, function):
    with permissive_numerics():
        dist = getattr(custom_distributions, name)(_MEAN, _STD)
        return np.asarray(function(distrax.as_distribution(dist)))


# --- the adapter -----------------------------------------------------------------


@pytest.mark.parametrize("name", _CONTINUOUS)
def test_log_prob_is_that_of_the_distribution_itself(name, key):
    dist = _dist(name)
    action = jax.jit(dist.sample)(dist.noise(key, (3, 2)))
    assert (action.shape, action.dtype) == ((3, 2), jnp.float32)
    expected = _theirs(name, lambda d: d.log_prob(action))
    expected = expected if expected.ndim == 1 else expected.sum(axis=-1)
    np.testing.assert_allclose(dist.log_prob(action), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", _CONTINUOUS)
def test_samples_have_the_mean_of_the_distribution(name, key):
    dist = _dist(name)
    keys = dist.noise(key, (20_000, 3, 2))
    assert keys.shape == (20_000, 3)
    assert jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    samples = np.asarray(jax.jit(jax.vmap(dist.sample))(keys))
    if name == "tanh_normal":  # no formula: that of the normal before tanh
        samples, expected = np.arctanh(np.clip(samples, -0.999999, 0.999999)), _MEAN
        samples = np.median(samples, axis=0)
    else:
        samples, expected = samples.mean(axis=0), _theirs(name, lambda d: d.mean())
    np.testing.assert_allclose(samples, expected, atol=0.03)


def test_each_sample_has_a_key_of_its_own(key):
    dist = _dist("laplace")
    keys = dist.noise(key, (3, 2))
    together = dist.sample(keys)
    one = CustomDistribution((_MEAN[1], _STD[1]), custom_distributions.laplace)
    np.testing.assert_array_equal(one.sample(keys[1]), together[1])
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == 3


@pytest.mark.parametrize("name", _CONTINUOUS)
def test_leading_axes_are_free(name, key):
    """[L, M] in the loss and [N] in the rollout: the same numbers."""
    dist = _dist(name)
    keys = dist.noise(key, (3, 2))
    folded = CustomDistribution((_MEAN[None], _STD[None]), dist.factory)
    action = folded.sample(keys[None])
    np.testing.assert_array_equal(action[0], dist.sample(keys))
    for method in ("entropy", "mode"):
        np.testing.assert_allclose(
            getattr(folded, method)()[0], getattr(dist, method)(), rtol=1e-6
        )
    np.testing.assert_allclose(
        folded.log_prob(action)[0], dist.log_prob(action[0]), rtol=1e-6
    )


def test_mode_falls_back_to_the_mean_and_passes_bijectors():
    np.testing.assert_allclose(
        _dist("beta").mode(), 2.0 * jax.nn.sigmoid(_MEAN) - 1.0, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(_dist("mixture").mode(), _MEAN, atol=1e-6)
    np.testing.assert_allclose(_dist("tanh_normal").mode(), np.tanh(_MEAN), rtol=1e-6)

    def flat(mean, std):  # whose mode distrax calls NaN
        del std
        return distrax.Beta(jnp.ones_like(mean), jnp.ones_like(mean))

    dist = CustomDistribution((_MEAN, _STD), flat)
    np.testing.assert_array_equal(dist.mode(), np.full((3, 2), 0.5))


def test_entropy_is_summed_over_dimensions_and_zero_without_a_formula():
    expected = np.sum(1.0 + np.log(2.0 * np.asarray(_STD)), axis=-1)
    np.testing.assert_allclose(_dist("laplace").entropy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(_dist("mixture").entropy(), np.zeros(3))


def _near_the_end(strength, mean, std):
    """A Beta whose samples round to 1, where its density is infinite."""
    del std
    return distrax.Beta(strength * jnp.ones_like(mean), 0.5 * jnp.ones_like(mean))


@pytest.mark.parametrize("strength", [1e4, 1e6])
def test_a_sample_that_rounds_to_an_end_is_replaced(strength, key):
    factory = functools.partial(_near_the_end, strength)
    dist = CustomDistribution((_MEAN, _STD), factory)
    keys = dist.noise(key, (500, 3, 2))
    with permissive_numerics():
        raw = factory(_MEAN, _STD)
        drawn = jax.jit(jax.vmap(lambda k: raw.sample(seed=k)))(keys[:, 0])
        assert not bool(jnp.all(jnp.isfinite(jax.vmap(raw.log_prob)(drawn))))
    samples = jax.jit(jax.vmap(dist.sample))(keys)
    assert bool(jnp.all(jnp.isfinite(jax.vmap(dist.log_prob)(samples))))


def test_an_action_outside_of_the_support_has_no_gradient():
    """Zeros stand for the action of an inactive head."""

    def log_prob(mean):
        factory = custom_distributions.beta
        dist = CustomDistribution((mean, _STD), lambda m, s: factory(m, s).distribution)
        return jnp.sum(jnp.where(jnp.zeros(3, bool), dist.log_prob(action), 0.0))

    action = jnp.zeros((3, 2))  # the Beta before it is moved to [-1, 1]: its end
    assert bool(jnp.all(jnp.isfinite(jax.grad(log_prob)(_MEAN))))
    outside = _dist("beta").log_prob(jnp.full((3, 2), 1.5))
    assert not bool(jnp.any(jnp.isfinite(outside)))


# --- as a head -------------------------------------------------------------------


def test_the_environments_contract_holds_with_a_custom_head():
    env = HeadsProbe(("op", "switches"))
    check_env(env)
    expected = demonstrations.shapes(env, 2, 3).action["switches"]
    assert (expected.shape, expected.dtype) == ((2, 3, 4), jnp.int32)


class _Masked(HeadsProbe):
    def reset(self, key):
        mask = {"switches": jnp.ones((4,), bool)}
        return super().reset(key).replace(action_mask=mask)


def test_a_mask_on_a_custom_head_is_refused():
    with pytest.raises(ConfigError, match="no mask on a custom head"):
        check_env(_Masked(("switches",)))


def test_a_custom_action_is_executed_as_it_was_sampled():
    spec = EnvSpec(
        "x", {"box": Box(1), "own": Custom(1, custom_distributions.switches)}
    )
    action = {name: jnp.asarray([3.0]) for name in spec.heads}
    assert executed(spec, action) == {"box": 1.0, "own": 3.0}


def test_a_factory_is_named_or_given():
    heads = {"a": Custom(4, "custom_distributions:switches")}
    given = {"a": Custom(4, custom_distributions.switches)}
    key = jax.random.key(1)
    for each in (heads, given):
        noise = heads_lib.noise(each, small_config(), key, (5,))
        assert noise["a"].shape == (5,)
    assert custom.action_type(heads["a"]) == custom.action_type(given["a"])


_OWN = "custom_distributions:"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nowhere.at.all:f", "a package.module:factory that can be imported"),
        (_OWN + "absent", "a factory that exists in custom_distributions"),
        (_OWN + "NOT_CALLABLE", "a factory that exists in custom_distributions"),
        (_OWN + "raises", "ValueError: no such thing"),
        (_OWN + "nothing", "a factory of a distrax.Distribution"),
        (_OWN + "scalar", r"batch shape \(\) for leading axes \(2, 3\)"),
        (_OWN + "narrow", r"a distribution over float32 \[3\] for the head aim"),
        (_OWN + "counts", r"not over int32 \[3\]"),
        (_OWN + "without_mode", "neither mode"),
    ],
)
def test_a_factory_that_cannot_be_trained_is_refused_in_a_sentence(name, sentence):
    config = small_config(distribution=name)
    with pytest.raises(ConfigError, match=sentence) as caught:
        make_train(config, HeadsProbe(("aim",)))
    assert str(caught.value).startswith(f"distribution: got {name!r}; allowed is ")
    assert "\n" not in str(caught.value)


def test_a_head_of_the_environment_is_refused_by_its_name():
    heads = {"own": Custom(2, "nowhere:f")}
    with pytest.raises(ConfigError, match=r"^heads\.own: got 'nowhere:f'"):
        heads_lib.validate_distributions(heads, small_config())


@pytest.mark.parametrize(
    ("hypers", "sentence"),
    [
        (Hypers(entropy_coef=0.01), "entropy_coef: got 0.01; allowed is 0.0 with"),
        (Hypers(head_entropy_coef={"aim": 0.1}), "entropy_coef: got 0.1"),
        (Hypers(entropy_limit=1.0), "entropy_limit: got 1.0; allowed is inf with"),
    ],
)
def test_a_bonus_on_an_entropy_that_is_not_known_is_refused(hypers, sentence):
    config = small_config(distribution=_OWN + "mixture")
    heads_lib.validate_distributions({"aim": Box(3)}, config)
    config = dataclasses.replace(config, hypers=hypers)
    with pytest.raises(ConfigError, match=sentence):
        heads_lib.validate_distributions({"aim": Box(3)}, config)


def test_without_distrax_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distrax", None)
    with pytest.raises(ConfigError, match=r"pip install 'purejaxppo\[distrax\]'"):
        custom.describe("distribution", custom_distributions.beta, (1, 1))


# --- learning --------------------------------------------------------------------


def _train(env, **changes):
    config = small_config(
        **{
            "num_envs": 16,
            "num_steps": 8,
            "total_timesteps": 128 * 40,
            "hidden_sizes": (16,),
            "critic_hidden_sizes": (16,),
            "num_evals": 1,
            "eval_episodes": 16,
            "learning_rate": 0.02,
            "normalize_observations": "running",
            "gamma": 0.5,
            "num_epochs": 4,
            **changes,
        }
    )
    _, metrics = jax.jit(make_train(config, env))(jax.random.key(0))
    assert not np.any(np.asarray(metrics["status"]) & int(UpdateStatus.RATIO))
    assert not np.any(np.asarray(metrics["status"]) & int(UpdateStatus.NONFINITE))
    return metrics


def test_a_continuous_head_learns_by_a_distribution_of_the_user():
    metrics = _train(Probe("both", continuous=True), distribution=_OWN + "mixture")
    assert float(metrics["train/episode_return"][0]) < 0.6
    assert float(metrics["eval/mean_return"][-1]) == 1.0


def test_a_head_of_the_user_learns():
    """Four switches, each to be set as the observation says: half are by chance."""
    metrics = _train(HeadsProbe(("switches",)), gamma=0.0, entropy_coef=0.01)
    before = float(np.mean(metrics["train/paid_switches"][:2]))
    assert float(metrics["eval/episode_paid_switches"][-1]) > 1.5 * before
