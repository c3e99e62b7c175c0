"""jax-envelope's environments through the adapter: our contract, their own numbers.

It needs Python 3.12 or newer, and Jumanji; without them this file is left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envelope.adapters import create
from helpers import small_config

from purejaxppo.check import check_env
from purejaxppo.env import Box, Discrete
from purejaxppo.errors import ConfigError
from purejaxppo.numerics import permissive_numerics
from purejaxppo.ppo.learner import make_train
from purejaxppo.registry import make_env

# Suite and name -> heads, time limit and size of the observation.
_ENVIRONMENTS = {
    "gymnax::CartPole-v1": ({"action": Discrete(2)}, 500, 4),
    "gymnax::Pendulum-v1": ({"action": Box(1)}, 200, 3),
    "jumanji::Snake-v1": ({"action": Discrete(4)}, 4000, 12 * 12 * 5 + 1),
    "jumanji::Minesweeper-v0": ({"action": Discrete(100)}, None, 102),
}


@pytest.mark.parametrize("name", _ENVIRONMENTS)
def test_keeps_the_contract(name):
    env = make_env(f"envelope:{name}")
    heads, limit, size = _ENVIRONMENTS[name]
    assert (env.spec.heads, env.spec.max_episode_steps) == (heads, limit)
    assert jax.eval_shape(env.reset, jax.random.key(0)).obs.shape == (size,)
    check_env(env)


def test_steps_and_masks_are_their_own():
    """A combination of two choices is one action; what was opened is masked."""
    env = make_env("envelope:jumanji::Minesweeper-v0")
    key, rows = jax.random.key(3), []
    own = create("jumanji::Minesweeper-v0", max_episode_steps=None)
    with permissive_numerics():
        inner, info = own.init(key)
    state = jax.jit(env.reset)(key)
    for choice in (37, 52):
        mask = np.asarray(info.obs.action_mask != 0)
        np.testing.assert_array_equal(state.action_mask["action"], mask.ravel())
        rows.append(bool(state.action_mask["action"][37]))
        action = jnp.asarray([choice // 10, choice % 10], jnp.int32)
        with permissive_numerics():
            inner, info = own.step(inner, action)
        state = jax.jit(env.step)(state, {"action": jnp.int32(choice)})
        assert float(state.reward) == float(info.reward)
        assert bool(state.terminated) == bool(info.terminated)
    assert rows == [True, False]


def test_continuous_actions_are_scaled_to_their_bounds():
    env = make_env("envelope:gymnax::Pendulum-v1")
    own = create("gymnax::Pendulum-v1", max_episode_steps=None)
    state = env.reset(jax.random.key(0))
    with permissive_numerics():
        _, info = own.step(state.data, jnp.asarray([1.0]))  # of 2
    ours = env.step(state, {"action": jnp.asarray([0.5])})
    np.testing.assert_allclose(ours.obs, info.obs, rtol=1e-6)
    np.testing.assert_allclose(ours.reward, info.reward, rtol=1e-6)


def test_a_time_limit_of_ones_own():
    assert (
        make_env(
            "envelope:gymnax::CartPole-v1", max_episode_steps=7
        ).spec.max_episode_steps
        == 7
    )
    with pytest.raises(ConfigError, match="max_episode_steps: got 0; allowed is a wh"):
        make_env("envelope:gymnax::CartPole-v1", max_episode_steps=0)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("jumanji::Nope-v0", "Unregistered environment Nope-v0"),
        ("none::Snake-v1", "Unknown environment suite: none"),
        ("Snake-v1", "must be in format"),
        ("jumanji::Connector-v3", "one with a single reward"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(name, sentence):
    with pytest.raises(ConfigError, match=sentence) as error:
        make_env(f"envelope:{name}")
    assert "\n" not in str(error.value)


def test_a_masked_policy_learns_under_the_ratio_contract():
    config = small_config(
        env="envelope:jumanji::Game2048-v1",
        num_envs=16,
        num_steps=32,
        total_timesteps=16 * 32 * 30,
        normalize_observations="running",
        normalize_rewards=True,
        learning_rate=3e-3,
        hidden_sizes=(32,),
        critic_hidden_sizes=(32,),
    )
    _, metrics = jax.jit(make_train(config))(jax.random.key(0))
    assert np.nanmax(metrics["ratio/first_minibatch_error"]) < 1e-4
    assert np.all(np.asarray(metrics["train/no_valid_action"]) == 0)
    returns = np.asarray(metrics["train/episode_return"])
    assert np.nanmean(returns[-8:]) > np.nanmean(returns[:8])
