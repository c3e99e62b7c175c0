"""PPO learns: probes that fail for one cause each, values and actions both.

After Andy Jones, "Debugging RL, Without the Agonizing Pain", and Rejax's tests. What
each probe adds to the one before it is what is broken if it is the first to fail.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config
from probe_envs import HeadsProbe, Probe

from purejaxppo.policy.heads import PolicyInput
from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import make_learner, make_train
from purejaxppo.ppo.status import UpdateStatus


def _train(env, num_updates=40, **changes):
    config = small_config(
        **{
            "num_envs": 16,
            "num_steps": 8,
            "total_timesteps": 128 * num_updates,
            "hidden_sizes": (16,),
            "critic_hidden_sizes": (16,),
            "eval_blocks": 2,
            "eval_episodes": 16,
            "learning_rate": 0.02,
            "gamma": 0.5,
            "num_epochs": 4,
            **changes,
        }
    )
    state, metrics = jax.jit(make_train(config, env))(jax.random.key(0))
    learner = make_learner(config, env)

    def value(*obs):
        """The critic at the first step of an episode."""
        x = jnp.asarray(obs, jnp.float32)[:, None]
        inputs = PolicyInput(
            obs=normalize.apply(state.obs_stats, x)[None],
            start=jnp.ones((1, len(obs)), bool),
            action_mask={},
            active={},
        )
        carry = learner.task.policy.initial_carry(len(obs))["critic"]
        return np.asarray(learner.task.policy.value(state.params, inputs, carry)[0][0])

    return metrics, value


def _eval_return(metrics):
    return float(metrics["eval/mean_return"][-1])


def test_constant_reward_is_the_value():
    """One step, reward 1: the critic, its loss and its optimiser."""
    metrics, value = _train(Probe("constant"))
    np.testing.assert_allclose(value(0.0), [1.0], atol=0.05)
    assert float(metrics["loss/value"][-1]) < 0.01


def test_observation_decides_the_value():
    """Reward is the observation: it reaches the critic, as it was normalised."""
    metrics, value = _train(Probe("observation"), normalize_observations="running")
    np.testing.assert_allclose(value(1.0, -1.0), [1.0, -1.0], atol=0.1)
    assert float(metrics["value/explained_variance"][-1]) > 0.9


def test_delayed_reward_is_discounted():
    """Two steps, reward at the second: discounting and the bootstrap between."""
    _, value = _train(Probe("delayed", continuous=True))
    np.testing.assert_allclose(value(0.0, 1.0), [0.5, 1.0], atol=0.1)


def test_truncation_is_bootstrapped():
    """Reward 1 for ever, cut every 5 steps: 1 / (1 - γ) = 5, not the 2.5 of a death."""
    _, value = _train(Probe("endless"), num_updates=60, gamma=0.8)
    np.testing.assert_allclose(value(0.0), [5.0], atol=0.5)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("discrete", {}),
        ("continuous", {}),
        ("continuous", {"distribution": "tanh_normal"}),
    ],
)
def test_action_decides_the_reward(kind, changes):
    """The policy gradient, and its sign."""
    metrics, _ = _train(
        Probe("action", continuous=kind == "continuous"), num_evals=1, **changes
    )
    assert float(metrics["train/episode_return"][0]) < 0.6
    assert _eval_return(metrics) == 1.0


@pytest.mark.parametrize(
    ("continuous", "changes"),
    [
        (False, {"accumulate_gradients": True, "num_epochs": 8}),
        (True, {"distribution": "normal", "normalize_rewards": True}),
    ],
)
def test_observation_and_action_decide(continuous, changes):
    """Advantages belong to their own observations and actions."""
    metrics, _ = _train(Probe("both", continuous=continuous), num_evals=1, **changes)
    assert float(metrics["train/episode_return"][0]) < 0.6
    assert _eval_return(metrics) == 1.0
    assert not np.any(np.asarray(metrics["status"]) & int(UpdateStatus.RATIO))


@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_memory_is_learnt_with_a_recurrent_core(core):
    """A cue at the first step decides what pays at the eighth."""
    metrics, _ = _train(
        Probe("cue", delay=8),
        num_updates=120,
        num_evals=1,
        num_epochs=0,
        num_steps=16,
        core=core,
        core_size=16,
        gae_lambda=1.0,
        gamma=0.99,
    )
    assert _eval_return(metrics) == 1.0


def test_without_memory_the_cue_is_lost():
    """Else the test above would show nothing."""
    metrics, _ = _train(Probe("cue", delay=8), num_evals=1, gae_lambda=1.0, gamma=0.99)
    assert abs(_eval_return(metrics)) < 0.7


def test_several_heads_learn_together():
    """Each head's part of the reward is its own: all must find theirs."""
    env = HeadsProbe()
    metrics, _ = _train(env, num_evals=1, gamma=0.0, entropy_coef=0.01, stagger=False)
    for name in env.names:
        before = float(np.mean(metrics[f"train/paid_{name}"][:2]))
        after = float(metrics[f"eval/episode_paid_{name}"][-1])
        assert after > before + 0.2, name


def test_every_update_that_is_cut_slows_the_rate_of_schedule_kl():
    """Else the rate climbs on those that are not, while half of all are cut."""
    metrics, _ = _train(
        Probe("both", continuous=True),
        num_updates=60,
        learning_rate=0.003,
        learning_rate_schedule="kl",
        target_kl=0.01,
        num_minibatches=4,
    )
    rate = np.asarray(metrics["update/learning_rate"])
    cut = np.asarray(metrics["update/minibatches"]) < 16
    assert 5 < np.sum(cut) < 45
    changes = rate[1:] / rate[:-1]
    np.testing.assert_allclose(changes[cut[:-1]], 1 / 1.5, rtol=1e-5)
