"""The Brax worker's own parts: our environments as Brax's, training epoch by epoch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import quick_jit
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
        reset, step = quick_jit(wrapped.reset), quick_jit(wrapped.step)
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


class Epochs:
    """As `ppo.train` calls back, of three epochs; then it is over."""

    def __init__(self, fails_at=None):
        self.trained, self.fails_at = [], fails_at

    def start(self, updates, pause, *, restore_params, policy_params_fn):
        policy_params_fn(0, None, restore_params)
        pause()  # compiled
        for epoch in range(1, 4):
            if epoch == self.fails_at:
                raise FloatingPointError("planted")
            self.trained.append(updates)
            policy_params_fn(epoch * updates, "policy", epoch)


def test_a_training_goes_on_only_when_told(brax_ppo):
    epochs = Epochs()
    training = brax_ppo.Training(epochs.start, 7, "restored")
    assert epochs.trained == []
    assert training.params == "restored"
    training.epoch()
    assert (epochs.trained, training.params) == ([7], 1)
    training.epoch()
    assert (epochs.trained, training.params) == ([7, 7], 2)
    training.stop()
    assert epochs.trained == [7, 7]


def test_what_a_training_raises_reaches_the_worker(brax_ppo, capsys):
    training = brax_ppo.Training(Epochs(fails_at=2).start, 1, None)
    training.epoch()
    with pytest.raises(FloatingPointError, match="planted"):
        training.epoch()
    assert "planted" in capsys.readouterr().err


def test_the_epoch_is_compiled_before_it_runs(brax_ppo, monkeypatch):
    events = []

    class Mapped:
        def lower(self, x):
            events.append("lower")
            return self

        def compile(self):
            events.append("compile")
            return lambda x: events.append("run")

    monkeypatch.setattr(jax, "pmap", lambda function, **kwargs: Mapped())
    original = jax.pmap
    brax_ppo.compile_first(lambda: events.append("pause"))
    assert isinstance(jax.pmap(lambda x: x), Mapped)

    def training_epoch(x):
        return x

    epoch = jax.pmap(training_epoch)
    assert jax.pmap is original
    epoch(1)
    epoch(2)
    assert events == ["lower", "compile", "pause", "run", "run"]


def test_replicated_is_one_copy_for_each_device(brax_ppo):
    tree = {"x": jnp.arange(3.0)}
    copies = brax_ppo.device_put_replicated(tree, jax.local_devices())
    assert copies["x"].shape == (len(jax.local_devices()), 3)
    np.testing.assert_array_equal(copies["x"][0], tree["x"])
