"""The update: estimates by hand, then what each minibatch may and may not change.

One compiled `optimise` serves most tests: coefficients, counters and data are traced.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    assert_trees_close,
    assert_trees_equal,
    small_config,
    trees_differ,
)
from probe_envs import Counter, HeadsProbe, Probe

from purejaxppo import autoreset
from purejaxppo.config import Hypers
from purejaxppo.env import State
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Stored
from purejaxppo.ppo import normalize, reduce, shuffle
from purejaxppo.ppo.batch import (
    _estimate_metrics,
    _group_size,
    as_sequences,
    estimate_values,
    make_batch,
    scaled_rewards,
)
from purejaxppo.ppo.coefficients import coefficients, init_adaptive
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.minibatch import (
    average_num_valid,
    minibatch_loss,
    over_devices,
)
from purejaxppo.ppo.rollout import rollout
from purejaxppo.ppo.status import (
    STILL_UPDATES,
    UpdateStatus,
    count_still,
    update_status,
)
from purejaxppo.ppo.summary import Summary
from purejaxppo.ppo.types import Batch, Task, Transition
from purejaxppo.ppo.update import _steps_per_update, as_arrays, optimise

# --- estimates -------------------------------------------------------------------


def _value_is_ten_times_obs(params, inputs, carry):
    del params
    return 10.0 * inputs.obs[..., 0], carry


class _KnownCritic:
    """A policy of which only the critic is used, with values known by hand."""

    value = staticmethod(_value_is_ten_times_obs)


def _transitions(env, num_steps=6, num_envs=2, train_steps=0):
    """A rollout of an environment that heeds no action: [T, N], and what follows."""
    limit = autoreset.time_limit(env, train_steps)
    action = {"move": jnp.zeros((num_envs,), jnp.int32)}
    episodes = jax.vmap(lambda k: autoreset.init(env, "fresh", limit, False, k))(
        jax.random.split(jax.random.key(0), num_envs)
    )
    steps = []
    for t in range(num_steps):
        inputs = PolicyInput(episodes.state.obs, episodes.start, {}, {})
        keys = jax.random.split(jax.random.key(t), num_envs)
        episodes, out = jax.vmap(
            lambda e, a, k: autoreset.step(
                env, e, a, None, limit, autoreset.draw_next(env, "fresh", None, k)
            )
        )(episodes, action, keys)
        zeros = jnp.zeros((num_envs,))
        steps.append(
            Transition(
                stored=Stored(inputs, action, {"actor": (), "critic": ()}),
                log_prob={"move": zeros},
                entropy=zeros,
                reference_log_prob=zeros,
                reward=out.reward,
                terminated=out.terminated,
                truncated=out.truncated,
                final_obs=out.final_obs,
            )
        )
    last = PolicyInput(episodes.state.obs, episodes.start, {}, {})
    return jax.tree.map(lambda *x: jnp.stack(x), *steps), last


_KNOWN = Task(None, _KnownCritic, None)


@pytest.mark.parametrize("end", ["terminated", "truncated", "limit"])
def test_next_value_is_that_of_the_true_next_observation(end):
    """At the end of an episode that is 3, not the 0 of the next one's start."""
    transitions, last = _transitions(Counter(end))
    value, next_value, _ = estimate_values(_KNOWN, {}, transitions, (), last)
    for env in range(2):
        np.testing.assert_allclose(value[:, env], [0, 10, 20, 0, 10, 20])
        np.testing.assert_allclose(next_value[:, env], [10, 20, 30, 10, 20, 30])


@pytest.mark.parametrize(
    ("backend", "num_envs", "together"), [("cpu", 100, 128), ("gpu", 400, 150)]
)
def test_next_value_of_more_ends_than_are_computed_together(
    backend, num_envs, together, monkeypatch
):
    """A third of all steps end an episode; the last group of them is not a full one."""
    transitions, last = _transitions(Counter("truncated"), num_envs=num_envs)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert _group_size(6 * num_envs) == together
    assert 2 * num_envs % together
    _, next_value, _ = estimate_values(_KNOWN, {}, transitions, (), last)
    expected = np.repeat([[10], [20], [30]] * 2, num_envs, axis=1)
    np.testing.assert_allclose(next_value, expected)


def test_next_value_in_the_middle_of_an_episode():
    """The rollout ends inside an episode: its last step bootstraps from where it is."""
    transitions, last = _transitions(Counter("terminated"), num_steps=5)
    _, next_value, _ = estimate_values(_KNOWN, {}, transitions, (), last)
    np.testing.assert_allclose(next_value[:, 0], [10, 20, 30, 10, 20])


# γ = 0.5, λ = 1: the target is the discounted sum of rewards 1, 2, 3 to the end, and
# 0.5^n * 30 where it was cut.
_TARGETS = {
    "terminated": [2.75, 3.5, 3.0],
    "truncated": [2.75 + 30 / 8, 3.5 + 30 / 4, 3.0 + 30 / 2],
    "limit": [2.75 + 30 / 8, 3.5 + 30 / 4, 3.0 + 30 / 2],
    "both": [2.75, 3.5, 3.0],
}


class _Rest(NamedTuple):
    """What `make_batch` reads of a `TrainState`."""

    params: Any
    episodes: Any
    obs_stats: Any = None
    return_stats: Any = None


class _Known:
    def __init__(self, last):
        self.state = State(None, last.obs, None, None, None)
        self.start = last.start


@pytest.mark.parametrize("end", _TARGETS)
def test_targets_by_hand_for_each_kind_of_end(end):
    transitions, last = _transitions(Counter(end))
    config = small_config(num_steps=6, num_envs=2, normalize_advantages="off")
    hypers = Hypers(gamma=0.5, gae_lambda=1.0)
    batch, _, metrics = make_batch(
        Task(None, _KnownCritic, config),
        _Rest({}, _Known(last)),
        transitions,
        (),
        hypers,
    )
    expected = np.repeat(np.asarray(_TARGETS[end] * 2), 2)[None]
    np.testing.assert_allclose(batch.returns, expected, rtol=1e-6)
    np.testing.assert_allclose(batch.advantages, expected - batch.value, rtol=1e-5)
    # The raw moments are logged, whatever is done to advantages afterwards.
    raw = expected - np.asarray(batch.value)
    np.testing.assert_allclose(metrics["advantages/mean"], raw.mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["advantages/std"], raw.std(), rtol=1e-5)
    config = dataclasses.replace(config, normalize_advantages="batch")
    batch, _, again = make_batch(
        Task(None, _KnownCritic, config),
        _Rest({}, _Known(last)),
        transitions,
        (),
        hypers,
    )
    np.testing.assert_allclose(np.mean(batch.advantages), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.std(batch.advantages), 1.0, rtol=1e-5)
    assert_trees_equal(metrics, again)


def test_explained_variance_by_hand():
    returns = jnp.asarray([[1.0, 2.0, 3.0, 4.0]])

    def explained(value, returns):
        metrics = _estimate_metrics(value, returns - value, returns, None)
        return float(metrics["value/explained_variance"])

    np.testing.assert_allclose(explained(returns, returns), 1.0)
    np.testing.assert_allclose(explained(jnp.zeros((1, 4)), returns), 0.0, atol=1e-6)
    # A constant error is the bias of a critic that explains all that varies.
    np.testing.assert_allclose(explained(returns + 7.0, returns), 1.0)
    np.testing.assert_allclose(explained(-returns, returns), -3.0, rtol=1e-5)
    assert math.isnan(explained(returns, jnp.ones((1, 4))))


class _Scaled(NamedTuple):
    return_stats: Any
    discounted_return: Any

    def replace(self, **changes):
        return self._replace(**changes)


def test_rewards_are_scaled_by_the_std_of_the_discounted_return():
    transitions, _ = _transitions(Counter("terminated"))
    state = _Scaled(normalize.init(jnp.zeros(())), jnp.asarray([4.0, 0.0]))
    reward, after = scaled_rewards(_KNOWN, state, transitions, Hypers(gamma=0.5))
    # 1 + 0.5 * 4, 2 + 0.5 * 3, 3 + 0.5 * 3.5; then anew: 1, 2.5, 4.25
    totals = [3.0, 3.5, 4.75, 1.0, 2.5, 4.25] + [1.0, 2.5, 4.25] * 2
    std = np.std(totals)
    np.testing.assert_allclose(reward[:, 0], np.asarray([1, 2, 3] * 2) / std, rtol=1e-5)
    np.testing.assert_allclose(after.discounted_return, 0.0)
    assert normalize.num_samples(after.return_stats) == 12
    # Statistics go on from where they were; without them rewards are left alone.
    _, later = scaled_rewards(_KNOWN, after, transitions, Hypers(gamma=0.5))
    assert normalize.num_samples(later.return_stats) == 24
    off, _ = scaled_rewards(_KNOWN, _Scaled(None, None), transitions, Hypers())
    assert_trees_equal(off, transitions.reward)


def _scaled_sparse(hypers):
    """The first reward of all, 1 at the last of 6 steps, as it is learned from."""
    transitions, _ = _transitions(Counter("truncated"), num_envs=64)
    sparse = jnp.zeros_like(transitions.reward).at[-1, 0].set(1.0)
    transitions = transitions.replace(reward=sparse)
    state = _Scaled(normalize.init(jnp.zeros(())), jnp.zeros(64))
    reward, _ = scaled_rewards(_KNOWN, state, transitions, hypers)
    return reward


def test_a_first_sparse_reward_is_bounded():
    """Divided by the standard deviation of returns that are all but one 0."""
    unbounded = _scaled_sparse(Hypers(reward_clip=math.inf))
    np.testing.assert_allclose(unbounded[-1, 0], np.sqrt(384), rtol=1e-2)
    bounded = _scaled_sparse(Hypers())
    assert float(bounded[-1, 0]) == 10.0
    assert float(jnp.sum(bounded)) == 10.0
    np.testing.assert_allclose(_scaled_sparse(Hypers(reward_clip=2.0))[-1, 0], 2.0)


def test_a_bound_on_rewards_has_two_sides():
    transitions, _ = _transitions(Counter("terminated"))
    transitions = transitions.replace(reward=-transitions.reward)
    state = _Scaled(normalize.init(jnp.zeros(())), jnp.zeros(2))
    reward, _ = scaled_rewards(_KNOWN, state, transitions, Hypers(reward_clip=0.5))
    assert float(jnp.min(reward)) == -0.5


def test_probe_is_what_the_estimates_think_it_is():
    """The endless probe is cut by the wrapper's limit alone."""
    transitions, _ = _transitions(Probe("endless"))
    assert not np.any(transitions.terminated)
    np.testing.assert_array_equal(np.flatnonzero(transitions.truncated[:, 0]), [4])


# --- sequences -------------------------------------------------------------------


def _numbered(num_steps, num_envs):
    """Element [t, n] is 100 t + n; a carry of two numbers per step."""
    table = np.add.outer(100.0 * np.arange(num_steps), np.arange(num_envs))
    table = jnp.asarray(table, jnp.float32)
    inputs = PolicyInput(table[..., None], table > -1, {}, {})
    carry = {"actor": jnp.stack([table, -table], axis=-1), "critic": ()}
    return Batch(
        stored=Stored(inputs, {"move": table}, carry),
        log_prob={"move": table},
        entropy=table,
        reference_log_prob=table,
        advantages=table,
        returns=table,
        value=table,
    )


@pytest.mark.parametrize("length", [1, 2, 3, 6])
def test_sequences_are_contiguous_and_keep_their_environment(length):
    num_steps, num_envs = 6, 4
    batch = as_sequences(_numbered(num_steps, num_envs), length)
    table = np.asarray(batch.advantages)
    assert table.shape == (length, num_steps // length * num_envs)
    np.testing.assert_array_equal(np.diff(table, axis=0), 100.0)
    expected = {(100 * t, n) for t in range(0, num_steps, length) for n in range(4)}
    assert {(x - x % 100, x % 100) for x in table[0]} == expected
    # All leaves alike, and the carry is the one before the first step.
    np.testing.assert_array_equal(batch.stored.inputs.obs[..., 0], table)
    np.testing.assert_array_equal(batch.stored.carry["actor"][:, 0], table[0])
    np.testing.assert_array_equal(batch.stored.carry["actor"][:, 1], -table[0])


def test_a_plain_reshape_would_not_be_contiguous():
    """The planted fault: what the test above must be able to tell apart."""
    table = np.asarray(_numbered(6, 4).advantages).reshape(2, -1)
    assert not np.all(np.diff(table, axis=0) == 100.0)


# --- one compiled optimise -------------------------------------------------------


class Setup(NamedTuple):
    """A rollout of the multi-head probe, and the compiled epochs over it."""

    learner: Any
    state: Any
    batch: Batch
    run: Any  # (state, batch, hypers) -> (state, metrics)
    new_stats: Any = None  # of observations, with this rollout


_KEY = jax.random.key(5)
_RATE = Hypers(learning_rate=0.01, entropy_coef=0.01)


def _setup(state_and_batch=None, **changes):
    changes = {"normalize_observations": "running", **changes}
    config = small_config(num_steps=16, critic_warmup=1, reset="fresh", **changes)
    learner = make_learner(config, HeadsProbe())
    new_stats = None
    if state_and_batch is None:
        state, batch, new_stats = jax.jit(lambda key: _collect(learner, key))(_KEY)
        state = state.replace(update_count=state.update_count + 1)
    else:
        state, batch = state_and_batch

    @jax.jit
    def run(state, batch, hypers):
        state, summary = optimise(learner.task, state, batch, as_arrays(hypers), _KEY)
        return state, summary.logged

    return Setup(learner, state, batch, run, new_stats)


def _collect(learner, key):
    state, _ = learner.init(key)
    # Something to normalise by, and loud heads: at the gain of 0.01 all choices are
    # alike, and nothing shows.
    raw = 100.0 + 20.0 * jax.random.normal(key, (50, 4))
    state = state.replace(obs_stats=normalize.update(state.obs_stats, raw))
    policy = {
        name: jax.tree.map(lambda x: 50.0 * x, branch) if "outputs" in name else branch
        for name, branch in state.params.policy.items()
    }
    state = state.replace(params=state.params.replace(policy=policy))
    state, transitions, _, new_stats = rollout(learner.task, state, None, key)
    batch, state, _ = make_batch(
        learner.task, state, transitions, (), learner.task.config.hypers
    )
    return state, batch, new_stats


@pytest.fixture(scope="module")
def setup():
    return _setup()


def _num_samples(setup):
    return setup.batch.advantages.shape[1]


def _first_minibatch(setup):
    """Which samples the first minibatch of the first epoch holds."""
    config = setup.learner.task.config
    key = jax.random.split(_KEY, config.num_epochs)[0]
    per_env = _num_samples(setup) // config.num_envs
    num = config.num_minibatches
    return shuffle.minibatches(key, config.num_envs, per_env, num)[0]


def _adam(opt_state):
    """Adam's state of policy and critic, from inside the chain."""
    inner = opt_state[1].inner_states
    return {
        "policy": inner["policy"].inner_state,
        "critic": inner["critic"].inner_state[0],
    }


def _counts(opt_state):
    return {name: int(part.count) for name, part in _adam(opt_state).items()}


def test_an_update_runs_all_its_minibatches(setup):
    after, metrics = setup.run(setup.state, setup.batch, _RATE)
    assert float(metrics["update/epochs"]) == 2.0
    assert float(metrics["update/minibatches"]) == 8.0
    assert float(metrics["update/nonfinite"]) == 0.0
    assert float(metrics["ratio/first_minibatch_error"]) < 1e-5
    assert float(metrics["ratio/last_epoch_std"]) > 1e-3
    assert trees_differ(after.params, setup.state.params)
    assert _counts(after.opt_state) == {"policy": 8, "critic": 8}
    # Everything else belongs to others.
    untouched = {"params": None, "opt_state": None, "adaptive": None}
    assert_trees_equal(after.replace(**untouched), setup.state.replace(**untouched))


def test_statistics_rest_during_a_rollout_and_then_take_all_of_it(setup):
    """Were they to move on the way, undoing them as they were would not fit."""
    stats, seen = setup.state.obs_stats, setup.batch.stored.inputs.obs[0]
    raw = seen * jnp.sqrt(normalize.variance(stats))[None] + stats.mean[None]
    expected = normalize.update(stats, raw)
    assert_trees_close(setup.new_stats, expected, rtol=1e-4)
    new = normalize.num_samples(expected) - normalize.num_samples(stats)
    assert new == _num_samples(setup)


def _shifted(setup, shift):
    """As if the policy that acted had been another one: KL before any step."""
    log_prob = {k: v - shift for k, v in setup.batch.log_prob.items()}
    return setup.batch.replace(log_prob=log_prob)


def test_kl_is_measured_before_the_step_that_it_stops(setup):
    hypers = _RATE.replace(target_kl=0.01)
    after, metrics = setup.run(setup.state, _shifted(setup, 0.2), hypers)
    assert_trees_equal(after.params, setup.state.params)
    assert_trees_equal(after.opt_state, setup.state.opt_state)
    # The metrics of the minibatch that said so are there.
    assert float(metrics["update/minibatches"]) == 1.0
    assert float(metrics["update/epochs"]) == 1.0
    assert float(metrics["approx_kl/last"]) > 1.5 * 0.01
    assert float(metrics["approx_kl/last"]) == float(metrics["approx_kl/max"])
    assert math.isfinite(metrics["loss/policy"])
    assert math.isfinite(metrics["grad_norm"])


@pytest.mark.parametrize(("factor", "stops"), [(0.99, True), (1.01, False)])
def test_the_stop_is_at_one_and_a_half_times_the_target(setup, factor, stops):
    quiet = _RATE.replace(learning_rate=0.0)
    shifted = _shifted(setup, 0.1)
    _, metrics = setup.run(setup.state, shifted, quiet)
    lowest = float(metrics["approx_kl/max"]) / 1.5
    hypers = quiet.replace(target_kl=lowest * factor)
    _, metrics = setup.run(setup.state, shifted, hypers)
    assert (float(metrics["update/minibatches"]) < 8.0) == stops


def test_a_stop_keeps_the_steps_before_it_and_no_other(setup):
    """The first minibatch steps, the second sees how far that went, and ends it."""
    hypers = _RATE.replace(learning_rate=0.3, max_grad_norm=math.inf)
    after, metrics = setup.run(setup.state, setup.batch, hypers.replace(target_kl=1e-3))
    assert float(metrics["update/minibatches"]) == 2.0
    assert float(metrics["update/epochs"]) == 1.0
    # KL was 0 at the first, and the last, the mean and the largest tell them apart.
    last = float(metrics["approx_kl/last"])
    np.testing.assert_allclose(metrics["approx_kl/mean"], last / 2, rtol=1e-4)
    np.testing.assert_allclose(metrics["approx_kl/max"], last, rtol=1e-6)
    assert _counts(after.opt_state) == {"policy": 1, "critic": 1}
    # The same by another way: all other samples are poisoned, and so skipped.
    first = (
        jnp.zeros((_num_samples(setup),), bool).at[_first_minibatch(setup)].set(True)
    )
    poisoned = jnp.where(first[None], setup.batch.advantages, jnp.nan)
    one_step, metrics = setup.run(
        setup.state, setup.batch.replace(advantages=poisoned), hypers
    )
    assert float(metrics["update/nonfinite"]) == 7.0
    assert_trees_equal(after.params, one_step.params)
    assert_trees_equal(after.opt_state, one_step.opt_state)


def test_entropy_limit_stops_as_kl_does(setup):
    after, metrics = setup.run(
        setup.state, setup.batch, _RATE.replace(learning_rate=0.3, entropy_limit=1e-3)
    )
    assert float(metrics["update/minibatches"]) == 2.0
    assert _counts(after.opt_state)["policy"] == 1


def test_the_entropy_bonus_raises_entropy(setup):
    """With no advantages there is nothing else for the policy to follow."""
    batch = setup.batch.replace(advantages=jnp.zeros_like(setup.batch.advantages))
    still = _RATE.replace(learning_rate=0.0)
    entropies = []
    for coef in (-1.0, 0.0, 1.0):
        after, _ = setup.run(setup.state, batch, _RATE.replace(entropy_coef=coef))
        _, metrics = setup.run(after, batch, still)
        entropies.append(float(metrics["entropy"]))
    assert entropies[0] < entropies[1] - 0.01
    assert entropies[2] > entropies[1] + 0.01


def test_a_heads_own_entropy_bonus_raises_its_entropy_alone(setup):
    batch = setup.batch.replace(advantages=jnp.zeros_like(setup.batch.advantages))
    still = _RATE.replace(learning_rate=0.0)
    own = _RATE.replace(entropy_coef=0.0, head_entropy_coef={"op": 1.0})
    _, before = setup.run(setup.state, batch, still)
    after, metrics = setup.run(setup.state, batch, own)
    _, metrics = setup.run(after, batch, still)
    rise = {
        name: float(metrics[f"head/{name}/entropy"] - before[f"head/{name}/entropy"])
        for name in ("op", "slot", "aim", "cards")
    }
    assert rise["op"] > 0.01
    assert max(abs(rise[name]) for name in ("slot", "aim", "cards")) < rise["op"] / 2


@pytest.mark.parametrize("poison", [jnp.nan, jnp.inf])
def test_a_minibatch_that_is_not_finite_is_skipped_and_counted(setup, poison):
    one = setup.batch.advantages.at[0, 17].set(poison)
    after, metrics = setup.run(setup.state, setup.batch.replace(advantages=one), _RATE)
    # It falls into one minibatch of each epoch.
    assert float(metrics["update/nonfinite"]) == 2.0
    assert _counts(after.opt_state) == {"policy": 6, "critic": 6}
    for leaf in jax.tree.leaves((after.params, after.opt_state)):
        assert np.all(np.isfinite(leaf))


def test_an_update_of_nothing_but_nan_changes_nothing(setup):
    returns = jnp.full_like(setup.batch.returns, jnp.nan)
    after, metrics = setup.run(setup.state, setup.batch.replace(returns=returns), _RATE)
    assert_trees_equal(after.params, setup.state.params)
    assert_trees_equal(after.opt_state, setup.state.opt_state)
    assert float(metrics["update/nonfinite"]) == 8.0
    assert float(metrics["update/epochs"]) == 2.0


def test_while_the_critic_warms_up_the_policy_rests(setup):
    before = setup.state.replace(update_count=jnp.int32(0))
    after, metrics = setup.run(before, setup.batch, _RATE)
    for name, branch in before.params.critic.items():
        assert trees_differ(branch, after.params.critic[name])
    assert_trees_equal(before.params.policy, after.params.policy)
    assert_trees_equal(
        _adam(before.opt_state)["policy"], _adam(after.opt_state)["policy"]
    )
    assert _counts(after.opt_state) == {"policy": 0, "critic": 8}
    assert float(metrics["approx_kl/max"]) < 1e-6
    assert float(metrics["ratio/last_epoch_std"]) < 1e-5


def test_a_resting_policy_does_not_count_towards_the_norm(setup):
    """Else a large policy gradient would slow the critic down."""
    before = setup.state.replace(update_count=jnp.int32(0))
    loud = setup.batch.replace(advantages=1e4 * setup.batch.advantages)
    calm, _ = setup.run(before, setup.batch, _RATE)
    after, _ = setup.run(before, loud, _RATE)
    assert_trees_close(calm.params, after.params, rtol=1e-6)


def test_zero_learning_rate_is_degenerate_and_a_moving_policy_is_not(setup):
    for rate, flagged in ((0.0, True), (0.01, False)):
        hypers = _RATE.replace(learning_rate=rate)
        still, codes = jnp.int32(0), []
        for _ in range(STILL_UPDATES):
            _, metrics = setup.run(setup.state, setup.batch, hypers)
            still, code = _status(metrics, still)
            codes.append(code)
        assert [bool(code & UpdateStatus.DEGENERATE) for code in codes] == [
            *([False] * (STILL_UPDATES - 1)),
            flagged,
        ]
        assert not codes[-1] & UpdateStatus.RATIO


def _status(metrics, still):
    """The status of an update whose rate is that of the configuration."""
    summary = Summary(
        approx_kl=metrics["approx_kl/last"],
        head_entropy={},
        first_ratio_error=metrics["ratio/first_minibatch_error"],
        last_epoch_ratio_std=metrics["ratio/last_epoch_std"],
        num_nonfinite=metrics["update/nonfinite"],
        stopped=jnp.asarray(False),
        rate_factor=jnp.float32(1.0),
        logged={},
    )
    still = count_still(still, summary, jnp.asarray(True))
    zero, no = jnp.zeros(()), jnp.zeros((), bool)
    return still, UpdateStatus(int(update_status(summary, still, zero, zero, no)))


def test_heads_count_their_samples_and_report_nothing_where_they_have_none(setup):
    _, metrics = setup.run(setup.state, setup.batch, _RATE)
    terms = setup.learner.task.policy.log_prob(setup.state.params, setup.batch.stored)
    for name, active in terms.active.items():
        num = int(np.sum(active))
        assert 0 < num < _num_samples(setup)
        # The mean over minibatches of their counts.
        np.testing.assert_allclose(metrics[f"head/{name}/valid"], num / 4, rtol=1e-6)
        assert float(metrics[f"head/{name}/approx_kl"]) > 0.0
        assert float(metrics[f"head/{name}/grad_norm"]) > 0.0


def _with_active(batch, **active):
    inputs = batch.stored.inputs
    inputs = inputs.replace(active={**inputs.active, **active})
    return batch.replace(stored=batch.stored.replace(inputs=inputs))


def test_a_head_that_is_never_active_is_not_trained_nor_flattered(setup):
    none = jnp.zeros_like(setup.batch.stored.inputs.active["cards"])
    log_prob = {**setup.batch.log_prob, "cards": jnp.zeros_like(setup.batch.entropy)}
    batch = _with_active(setup.batch, cards=none).replace(log_prob=log_prob)
    after, metrics = setup.run(setup.state, batch, _RATE)
    for figure in ("approx_kl", "entropy", "clip_frac"):
        assert math.isnan(metrics[f"head/cards/{figure}"])
    assert float(metrics["head/cards/valid"]) == 0.0
    assert math.isnan(metrics["head/cards/grad_norm"])
    old, new = setup.state.params.policy, after.params.policy
    assert_trees_equal(new["outputs_cards"], old["outputs_cards"])
    assert trees_differ(new["outputs_op"], old["outputs_op"])


def test_minibatches_without_a_valid_sample_do_no_harm(setup):
    """All but a few samples are of steps where no head mattered."""
    some = jnp.zeros_like(setup.batch.entropy, bool).at[0, :2].set(True)
    batch = _with_active(setup.batch, op=some, aim=some, cards=some)
    terms = setup.learner.task.policy.log_prob(setup.state.params, batch.stored)
    batch = batch.replace(log_prob=terms.log_prob, entropy=terms.joint_entropy())
    after, metrics = setup.run(setup.state, batch, _RATE)
    assert float(metrics["update/nonfinite"]) == 0.0
    assert float(metrics["update/minibatches"]) == 8.0
    names = ["approx_kl/last", "approx_kl/max", "entropy", "ratio/last_epoch_std"]
    for name in [*names, "ratio/first_minibatch_error", "loss/policy"]:
        assert math.isfinite(metrics[name]), name
    for leaf in jax.tree.leaves(after.params):
        assert np.all(np.isfinite(leaf))


def test_ratio_figures_by_hand(setup):
    """Old log-probs shifted so that ρ is known, and a rate of 0 keeps it so."""
    heads = setup.batch.log_prob
    active = setup.learner.task.policy.log_prob(
        setup.state.params, setup.batch.stored
    ).active
    valid = np.any(np.stack(list(active.values())), axis=0)[0]
    ratio = np.resize([6.0, 0.05, 0.5], _num_samples(setup))
    shifted = {
        **heads,
        "op": heads["op"] - jnp.log(jnp.asarray(ratio[None], jnp.float32)),
    }
    batch = setup.batch.replace(log_prob=shifted)
    _, metrics = setup.run(setup.state, batch, _RATE.replace(learning_rate=0.0))
    ratio = ratio[valid]
    np.testing.assert_allclose(metrics["ratio/max"], 6.0, rtol=1e-4)
    np.testing.assert_allclose(metrics["ratio/min"], 0.05, rtol=1e-3)
    np.testing.assert_allclose(metrics["ratio/exploded"], 2 * np.sum(ratio > 5))
    np.testing.assert_allclose(metrics["ratio/collapsed"], 2 * np.sum(ratio < 0.1))
    np.testing.assert_allclose(metrics["ratio/first_minibatch_error"], 5.0, rtol=1e-4)
    np.testing.assert_allclose(metrics["clip_frac"], 1.0)
    # Means of means: minibatches do not hold equally many valid samples.
    np.testing.assert_allclose(metrics["ratio/mean"], ratio.mean(), rtol=0.1)
    np.testing.assert_allclose(metrics["ratio/std"], ratio.std(), rtol=0.1)


# --- accumulation ----------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(setup):
    """One step an epoch, on gradients summed over four minibatches."""
    given = (setup.state, setup.batch)
    return _setup(given, num_epochs=1, accumulate_gradients=True)


def test_accumulated_minibatches_are_one_large_batch(setup, parts):
    """With heads that are active in some samples only, so in unequal numbers."""
    given = (setup.state, setup.batch)
    whole = _setup(given, num_epochs=1, num_minibatches=1)
    after_parts, metrics = parts.run(*given, _RATE)
    after_whole, expected = whole.run(*given, _RATE)
    assert _counts(after_parts.opt_state) == {"policy": 1, "critic": 1}
    # Adam's moments are linear in the gradient; its step is all but the sign of it.
    for name in ("policy", "critic"):
        assert_trees_close(
            _adam(after_parts.opt_state)[name].mu,
            _adam(after_whole.opt_state)[name].mu,
            rtol=1e-3,
            atol=1e-7,
        )
    for name in ("grad_norm", "loss/policy", "loss/value", "loss/total"):
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-4)
    # The statistics of each minibatch, and one stop for all of them.
    assert float(metrics["update/minibatches"]) == 4.0
    hypers = _RATE.replace(target_kl=0.01)
    after, metrics = parts.run(setup.state, _shifted(setup, 0.2), hypers)
    assert_trees_equal(after.params, setup.state.params)
    assert float(metrics["approx_kl/last"]) > 0.015
    # Where one minibatch has no valid sample, the KL of the others still counts.
    some = jnp.zeros_like(setup.batch.entropy, bool).at[0, :2].set(True)
    batch = _with_active(_shifted(setup, 0.5), op=some, aim=some, cards=some)
    after, metrics = parts.run(setup.state, batch, hypers)
    assert_trees_equal(after.params, setup.state.params)


def test_an_accumulated_step_that_is_not_finite_is_counted_once(setup, parts):
    """One step an epoch, however many minibatches its gradient is summed over."""
    returns = jnp.full_like(setup.batch.returns, jnp.nan)
    batch = setup.batch.replace(returns=returns)
    after, metrics = parts.run(setup.state, batch, _RATE)
    assert float(metrics["update/nonfinite"]) == 1.0
    assert_trees_equal(after.params, setup.state.params)


def _whole(**changes):
    """A configuration in which the batch is one minibatch."""
    return small_config(num_steps=16, num_minibatches=1, **changes)


def _measure(setup, batch, config, axis_name=None, hypers=_RATE):
    """What that batch measures as one minibatch."""
    task, params = setup.learner.task, setup.state.params
    task = task._replace(config=config, axis_name=axis_name)
    hypers = as_arrays(hypers)
    coefs = coefficients(task, setup.state, hypers)
    num_valid = average_num_valid(task, params, batch)
    own = minibatch_loss(params, task, batch, num_valid, coefs, hypers)[1]
    _, measures = over_devices({}, own, axis_name)
    return measures.replace(largest=reduce.tree_max(own.largest, axis_name))


def test_the_entropy_of_a_rare_head_is_averaged_over_all_valid_samples(setup):
    """One denominator for all heads: a rare head is not pushed harder than others."""
    some = jnp.zeros_like(setup.batch.entropy, bool).at[0, :2].set(True)
    batch = _with_active(setup.batch, cards=some)

    @jax.jit
    def loss(coef):
        hypers = _RATE.replace(entropy_coef=0.0, head_entropy_coef={"cards": coef})
        return _measure(setup, batch, _whole(), hypers=hypers).loss

    bonus = float(loss(0.0) - loss(3.0))
    terms = setup.learner.task.policy.log_prob(setup.state.params, batch.stored)
    assert int(terms.active["cards"].sum()) == 2
    valid = jnp.any(jnp.stack(list(terms.active.values())), axis=0)
    # By hand: the entropies of the two picks, over the samples of the joint policy.
    expected = 3.0 * float(terms.entropy["cards"].sum()) / int(valid.sum())
    assert int(valid.sum()) > 32
    np.testing.assert_allclose(bonus, expected, rtol=1e-4)


def _named(measures):
    leaves = jax.tree_util.tree_leaves_with_path(measures)
    return {jax.tree_util.keystr(path): x for path, x in leaves}


def test_over_a_named_axis_the_loss_is_that_of_the_whole(setup):
    """Each half on a "device" of its own: loss and figures are shared."""
    # Off the origin, so that a reduction that stays on its device shows.
    batch = setup.batch.replace(returns=setup.batch.returns + jnp.arange(128.0)[None])
    whole = jax.jit(lambda b: _measure(setup, b, _whole()))(batch)
    halves = jax.tree.map(lambda x: jnp.stack(jnp.split(x, 2, axis=1)), batch)
    sharded = jax.jit(
        jax.vmap(
            lambda half: _measure(setup, half, _whole(), "devices"),
            axis_name="devices",
        )
    )(halves)
    sharded = _named(sharded)
    for name, value in _named(whole).items():
        np.testing.assert_allclose(
            sharded[name], np.full(2, value), rtol=1e-4, atol=1e-6, err_msg=name
        )


def test_advantages_normalised_in_a_minibatch_have_no_scale_nor_origin(setup):
    """They are normalised over the batch already, and here that is the minibatch."""
    config = _whole(normalize_advantages="minibatch")
    moved = setup.batch.replace(advantages=7.0 + 1e3 * setup.batch.advantages)
    here = jax.jit(lambda b: _measure(setup, b, _whole()))(setup.batch)
    there = jax.jit(lambda b: _measure(setup, b, config))(moved)
    there = _named(there)
    for name, value in _named(here).items():
        np.testing.assert_allclose(
            there[name], value, rtol=1e-3, atol=1e-5, err_msg=name
        )


# --- coefficients ----------------------------------------------------------------


def _coefficients(update_count, hypers, **changes):
    config = small_config(**changes)
    adaptive = init_adaptive(["op", "slot"])

    class _State(NamedTuple):
        update_count: Any
        adaptive: Any

    state = _State(jnp.int32(update_count), adaptive)
    return coefficients(Task(None, None, config), state, as_arrays(hypers))


def test_coefficients_follow_their_own_schedules():
    """Half-way through ten updates."""
    hypers = Hypers(
        learning_rate=0.2,
        learning_rate_final=0.5,
        entropy_coef=0.4,
        entropy_coef_final=0.0,
        kl_coef=1.0,
        kl_coef_final=3.0,
    )
    coefs = _coefficients(
        5,
        hypers,
        learning_rate_schedule="linear",
        entropy_schedule="cosine",
        kl_schedule="linear",
    )
    np.testing.assert_allclose(coefs.learning_rate, 0.15, rtol=1e-5)
    np.testing.assert_allclose(coefs.entropy["op"], 0.2, rtol=1e-5)
    np.testing.assert_allclose(coefs.kl, 2.0, rtol=1e-5)


def test_each_head_has_its_own_entropy_coefficient_and_schedule():
    """Half-way; what a head does not have of its own is that of all heads."""
    hypers = Hypers(
        entropy_coef=0.4,
        entropy_coef_final=0.5,
        head_entropy_coef={"slot": 0.1},
        head_entropy_coef_final={"op": 0.0},
    )
    coefs = _coefficients(5, hypers, entropy_schedule="linear")
    np.testing.assert_allclose(coefs.entropy["op"], 0.4 * 0.5, rtol=1e-5)
    np.testing.assert_allclose(coefs.entropy["slot"], 0.1 * 0.75, rtol=1e-5)


def test_learning_rate_rises_once_the_policy_learns():
    """Two updates of the critic's warm-up, then thirds of the rate."""
    rates = [
        float(
            _coefficients(
                count,
                Hypers(learning_rate=0.3),
                critic_warmup=2,
                learning_rate_warmup=2,
            ).learning_rate
        )
        for count in range(6)
    ]
    np.testing.assert_allclose(rates, [0.3, 0.3, 0.1, 0.2, 0.3, 0.3], rtol=1e-5)
    plain = _coefficients(0, Hypers(learning_rate=0.3))
    np.testing.assert_allclose(plain.learning_rate, 0.3, rtol=1e-6)


def test_adaptive_coefficients_wait_while_the_policy_rests(setup):
    """KL is 0 in the critic's warm-up: no reason to raise the learning rate."""
    hypers = _RATE.replace(target_kl=0.01, entropy_floor=100.0)
    scales = []
    for count in (0, 1):
        before = setup.state.replace(update_count=jnp.int32(count))
        after, _ = setup.run(before, setup.batch, hypers)
        scales.append(jax.tree.leaves(after.adaptive.entropy_scale))
    np.testing.assert_allclose(scales[0], [1.0] * 4, rtol=1e-6)
    np.testing.assert_allclose(scales[1], [1.1] * 4, rtol=1e-6)


def test_one_optimiser_step_cannot_be_degenerate():
    """The ratio is measured before that step, so it is 1 by right."""
    assert _steps_per_update(small_config(num_epochs=1, num_minibatches=1)) == 1
    one = small_config(num_epochs=1, num_minibatches=4, accumulate_gradients=True)
    assert _steps_per_update(one) == 1
    assert _steps_per_update(small_config(num_epochs=2, num_minibatches=4)) == 8
