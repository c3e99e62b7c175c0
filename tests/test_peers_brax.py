"""The Brax worker's own parts: our environments as Brax's, training epoch by epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import Probe

pytestmark = pytest.mark.filterwarnings("ignore:JAXopt is no longer:DeprecationWarning")


@pytest.fixture(scope="module")
def brax_ppo():
    from benchmarks.peers import brax_ppo

    return brax_ppo


def test_our_environments_under_braxs_wrappers(brax_ppo):
    from brax.envs import training

    from purejaxppo.numerics import permissive_numerics

    env = brax_ppo.AsBrax(Probe("delayed", continuous=True))
    assert (env.observation_size, env.action_size) == (1, 1)
    wrapped = training.wrap(env, episode_length=5)
    action = jnp.ones((3, 1), jnp.float32)
    with permissive_numerics():
        reset, step = jax.jit(wrapped.reset), jax.jit(wrapped.step)
        state = reset(jax.random.split(jax.random.PRNGKey(0), 3))
        seen = []
        for _ in range(4):
            # On the host and back: Brax's weak types would compile it twice.
            state = step(jax.device_get(state), action)
            seen.append((float(state.reward[0]), float(state.done[0])))
    inner = env.inner.reset(jax.random.key(0))
    expected = []
    for _ in range(2):
        inner = env.inner.step(inner, {env.head: action[0]})
        expected.append((float(inner.reward), float(inner.terminated)))
    assert expected[-1][1] == 1.0, "the probe's episode has two steps"
    assert seen == expected * 2  # and Brax's reset in between


def test_the_epoch_is_compiled_and_not_run(brax_ppo):
    """As `ppo.train` does: it gives its policy away, then maps and calls its epoch."""
    called = []

    def train(policy_params_fn):
        def training_epoch(state, environments, keys):
            called.append(state)  # traced
            return state + 1.0, environments * 2.0, {}

        policy_params_fn(0, "policy", None)
        one = jnp.ones(1)
        jax.pmap(training_epoch)(one, one, jax.random.split(jax.random.PRNGKey(0), 1))
        raise AssertionError("went on")

    original = jax.pmap
    training = brax_ppo.compile_epoch(train)
    assert jax.pmap is original
    assert len(called) == 1
    assert training.make_policy == "policy"
    (state, environments, keys), _ = training.state, None
    for _ in range(2):
        training = brax_ppo.train_epoch(training)
    assert len(called) == 1
    assert (state[0], environments[0]) == (1.0, 1.0)
    assert [float(x[0]) for x in training.state[:2]] == [3.0, 4.0]
    assert not np.array_equal(training.state[2], keys)


def test_a_train_without_an_epoch_is_refused(brax_ppo):
    with pytest.raises(RuntimeError, match="no training epoch"):
        brax_ppo.compile_epoch(lambda policy_params_fn: None)


def test_replicated_is_one_copy_for_each_device(brax_ppo):
    tree = {"x": jnp.arange(3.0)}
    copies = brax_ppo.device_put_replicated(tree, jax.local_devices())
    assert copies["x"].shape == (len(jax.local_devices()), 3)
    np.testing.assert_array_equal(copies["x"][0], tree["x"])
