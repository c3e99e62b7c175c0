"""Our environments as Brax's: our own steps, under Brax's own wrappers."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, assert_trees_equal

from purejaxppo import adapters
from purejaxppo.env import Box, EnvSpec, State
from purejaxppo.errors import ConfigError
from purejaxppo.registry import make_env

# What Brax 0.14 says of itself and of what it builds on; any other warning is an error.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in (
        "Brax System, piplines and environments are not actively:UserWarning",
        "JAXopt is no longer maintained:DeprecationWarning",
    )
]

NUM_ENVS, NUM_STEPS = 2, 5


def to_brax(name, **kwargs):
    return adapters.to_brax(name, **kwargs)  # Brax is imported here, where it may warn


def _wrapped(env, episode_length):
    """`env` as Brax's training wraps it, and evaluation around that."""
    from brax.envs.wrappers import training

    return training.EvalWrapper(training.wrap(env, episode_length=episode_length))


def _brax_steps(env, actions):
    """Steps of wrapped environments; Brax's arithmetic needs promotion."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        reset, step = jax.jit(env.reset), jax.jit(env.step)
        states = [reset(jax.random.split(jax.random.PRNGKey(3), NUM_ENVS))]
        for action in actions:
            states.append(step(states[-1], action))
    return jax.device_get(states)


def test_hammer_steps_are_our_own_to_the_bit():
    """With Brax's wrapper, which cuts an episode and begins the first one again."""
    env = make_env("hammer", engine="mujoco")
    theirs = to_brax("hammer", engine="mujoco")
    size = (NUM_STEPS, NUM_ENVS, theirs.action_size)
    actions = np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32)
    assert (theirs.observation_size, theirs.action_size) == (39, 4)
    states = _brax_steps(_wrapped(theirs, 3), actions)

    keys = jax.random.split(jax.random.PRNGKey(3), NUM_ENVS)
    keys = jax.vmap(lambda key: jax.random.split(jax.random.wrap_key_data(key))[0])(
        keys
    )
    start, step = jax.jit(jax.vmap(env.reset))(keys), jax.jit(jax.vmap(env.step))
    state = start
    assert_trees_equal(states[0].obs, state.obs)
    for t, seen in enumerate(states[1:]):
        state = step(start if t == 3 else state, {"arm": actions[t]})
        at_end = t == 2  # Brax shows the first observation of the next episode
        assert_trees_equal(seen.obs, start.obs if at_end else state.obs)
        assert_trees_equal(seen.reward, state.reward)
        assert seen.done.tolist() == [at_end] * NUM_ENVS
        assert seen.info["truncation"].tolist() == [at_end] * NUM_ENVS


def test_brax_sums_a_metric_to_its_last_value():
    """The probe's metric is its return, and episodes end by themselves or at 7."""
    env = to_brax("probe_envs:HeadsProbe", names=("aim",))
    actions = np.full((9, NUM_ENVS, 3), 0.1, np.float32)
    last = _brax_steps(_wrapped(env, 7), actions)[-1].info["eval_metrics"]
    assert not last.active_episodes.any()
    sums = last.episode_metrics
    assert_trees_close(sums["paid_aim"], sums["reward"], rtol=1e-6, atol=1e-6)
    assert np.all(sums["reward"] < 0)


class TwoHeads:
    """Shows its actions; the third step cannot be used."""

    def __init__(self):
        heads = {"one": Box(1), "two": Box(2)}
        self.spec = EnvSpec("two_heads", heads, max_episode_steps=9)

    def reset(self, key):
        del key
        return self._state(jnp.zeros((), jnp.int32), jnp.zeros((3,), jnp.float32))

    def step(self, state, action):
        seen = jnp.concatenate([action["two"], action["one"]])
        return self._state(state.data + 1, seen)

    def _state(self, count, seen):
        false = jnp.zeros((), bool)
        obs = {"actor": seen, "critic": jnp.where(count == 3, jnp.nan, seen[:1])}
        return State(count, obs, jnp.float32(1), false, false, metrics={"m": seen[0]})


@pytest.fixture(scope="module")
def two_heads():
    return to_brax("test_to_brax:TwoHeads")


def test_heads_are_joined_in_their_order(two_heads):
    assert two_heads.action_size == 3
    assert two_heads.observation_size == {"state": (3,), "privileged_state": (1,)}
    assert (two_heads.spec.max_episode_steps, two_heads.backend) == (9, "purejaxppo")
    start = two_heads.reset(jax.random.PRNGKey(0))
    assert_trees_equal(two_heads.reset(jax.random.key(0)), start)
    state = two_heads.step(start, jnp.asarray([0.1, 0.2, 3.0], jnp.float32))
    assert_trees_close(state.obs["state"], np.float32([0.2, 1.0, 0.1]))  # clipped
    assert_trees_close(state.obs["privileged_state"], np.float32([0.2]))


def test_what_cannot_be_used_ends_the_episode_and_is_not_shown(two_heads):
    state = two_heads.reset(jax.random.key(0))
    states = []
    for t in range(3):
        state = two_heads.step(state, jnp.full((3,), 0.1 + 0.1 * t, jnp.float32))
        states.append(state)
    assert [float(x.done) for x in states] == [0, 0, 1]
    assert [float(x.reward) for x in states] == [1, 1, 0]
    assert_trees_equal(states[2].obs, states[1].obs)
    gained = [float(x.metrics["m"]) for x in states]
    assert gained == pytest.approx([0.1, 0.1, 0.0])


@pytest.mark.parametrize(
    ("name", "head"),
    [("scheduler", "job"), ("lifecycle", "op"), ("deck", "play")],
)
def test_heads_that_brax_has_no_actions_for_are_refused(name, head):
    message = f"heads.{head}: got Discrete.*; allowed is a Box, as all actions of Brax"
    with pytest.raises(ConfigError, match=message):
        to_brax(name)


def test_a_wrong_argument_is_one_sentence():
    with pytest.raises(ConfigError, match="env: got 'hamer'; allowed is one of "):
        to_brax("hamer")
    with pytest.raises(ConfigError, match="engine: got 'bullet'; allowed is one of"):
        to_brax("hammer", engine="bullet")


def test_without_brax_it_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "purejaxppo.adapters.for_brax")
    monkeypatch.setitem(sys.modules, "brax", None)
    with pytest.raises(ConfigError, match=r'got .to_brax.*pip install "brax==0.14.2"'):
        adapters.to_brax  # noqa: B018
