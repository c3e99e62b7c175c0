"""gymnax's environments through the adapter: our contract, and gymnax's own numbers."""

import dataclasses
import sys

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config

from purejaxppo import autoreset
from purejaxppo.check import check_env
from purejaxppo.env import Box, Discrete
from purejaxppo.errors import ConfigError
from purejaxppo.ppo.learner import make_train
from purejaxppo.registry import make_env


class Merged:
    """CartPole with its ends as gymnax 0.0.9 has them: one flag for both kinds."""

    def __init__(self, env):
        self._env = env

    def is_terminal(self, state, params):
        out_of_time = state.time >= params.max_steps_in_episode
        return self._env.is_terminated(state, params) | out_of_time

    def step_env(self, key, state, action, params):
        obs, state, reward, _, info = self._env.step_env(key, state, action, params)
        return obs, state, reward, self.is_terminal(state, params), info

    def reset_env(self, key, params):
        return self._env.reset_env(key, params)


@pytest.fixture(params=["1.x", "0.0.9"])
def cartpole(request):
    """A function of the time limit, with the ends of either version."""

    def make(max_steps_in_episode):
        env = make_env("gymnax:CartPole-v1", max_steps_in_episode=max_steps_in_episode)
        if request.param == "0.0.9":
            env = dataclasses.replace(env, env=Merged(env.env))
        return env

    return make


def _play(env, actions):
    """Reset with key 0, then those actions; the states after each, [T, ...]."""

    @jax.jit
    def play(actions):
        def step(state, action):
            state = env.step(state, {"action": action})
            return state, state

        start = env.reset(jax.random.key(0))
        return start, jax.lax.scan(step, start, actions)[1]

    return play(jnp.asarray(actions))


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_keeps_the_contract(name):
    check_env(make_env(f"gymnax:{name}"))


def test_either_name_makes_the_same():
    by_factory = make_env("purejaxppo.adapters.gymnax:make", name="CartPole-v1")
    by_name = make_env("gymnax:CartPole-v1")
    assert by_factory.spec == by_name.spec
    assert by_name.spec.heads == {"action": Discrete(2)}
    assert by_name.spec.max_episode_steps == 500
    assert make_env("gymnax:Pendulum-v1").spec.heads == {"action": Box(1)}


def test_the_time_limit_is_a_truncation(cartpole):
    """Left and right in turn balances for a while: only the limit ends it."""
    _, after = _play(cartpole(5), [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(after.truncated, [False] * 4 + [True])
    assert not np.any(after.terminated)


def test_falling_is_a_termination(cartpole):
    """One way only: the pole falls, whatever time is left; also at the last step."""
    for limit in (500, 9):
        _, after = _play(cartpole(limit), [1] * 9)
        np.testing.assert_array_equal(after.terminated, [False] * 8 + [True])
        assert not np.any(after.truncated)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("CartPole-v1", None, None), ("Pendulum-v1", -2.0, 2.0)]
)
def test_steps_as_gymnax_does(name, low, high):
    """Against gymnax's public `step`, up to the end of an episode: same everything."""
    env, (inner, params) = make_env(f"gymnax:{name}"), gymnax.make(name)
    if low is None:
        actions = given = np.arange(40) % 3 // 2  # left twice as often: it falls
    else:
        actions = np.linspace(-1.0, 1.0, 40, dtype=np.float32)[:, None]
        given = low + (actions + 1.0) / 2.0 * (high - low)
    start, after = _play(env, actions)
    state = start.data.inner
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for t, action in enumerate(given):
            _, state, reward, terminated, truncated, info = inner.step(
                jax.random.key(9), state, jnp.asarray(action), params
            )
            obs = info["final_observation"]
            np.testing.assert_allclose(after.obs[t], obs, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(after.reward[t], reward, rtol=1e-4)
            assert after.terminated[t] == terminated
            assert after.truncated[t] == truncated
            if terminated:
                break
    assert bool(terminated) == (name == "CartPole-v1")


def test_discrete_observations_are_one_hot():
    state = make_env("gymnax:FrozenLake-misc").reset(jax.random.key(0))
    np.testing.assert_array_equal(state.obs, np.eye(16, dtype=np.float32)[0])


def test_episodes_from_one_start_have_luck_of_their_own():
    """A bandit pays by the luck of each step alone."""
    env = make_env("gymnax:BernoulliBandit-misc")
    limit, action = 8, {"action": jnp.int32(0)}

    @jax.jit
    def play(key):
        starts = autoreset.draw_starts(env, "pool", 1, key)
        episode = autoreset.init(env, "pool", limit, False, key)

        def step(episode, key):
            following = autoreset.draw_next(env, "pool", starts, key)
            return autoreset.step(env, episode, action, starts, limit, following)

        return jax.lax.scan(step, episode, jax.random.split(key, 9 * limit))[1]

    rewards = np.asarray(play(jax.random.key(0)).reward).reshape(9, limit)[1:]
    assert len({tuple(row) for row in rewards}) > 4


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        (
            {"name": "CartPole"},
            "gymnax: got 'CartPole'; allowed is one of .*CartPole-v1",
        ),
        ({}, "gymnax: got None; allowed is one of .*CartPole-v1"),
        (
            {"name": "CartPole-v1", "weight": 1.0},
            "env_kwargs: got 'weight'; allowed is one of .*max_steps_in_episode",
        ),
        (
            {"name": "CartPole-v1", "max_steps_in_episode": 0},
            "max_steps_in_episode: got 0; allowed is a whole number from 1",
        ),
    ],
)
def test_what_is_not_there_is_one_sentence(kwargs, sentence):
    with pytest.raises(ConfigError, match=sentence):
        make_env("purejaxppo.adapters.gymnax:make", **kwargs)


@pytest.mark.parametrize(
    ("library", "name", "advice"),
    [
        ("gymnax", "Any", "pip install gymnax"),
        ("envelope", "jumanji::Any", "jax-envelope six, for which Python must be 3.12"),
    ],
)
def test_without_the_library_it_says_so(library, name, advice, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"got '{library}:{name}'.*{advice}"):
        make_env(f"{library}:{name}")


def test_cartpole_is_learnt():
    config = small_config(
        env="gymnax:CartPole-v1",
        num_envs=16,
        num_steps=32,
        num_epochs=4,
        total_timesteps=512 * 60,
        hidden_sizes=(32,),
        critic_hidden_sizes=(32,),
        learning_rate=3e-3,
    )
    train = jax.jit(jax.vmap(make_train(config)))
    _, metrics = train(jax.random.split(jax.random.key(0)))
    # NaN where no episode ended in an update.
    returns = np.asarray(metrics["train/episode_return"])
    assert np.all(np.nanmean(returns[:, :3], axis=1) < 60.0)
    assert np.all(np.nanmean(returns[:, -20:], axis=1) > 150.0)
