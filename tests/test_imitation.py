"""Demonstrations: what is kept; cloning: what is learnt; the anchor's reference."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bad_demonstrations import BAD_KINDS, BadDemonstrator
from helpers import assert_trees_equal, small_config
from probe_envs import Counter, Probe

from purejaxppo import autoreset, make_train
from purejaxppo.env import Box, EnvSpec, State
from purejaxppo.errors import ConfigError
from purejaxppo.policy.policy import Stored
from purejaxppo.ppo import imitation, normalize
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.rollout import rollout
from purejaxppo.ppo.types import Task
from purejaxppo.ppo.update import as_arrays


@dataclasses.dataclass(frozen=True)
class Quest:
    """Succeeds at a step from 2 to 4, or never; after that all it shows is NaN."""

    always_fails: bool = False

    @property
    def spec(self):
        return EnvSpec("quest", {"move": Box(2)}, 6, "success")

    def reset(self, key):
        zero, no = jnp.zeros((), jnp.float32), jnp.zeros((), bool)
        goal = jax.random.randint(key, (), 2, 6).astype(jnp.float32)
        goal = jnp.where((goal == 5) | self.always_fails, 99.0, goal)
        data = jnp.stack([goal, zero])
        return State(data, data, zero, no, no, metrics={"success": zero})

    def step(self, state, action):
        goal, count = state.data
        count = count + 1
        data = jnp.stack([goal, count])
        return state.replace(
            data=data,
            obs=jnp.where(count > goal, jnp.nan, data),
            reward=count,
            metrics={"success": (count >= goal).astype(jnp.float32)},
        )

    def demonstrator(self, state):
        return {"move": jnp.full((2,), 0.9, jnp.float32)}


def _collect(env, key=0, **changes):
    config = small_config(**changes)
    return jax.jit(lambda key: imitation.collect(Task(env, None, config), key))(
        jax.random.key(key)
    )


@pytest.fixture(scope="module")
def quests():
    return _collect(Quest(), num_demonstrations=8, demonstration_noise=0.5)


def test_demonstrations_are_cut_at_the_first_success(quests):
    goals = np.asarray(quests.obs[:, 0, 0])
    assert set(goals) <= {2.0, 3.0, 4.0}
    assert len(set(goals)) > 1
    expected = np.arange(6)[None] < goals[:, None]
    np.testing.assert_array_equal(quests.valid, expected)


def test_only_successes_are_kept():
    """Of 8 * 2 + 4 attempts about a quarter never succeeds."""
    demonstrations = _collect(Quest(), key=3, num_demonstrations=8)
    assert np.all(np.asarray(demonstrations.obs[:, 0, 0]) < 99.0)
    assert np.all(np.asarray(demonstrations.valid[:, 0]))


def test_each_step_holds_the_state_the_action_was_chosen_in(quests):
    valid = np.asarray(quests.valid)
    steps = np.broadcast_to(np.arange(6), valid.shape)
    np.testing.assert_array_equal(np.asarray(quests.obs[..., 1])[valid], steps[valid])
    # The reward is that of the step, one further.
    np.testing.assert_array_equal(
        np.asarray(quests.reward)[valid], steps[valid].astype(float) + 1
    )


def test_the_executed_action_is_stored_with_its_noise(quests):
    action = np.asarray(quests.action["move"])
    assert action.max() == 1.0  # 0.9 and noise of 0.5: some are held at the edge
    assert action.min() > -1.0
    assert len(np.unique(action)) > 20
    assert 0.3 < action.std() < 0.5
    still = _collect(Quest(), num_demonstrations=2, demonstration_noise=0.0)
    np.testing.assert_array_equal(still.action["move"], np.float32(0.9))


def test_where_nothing_succeeds_no_step_is_valid():
    demonstrations = _collect(Quest(always_fails=True), num_demonstrations=3)
    assert not np.any(demonstrations.valid)


def test_statistics_are_those_of_valid_steps(quests):
    """What follows an end is NaN here."""
    stats = imitation.observation_statistics(quests)
    valid = np.asarray(quests.obs)[np.asarray(quests.valid)].astype(np.float64)
    assert normalize.num_samples(stats) == len(valid)
    np.testing.assert_allclose(stats.mean, valid.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats.variance, valid.var(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("env", "allowed"),
    [
        (Counter("limit"), "an environment with a demonstrator"),
        (Probe("both"), "an environment whose spec has success and a limit"),
    ],
)
def test_environments_that_cannot_demonstrate(env, allowed):
    task = Task(env, None, small_config(num_demonstrations=2))
    with pytest.raises(ConfigError) as error:
        imitation.collect(task, jax.random.key(0))
    assert str(error.value) == f"env: got {env.spec.name!r}; allowed is {allowed}"


# --- cloning ---------------------------------------------------------------------


def _cloned(env, **changes):
    config = small_config(
        num_demonstrations=16,
        cloning_batch=32,
        demonstration_noise=0.05,
        **{"cloning_learning_rate": 0.02, "cloning_steps": 150, **changes},
    )
    learner = make_learner(config, env)
    state, metrics = jax.jit(learner.init)(jax.random.key(0))
    return learner, state, metrics


def _eval_return(learner, state):
    return float(jax.jit(learner.evaluate)(state)["eval/mean_return"])


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
def test_cloning_the_expert_feed_forward(continuous):
    env = Probe("both", continuous=continuous, limit=3)
    learner, state, metrics = _cloned(env)
    assert _eval_return(learner, state) == 1.0
    assert float(metrics["cloning/last_loss"]) < float(metrics["cloning/first_loss"])
    assert float(metrics["cloning/demonstrations"]) == 16.0
    assert float(metrics["cloning/samples"]) == 16.0


def test_cloning_an_expert_with_memory_takes_a_memory():
    env = Probe("cue", limit=3)
    learner, state, metrics = _cloned(env, core="lstm")
    assert _eval_return(learner, state) == 1.0
    assert float(metrics["cloning/samples"]) == 32.0
    learner, state, _ = _cloned(env)
    assert _eval_return(learner, state) < 1.0


def test_padding_does_not_reach_the_parameters():
    """Recurrent cloning sees whole episodes; behind their ends Quest shows NaN."""
    _, state, metrics = _cloned(Quest(), core="gru", cloning_steps=3, num_evals=0)
    assert np.isfinite(metrics["cloning/last_loss"])
    for leaf in jax.tree.leaves(state.params):
        assert np.all(np.isfinite(leaf))


@functools.cache
def _trained_on(core):
    """(key, kind of demonstrator) -> state and metrics; one program for all kinds."""
    config = small_config(
        num_demonstrations=3,
        cloning_steps=2,
        cloning_batch=4,
        core=core,
        total_timesteps=64,
        num_epochs=1,
        normalize_observations="fixed",
    )

    def train(key, kind):
        return make_train(config, BadDemonstrator(kind))(key)

    return jax.jit(train)


@pytest.mark.parametrize("core", ["none", "gru"])
@pytest.mark.parametrize("kind", BAD_KINDS)
def test_no_demonstrator_makes_cloning_nan_and_metrics_say_what_was_left_out(
    kind, core
):
    """In `make_train`, which is pure, nothing else could say it."""
    index = jnp.int32(BAD_KINDS.index(kind))
    state, metrics = _trained_on(core)(jax.random.key(0), index)
    for leaf in jax.tree.leaves((state.params, state.obs_stats)):
        assert np.all(np.isfinite(leaf))
    for name in ("cloning/first_loss", "cloning/last_loss"):
        assert np.isfinite(metrics[name])
    # Of the two steps of each demonstration, one is wrong. An episode with an
    # observation that cannot be used is no success.
    fails = kind in ("fails", "blind")
    samples, refused = (0, 0) if fails else (6, 0) if kind == "sound" else (3, 3)
    assert float(metrics["cloning/samples"]) == samples
    assert float(metrics["cloning/refused"]) == refused
    assert float(metrics["cloning/demonstrations"]) == (0 if fails else 3)


# --- the anchor ------------------------------------------------------------------


@pytest.fixture(scope="module")
def anchored():
    env = Probe("cue", delay=5, limit=5)
    learner, state, _ = _cloned(
        env,
        core="gru",
        cloning_steps=3,
        anchor=True,
        kl_coef=0.1,
        num_minibatches=2,
        critic_warmup=1,
    )
    return env, learner, state, jax.jit(learner.update)


def test_the_anchor_draws_the_policy_back(anchored):
    _, learner, state, update = anchored
    moved = jax.tree.map(lambda x: 1.5 * x + 0.1, state.params)
    moved = state.replace(params=moved, update_count=state.update_count + 1)
    distances = []
    for kl_coef in (0.0, 10.0):
        hypers = as_arrays(learner.task.config.hypers.replace(kl_coef=kl_coef))
        hypers = hypers.replace(learning_rate=jnp.float32(0.01))
        after = moved
        for _ in range(6):
            after, metrics = update(after, hypers)
        distances.append(float(metrics["reference_kl"]))
    assert abs(distances[1]) < 0.3 * distances[0], distances


def test_reference_is_the_cloned_policy_and_stays(anchored):
    _, _, state, update = anchored
    assert_trees_equal(state.reference.params, state.params)
    assert_trees_equal(state.reference.obs_stats, state.obs_stats)
    hypers = as_arrays(anchored[1].task.config.hypers)
    after, warm = update(state, hypers)
    # The critic warms up on the cloned policy, which is its own reference.
    np.testing.assert_allclose(warm["reference_kl"], 0.0, atol=1e-5)
    after, metrics = update(after, hypers)
    assert float(metrics["reference_kl"]) != 0.0
    assert_trees_equal(after.reference.params, state.reference.params)
    assert_trees_equal(after.reference.obs_stats, state.reference.obs_stats)


def test_reference_keeps_a_memory_of_its_own(anchored):
    """Once the policy has moved, its carry means nothing to the reference's heads."""
    env, learner, state, _ = anchored
    moved = state.replace(params=jax.tree.map(lambda x: 1.5 * x + 0.1, state.params))

    @jax.jit
    def run(state):
        starts = autoreset.draw_starts(env, "pool", 8, jax.random.key(1))
        _, transitions, _, _ = rollout(learner.task, state, starts, jax.random.key(2))
        whole = Stored(
            transitions.stored.inputs,
            transitions.stored.action,
            learner.task.policy.initial_carry(learner.task.config.num_envs),
        )
        terms = learner.task.policy.log_prob(state.reference.params, whole)
        return transitions.reference_log_prob, terms.joint_log_prob()

    stepwise, whole = run(moved)
    np.testing.assert_allclose(stepwise, whole, rtol=1e-4, atol=1e-5)
