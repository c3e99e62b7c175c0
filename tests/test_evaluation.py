"""Evaluation: fixed episodes, blocks by hand, and nothing after an episode's end."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal, small_config
from probe_envs import Lottery, Probe

from purejaxppo.policy.policy import make_policy
from purejaxppo.ppo import evaluation, normalize
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.rollout import policy_input
from purejaxppo.ppo.types import Task


def _lottery(**changes):
    config = small_config(eval_blocks=3, eval_episodes=4, **changes)
    policy = make_policy(Lottery().spec.heads, config)
    state = jax.vmap(Lottery().reset)(jax.random.split(jax.random.key(0), 2))
    inputs = policy_input(_Episodes(state, jnp.ones((2,), bool)), None)
    params = jax.jit(policy.init)(jax.random.key(1), inputs)
    return config, policy, params


class _Episodes:
    def __init__(self, state, start):
        self.state, self.start = state, start


@pytest.fixture(scope="module")
def lottery():
    config, policy, params = _lottery()
    run = jax.jit(
        lambda params: evaluation.evaluate(
            Task(Lottery(), policy, config), params, None
        )
    )
    return config, run(params)


def _lucks(config):
    num = config.eval_blocks * config.eval_episodes
    keys = jax.random.split(jax.random.key(config.eval_seed), num)
    return np.asarray(jax.vmap(Lottery().reset)(keys).data[:, 0], np.float64)


def test_returns_blocks_and_lengths_by_hand(lottery):
    config, metrics = lottery
    lucks = _lucks(config)
    lengths = 1 + np.floor(4 * lucks)
    assert len(set(lengths)) > 2  # they do end at different steps
    blocks = (lucks * lengths).reshape(3, 4).mean(axis=1)
    np.testing.assert_allclose(metrics["eval/mean_return"], blocks.mean(), rtol=1e-5)
    np.testing.assert_allclose(
        metrics["eval/min_block_return"], blocks.min(), rtol=1e-5
    )
    for index, block in enumerate(blocks):
        found = metrics[f"eval/block{index}_return"]
        np.testing.assert_allclose(found, block, rtol=1e-5)
    np.testing.assert_allclose(metrics["eval/episode_length"], lengths.mean())


def test_other_figures_are_those_of_the_last_step(lottery):
    """`success` counts the steps here: after the end it is NaN, and must not show."""
    config, metrics = lottery
    blocks = (1 + np.floor(4 * _lucks(config))).reshape(3, 4).mean(axis=1)
    np.testing.assert_allclose(metrics["eval/episode_success"], blocks.mean())
    np.testing.assert_allclose(metrics["eval/min_block_success"], blocks.min())
    assert blocks.min() < blocks.mean()


def test_another_seed_is_another_set_of_episodes(lottery):
    config, _metrics = lottery
    other = dataclasses.replace(config, eval_seed=1)
    assert not np.allclose(_lucks(config), _lucks(other))


@pytest.fixture(scope="module")
def trained():
    """A learner whose actions depend on what it sees and how that is normalised."""
    env = Probe("endless", continuous=True)

    class Drift:
        """Pays the action; observes something far from the origin."""

        spec = env.spec
        reset = staticmethod(
            lambda key: env.reset(key).replace(obs=100.0 + jax.random.normal(key, (1,)))
        )

        def step(self, state, action):
            return state.replace(reward=action["move"][0], obs=state.obs + 1.0)

    config = small_config(init_std=0.3, normalize_observations="running")
    learner = make_learner(config, Drift())
    state, _ = jax.jit(learner.init)(jax.random.key(0))
    loud = jax.tree.map(lambda x: 20.0 * x, state.params)
    samples = jnp.asarray([[99.0], [103.0]])
    stats = normalize.update(state.obs_stats, samples)
    state = state.replace(params=loud, obs_stats=stats)
    return learner, state, jax.jit(learner.evaluate, static_argnums=1)


def test_same_episodes_whatever_training_did_with_its_key(trained):
    learner, state, evaluate = trained
    first = evaluate(state, True)
    assert_trees_equal(first, evaluate(state, True))
    other, _ = jax.jit(learner.init)(jax.random.key(7))
    moved = state.replace(
        key=other.key,
        episodes=other.episodes,
        update_count=state.update_count + 5,
    )
    assert_trees_equal(first, evaluate(moved, True))
    assert_trees_equal(evaluate(state, False), evaluate(moved, False))


def test_the_limit_of_the_environment_ends_an_episode(trained):
    _, state, evaluate = trained
    assert float(evaluate(state, True)["eval/episode_length"]) == 5.0


def test_it_sees_observations_as_training_normalises_them(trained):
    """A fresh normaliser is another policy."""
    _learner, state, evaluate = trained
    fresh = state.replace(obs_stats=normalize.init(jnp.zeros((1,))))
    here, there = evaluate(state, True), evaluate(fresh, True)
    assert abs(float(here["eval/mean_return"] - there["eval/mean_return"])) > 0.1


def test_deterministic_takes_the_mode_and_stochastic_samples(trained):
    _, state, evaluate = trained
    mode, sampled = evaluate(state, True), evaluate(state, False)
    assert all(name.startswith("eval/") for name in mode)
    assert all(name.startswith("eval_stochastic/") for name in sampled)
    expected = sampled["eval_stochastic/mean_return"]
    assert float(mode["eval/mean_return"]) != float(expected)
    # With no noise left, sampling is the mode.
    quiet = jax.tree.map(lambda x: x, state.params)
    quiet.policy["outputs_move"]["std"]["bias"] = jnp.full((1,), -50.0)
    quiet = state.replace(params=quiet)
    np.testing.assert_allclose(
        evaluate(quiet, True)["eval/mean_return"],
        evaluate(quiet, False)["eval_stochastic/mean_return"],
        atol=0.1,
    )
