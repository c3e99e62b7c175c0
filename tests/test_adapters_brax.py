"""Brax's environments through the adapter: our contract, and Brax's own numbers."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxppo import autoreset
from purejaxppo.adapters import brax as adapter
from purejaxppo.check import check_env
from purejaxppo.env import Box
from purejaxppo.errors import ConfigError
from purejaxppo.numerics import permissive_numerics
from purejaxppo.registry import make_env

FACTORY = "purejaxppo.adapters.brax:make"
NUM_STEPS = 6

# What Brax 0.14 says of itself and of what it builds on; any other warning is an error.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "Brax System, piplines and environments are not actively:UserWarning",
        "JAXopt is no longer maintained:DeprecationWarning",
        "Accessing `ncon` directly from `Data` is deprecated:DeprecationWarning",
    )
]


@pytest.fixture(scope="module")
def pendulum():
    return make_env("brax:inverted_pendulum", backend="spring")


@pytest.mark.parametrize(
    "kwargs", [{}, {"obs_mode": "dict_state", "asymmetric_obs": True}], ids=str
)
def test_keeps_the_contract(kwargs):
    check_env(make_env(FACTORY, name="fast", **kwargs), random_start=False)


def test_specification(pendulum):
    assert pendulum.spec.name == "brax:inverted_pendulum"
    assert pendulum.spec.heads == {"action": Box(1)}
    assert pendulum.spec.max_episode_steps == 1000
    assert pendulum.backend == "spring"


def test_steps_as_brax_does(pendulum):
    """Reset and steps, pushed to one side until the pole falls, against Brax's own."""
    brax = pendulum.brax

    @jax.jit
    def reset(key):
        with permissive_numerics():
            return pendulum.reset(key), brax.reset(jax.random.key_data(key))

    @jax.jit
    def step(state, inner, action):
        with permissive_numerics():
            return pendulum.step(state, {"action": action}), brax.step(inner, action)

    state, inner = reset(jax.random.key(5))
    np.testing.assert_array_equal(state.obs, inner.obs)
    for _ in range(60):
        # On the host and back: Brax's weak types are gone, and nothing is traced twice.
        inner = jax.device_get(inner)
        state, inner = step(state, inner, jnp.full((1,), 0.7, jnp.float32))
        np.testing.assert_allclose(state.obs, inner.obs, rtol=1e-6, atol=1e-7)
        assert float(state.reward) == float(inner.reward) == 1.0
        assert bool(state.terminated) == bool(inner.done)
        if state.terminated:
            break
    assert state.terminated, "the pole never fell"
    assert abs(float(state.obs[1])) > 0.2
    assert not state.truncated


def test_the_time_limit_truncates_and_keeps_the_last_observation():
    env = make_env(FACTORY, name="fast", max_episode_steps=3)

    @jax.jit
    def play(key):
        limit = env.spec.max_episode_steps
        episode = autoreset.init(env, "fresh", limit, False, key)
        action = {"action": jnp.ones((1,), jnp.float32)}

        def body(episode, key):
            next_start = autoreset.draw_next(env, "fresh", None, key)
            return autoreset.step(env, episode, action, None, limit, next_start)

        return jax.lax.scan(body, episode, jax.random.split(key, NUM_STEPS))[1]

    steps = play(jax.random.key(0))
    assert steps.truncated.tolist() == [False, False, True] * 2
    assert not steps.terminated.any()
    # Fast adds 0.02 to its speed at each step, and the speed times 0.02 to its place.
    speed = 0.02 * np.array([1, 2, 3] * 2)
    place = 0.02 * 0.02 * np.array([1, 3, 6] * 2)
    expected = np.stack([place, speed], axis=1)
    np.testing.assert_allclose(steps.final_obs, expected, rtol=1e-5)


def test_what_blows_up_stays_where_it_was_and_is_cut():
    env = make_env(FACTORY, name="fast")
    state = env.reset(jax.random.key(0))
    pipeline = state.data.pipeline_state
    broken = pipeline.replace(x=pipeline.x.replace(pos=jnp.full((3,), jnp.nan)))
    state = state.replace(data=state.data.replace(pipeline_state=broken))
    after = env.step(state, {"action": jnp.ones((1,), jnp.float32)})
    assert after.truncated
    assert not after.terminated
    assert after.reward == 0
    assert after.metrics["unstable"] == 1
    np.testing.assert_array_equal(after.obs, state.obs)


class Sums:
    """As Brax writes environments: a metric per step, a flag for the end."""

    action_size = 1

    def reset(self, key):
        zero = jnp.zeros(())
        return _brax_state(
            obs=jnp.zeros(2), reward=zero, done=zero, metrics={"m": zero}
        )

    def step(self, state, action):
        return state.replace(reward=2.0, done=1.0, metrics={"m": action[0]})


def _brax_state(**fields):
    from brax.envs import State

    return State(pipeline_state=None, **fields)


def test_metrics_are_summed_over_the_episode(monkeypatch):
    monkeypatch.setattr(adapter, "_registered", lambda name: {"sums": Sums})
    env = make_env(FACTORY, name="sums")
    state = env.reset(jax.random.key(0))
    for value in (1.0, 3.0):
        state = env.step(state, {"action": jnp.full((1,), value, jnp.float32)})
    assert state.metrics == {"m": 4.0, "unstable": 0.0}
    assert state.reward == 2.0
    assert state.terminated
    assert env.backend == "none"


class Dice(Sums):
    """Pays what the key in its information throws, as Brax's users write it."""

    def reset(self, key):
        return super().reset(key).replace(info={"rng": key, "step": jnp.zeros(())})

    def step(self, state, action):
        key, key_throw = jax.random.split(state.info["rng"])
        after = state.replace(info={**state.info, "rng": key})
        return after.replace(reward=jax.random.uniform(key_throw), done=jnp.ones(()))


def test_episodes_from_one_start_have_luck_of_their_own(monkeypatch):
    monkeypatch.setattr(adapter, "_registered", lambda name: {"dice": Dice})
    env = make_env(FACTORY, name="dice")
    key = jax.random.key(0)
    starts = autoreset.draw_starts(env, "pool", 1, key)
    episode = autoreset.init(env, "pool", None, False, key)
    action = {"action": jnp.zeros((1,), jnp.float32)}
    rewards = []
    for i in range(4):
        luck = jax.random.key(i)
        next_start = autoreset.draw_next(env, "pool", starts, luck)
        episode, out = autoreset.step(env, episode, action, starts, None, next_start)
        rewards.append(float(out.reward))
    # The first episode is that of its own reset, thrown as Brax would have it.
    expected = Dice().reset(jax.random.key_data(jax.random.split(key)[0]))
    assert rewards[0] == float(Dice().step(expected, action["action"]).reward)
    assert len(set(rewards)) == 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({}, "brax: got None; allowed is one of ant, fast, "),
        ({"name": "anto"}, "brax: got 'anto'; allowed is one of ant, fast, "),
        (
            {"name": "ant", "backend": "bullet"},
            "backend: got 'bullet'; allowed is one of generalized, mjx, positional",
        ),
        ({"name": "ant", "n_frame": 3}, "env_kwargs: got .*n_frame.*; allowed is what"),
        ({"name": "fast", "max_episode_steps": 0}, "max_episode_steps: got 0; allowed"),
        ({"name": "fast", "obs_mode": "dict_pixels"}, "obs: got .*pixels.*; allowed"),
    ],
)
def test_a_wrong_choice_is_one_sentence(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        make_env(FACTORY, **kwargs)


def test_without_brax_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(ConfigError, match=r'env: got .* pip install "brax==0.14.2"'):
        make_env(FACTORY, name="fast")
