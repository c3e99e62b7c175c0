"""The ratio contract: what the rollout stored can be re-evaluated by the loss.

Over every kind of policy, with masks that change, episodes that end inside windows,
and all normalisers on; then with the contract broken on purpose, one way at a time.
"""

import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config
from probe_envs import HeadsProbe

from purejaxppo.policy.policy import Params, make_policy
from purejaxppo.ppo import learner as learner_lib
from purejaxppo.ppo import losses, normalize
from purejaxppo.ppo import update as update_lib
from purejaxppo.ppo.batch import as_sequences, make_batch
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.rollout import rollout
from purejaxppo.ppo.status import (
    MAX_FIRST_RATIO_ERROR,
    STILL_UPDATES,
    UpdateStatus,
)
from purejaxppo.ppo.types import Initial
from purejaxppo.ppo.update import as_arrays

_ALL = HeadsProbe()
_AIM, _OP = HeadsProbe(("aim",)), HeadsProbe(("op", "slot"))
_CARDS, _SWITCHES = HeadsProbe(("cards",)), HeadsProbe(("switches",))

# Name -> environment and configuration. Every distribution, head and core is in one.
_KINDS = {
    "all heads": (
        HeadsProbe(privileged=True),
        {"accumulate_gradients": True, "critic_warmup": 2, "normalize_entropy": True},
    ),
    "all heads, normal, lstm": (
        _ALL,
        {
            "distribution": "normal",
            "core": "lstm",
            "sequence_length": 4,
            "reset": "cached",
            "normalize_advantages": "minibatch",
        },
    ),
    "all heads, tanh normal, gru": (
        _ALL,
        {
            "distribution": "tanh_normal",
            "core": "gru",
            "sequence_length": 2,
            "shared_trunk": True,
            "reset": "fresh",
        },
    ),
    "distrax beta": (_AIM, {"distribution": "custom_distributions:beta"}),
    "distrax through a bijector, lstm": (
        _AIM,
        {
            "distribution": "custom_distributions:tanh_normal",
            "entropy_coef": 0.0,
            "core": "lstm",
            "sequence_length": 4,
        },
    ),
    "distrax head of switches": (_SWITCHES, {}),
}


def _config(**changes):
    defaults = {
        "num_steps": 8,
        "normalize_observations": "running",
        "normalize_rewards": True,
        "learning_rate": 0.01,
        "entropy_coef": 0.01,
    }
    return small_config(**{**defaults, **changes})


def _with_scaled_outputs(params, factor):
    policy = {
        name: jax.tree.map(lambda x: factor * x, branch)
        if "outputs" in name
        else branch
        for name, branch in params.policy.items()
    }
    return params.replace(policy=policy)


def _loud(params):
    """At the output gain of 0.01 all log-probs are alike, and faults hardly show."""
    return _with_scaled_outputs(params, 30.0)


def _noting_the_carry(task, state, transitions, critic_carry, hypers):
    """`make_batch`, and whether the critic goes on where the rollout began."""
    batch, state, metrics = make_batch(task, state, transitions, critic_carry, hypers)
    stored = jax.tree.map(lambda x: x[0], transitions.stored.carry["critic"])
    pairs = zip(jax.tree.leaves(critic_carry), jax.tree.leaves(stored), strict=True)
    metrics["carry/error"] = sum(jnp.max(jnp.abs(a - b)) for a, b in pairs)
    metrics["carry/size"] = sum(jnp.max(jnp.abs(x)) for x in jax.tree.leaves(stored))
    return batch, state, metrics


@pytest.mark.parametrize("kind", _KINDS)
def test_first_ratio_is_one_in_every_update(kind, monkeypatch):
    monkeypatch.setattr(update_lib, "make_batch", _noting_the_carry)
    env, changes = _KINDS[kind]
    config = _config(**changes)
    learner = make_learner(config, env)
    state, _ = jax.jit(learner.init)(jax.random.key(0))
    state = state.replace(params=_loud(state.params))
    update = jax.jit(learner.update)
    for count in range(4):
        state, metrics = update(state, as_arrays(config.hypers))
        assert float(metrics["ratio/first_minibatch_error"]) < MAX_FIRST_RATIO_ERROR
        # While the critic warms up the ratio is 1 by right, and so no fault.
        assert int(metrics["status"]) == UpdateStatus.OK
        moved = float(metrics["ratio/last_epoch_std"]) > 1e-3
        assert moved == (count >= config.critic_warmup)
    # Normalisers moved, and episodes did end inside the windows.
    # Observations of one rollout more: that of `init`.
    assert normalize.num_samples(state.obs_stats) == 5 * config.batch_size
    assert normalize.num_samples(state.return_stats) == 4 * config.batch_size
    assert float(metrics["train/episodes"]) > 3
    # The critic's recurrent state spans rollouts.
    assert float(metrics["carry/error"]) == 0.0
    assert (float(metrics["carry/size"]) > 0.0) == (config.core != "none")
    # Without a step that moves it, a ratio of 1 says that something is broken.
    still = as_arrays(config.hypers.replace(learning_rate=0.0))
    codes = []
    for _ in range(STILL_UPDATES):
        state, metrics = update(state, still)
        codes.append(int(metrics["status"]))
        assert float(metrics["ratio/first_minibatch_error"]) < MAX_FIRST_RATIO_ERROR
    ok = [UpdateStatus.OK] * (STILL_UPDATES - 1)
    assert codes == [*ok, UpdateStatus.DEGENERATE]
    # And one that does says that it is mended.
    state, metrics = update(state, as_arrays(config.hypers))
    assert int(metrics["status"]) == UpdateStatus.OK


# The environments themselves, short episodes where they can be had.
_ENVIRONMENTS = {
    "hammer": {"env_kwargs": {"max_episode_steps": 5}},
    "scheduler": {"env_kwargs": {"num_jobs": 4, "num_slots": 3}},
    "lifecycle": {"env_kwargs": {"num_slots": 2}, "num_steps": 32},
    "deck": {"reset": "fresh", "num_steps": 32},
}
_POLICIES = {
    "feed-forward": {},
    "lstm": {"core": "lstm"},
    "gru": {"core": "gru", "sequence_length": 8, "shared_trunk": True},
}
# Each environment once, and each core: the kinds above try all heads with all cores.
_PAIRS = [
    *(("hammer", "feed-forward"), ("scheduler", "feed-forward")),
    *(("lifecycle", "gru"), ("deck", "lstm")),
]


@pytest.mark.parametrize(("name", "policy"), _PAIRS)
def test_first_ratio_is_one_in_the_environments(name, policy):
    config = _config(
        env=name,
        **{"num_steps": 16, **_ENVIRONMENTS[name], **_POLICIES[policy]},
    )
    learner = make_learner(config)
    state, _ = jax.jit(learner.init)(jax.random.key(0))
    state = state.replace(params=_loud(state.params))
    update = jax.jit(learner.update)
    ended = 0.0
    for _ in range(3):
        state, metrics = update(state, as_arrays(config.hypers))
        assert float(metrics["ratio/first_minibatch_error"]) < MAX_FIRST_RATIO_ERROR
        assert float(metrics["ratio/last_epoch_std"]) > 1e-3
        assert int(metrics["status"]) == UpdateStatus.OK
        ended += float(metrics["train/episodes"])
    assert ended > 8
    assert normalize.num_samples(state.obs_stats) == 4 * config.batch_size


@pytest.fixture(scope="module")
def cards():
    """The first state over cards, the same in all configurations that follow."""
    learner = make_learner(_config(), _CARDS)
    return jax.jit(learner.init)(jax.random.key(0))[0]


def test_a_single_optimiser_step_is_not_degenerate(cards):
    """The ratio is measured before it, so it is 1 by right."""
    config = _config(num_epochs=1, num_minibatches=1)
    learner = make_learner(config, _CARDS)
    _, metrics = jax.jit(learner.update)(cards, as_arrays(config.hypers))
    assert float(metrics["ratio/last_epoch_std"]) < 1e-4
    assert int(metrics["status"]) == UpdateStatus.OK


# 1,000 updates, so that the last of them have all but no rate.
_DECAYING = {
    "learning_rate_schedule": "linear",
    "learning_rate_final": 0.0,
    "total_timesteps": 64 * 1000,
}


def _codes_from(update, state, hypers, first, num=STILL_UPDATES):
    """Status and ratio/last_epoch_std of the updates from that number on."""
    state = state.replace(update_count=jnp.int32(first))
    found = []
    for _ in range(num):
        state, metrics = update(state, hypers)
        found.append((int(metrics["status"]), float(metrics["ratio/last_epoch_std"])))
    return found


def test_a_rate_that_decays_to_nothing_is_no_fault(cards):
    config = _config(**_DECAYING, learning_rate=1e-4)
    learner = make_learner(config, _CARDS)
    update, hypers = jax.jit(learner.update), as_arrays(config.hypers)
    for first in (960, 1000 - STILL_UPDATES):
        codes, stds = zip(*_codes_from(update, cards, hypers, first), strict=True)
        assert set(codes) == {UpdateStatus.OK}
        assert 0.0 < stds[-1] < 1e-4


def test_dead_gradients_are_found_within_three_updates(cards, monkeypatch):
    """Also where the rate has decayed to a twenty-fifth."""

    def dead(heads, config):
        policy = make_policy(heads, config)

        def log_prob(params, stored):
            return policy.log_prob(jax.lax.stop_gradient(params), stored)

        return policy._replace(log_prob=log_prob)

    monkeypatch.setattr(learner_lib, "make_policy", dead)
    config = _config(**_DECAYING)
    learner = make_learner(config, _CARDS)
    update, hypers = jax.jit(learner.update), as_arrays(config.hypers)
    for first in (0, 960):
        codes = [code for code, _ in _codes_from(update, cards, hypers, first)]
        assert codes[-1] == UpdateStatus.DEGENERATE


# --- the contract, broken --------------------------------------------------------


class _Fault(NamedTuple):
    """What goes wrong while actions are sampled, or on the way into the batch."""

    sample: Any = None  # policy -> its faulty `sample`
    batch: Any = None  # (transitions, old statistics, new ones) -> faulty transitions


def _first_errors(env, config, faults):
    """Largest |ρ - 1| of rollouts re-evaluated with the parameters that acted.

    All faults in one program, per fault and head, so that each fault has a name.
    """
    learner = make_learner(config, env)

    def run(key):
        key_init, key_rollout = jax.random.split(key)
        raw = 100.0 + 20.0 * jax.random.normal(key_init, (50, 4))
        obs_stats = normalize.update(normalize.init(raw[0]), raw)
        # With statistics that are given, `init` has no rollout of its own.
        given = Initial(Params(critic=None, policy=None), obs_stats, None)
        state, _ = learner.init(key_init, initial=given)
        state = state.replace(params=_loud(state.params))
        critic_carry = state.carry["critic"]

        @functools.cache
        def play(corrupt):
            policy = learner.task.policy
            if corrupt is not None:
                policy = policy._replace(sample=corrupt(policy))
            task = learner.task._replace(policy=policy)
            return task, rollout(task, state, None, key_rollout)

        errors = {}
        for name, fault in faults.items():
            task, (after, transitions, _, new_stats) = play(fault.sample)
            if fault.batch is not None:
                transitions = fault.batch(transitions, obs_stats, new_stats)
            batch, _, _ = make_batch(
                task, after, transitions, critic_carry, config.hypers
            )
            terms = learner.task.policy.log_prob(state.params, batch.stored)
            errors[name] = {
                head: jnp.max(jnp.abs(jnp.expm1(terms.log_prob[head] - old)))
                for head, old in batch.log_prob.items()
            }
        return errors

    return jax.tree.map(float, jax.jit(run)(jax.random.key(0)))


def _after_sampling(change):
    """A `sample` whose results go through `change(action, stored, terms, carry)`."""

    def corrupt(policy):
        return lambda *args: change(*policy.sample(*args))

    return corrupt


def _carry_after_the_step(action, stored, terms, carry):
    return action, stored.replace(carry=carry), terms, carry


def _clipped_after_sampling(action, stored, terms, carry):
    clipped = {name: jnp.clip(x, -0.5, 0.5) for name, x in action.items()}
    return clipped, stored.replace(action=clipped), terms, carry


def _flipped_after_sampling(action, stored, terms, carry):
    flipped = {"switches": 1 - action["switches"]}
    return flipped, stored.replace(action=flipped), terms, carry


def _choice_counted_as_a_set(action, stored, terms, carry):
    """Something that sampling knew, log 2! here, and that the order does not say."""
    log_prob = {**terms.log_prob, "cards": terms.log_prob["cards"] + math.log(2.0)}
    log_prob["cards"] = jnp.where(terms.active["cards"], log_prob["cards"], 0.0)
    return action, stored, terms.replace(log_prob=log_prob), carry


def _with_temperature(policy):
    def sample(params, inputs, carry, noise):
        cooled = _with_scaled_outputs(params, 1 / 0.9)
        return policy.sample(cooled, inputs, carry, noise)

    return sample


def _mask_of_the_previous_step(transitions, old_stats, new_stats):
    del old_stats, new_stats
    stored = transitions.stored
    stale = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), stored.inputs.action_mask)
    inputs = stored.inputs.replace(action_mask=stale)
    return transitions.replace(stored=stored.replace(inputs=inputs))


def _start_of_the_previous_step(transitions, old_stats, new_stats):
    """Off by one, as where `done` of a step is stored for `start` of the next."""
    del old_stats, new_stats
    stored = transitions.stored
    late = jnp.roll(stored.inputs.start, 1, axis=0)
    inputs = stored.inputs.replace(start=late)
    return transitions.replace(stored=stored.replace(inputs=inputs))


def _normaliser_updated_before_the_update(transitions, old_stats, new_stats):
    stored = transitions.stored
    std = jnp.sqrt(normalize.variance(old_stats))
    raw = stored.inputs.obs * std[None, None] + old_stats.mean[None, None]
    inputs = stored.inputs.replace(obs=normalize.apply(new_stats, raw))
    return transitions.replace(stored=stored.replace(inputs=inputs))


_LSTM = {"core": "lstm", "sequence_length": 4}
# Environment, configuration, what is broken there, and the heads that must show it.
_FAULTS = (
    (
        _OP,
        _LSTM,
        {
            "mask of the previous step": _Fault(batch=_mask_of_the_previous_step),
            "episode starts a step late": _Fault(batch=_start_of_the_previous_step),
            "carry after the step": _Fault(_after_sampling(_carry_after_the_step)),
        },
        {"op", "slot"},
    ),
    (
        _CARDS,
        {},
        {
            "normaliser updated first": _Fault(
                batch=_normaliser_updated_before_the_update
            ),
            "temperature": _Fault(_with_temperature),
        },
        {"cards"},
    ),
    (
        _AIM,
        {"distribution": "normal"},
        {"clipped after sampling": _Fault(_after_sampling(_clipped_after_sampling))},
        {"aim"},
    ),
    (
        _AIM,
        {"distribution": "custom_distributions:beta"},
        {
            "distrax beta clipped after sampling": _Fault(
                _after_sampling(_clipped_after_sampling)
            )
        },
        {"aim"},
    ),
    (
        _SWITCHES,
        {},
        {
            "distrax switches flipped after sampling": _Fault(
                _after_sampling(_flipped_after_sampling)
            )
        },
        {"switches"},
    ),
    (
        HeadsProbe(("op", "cards")),
        {},
        {"choice counted as a set": _Fault(_after_sampling(_choice_counted_as_a_set))},
        {"cards"},
    ),
)


@pytest.mark.parametrize(
    ("env", "changes", "faults", "heads"),
    _FAULTS,
    ids=["/".join(x[2]) for x in _FAULTS],
)
def test_each_fault_trips_the_check_in_its_own_head(env, changes, faults, heads):
    errors = _first_errors(env, _config(reset="fresh", **changes), faults)
    tripped = {
        fault: {head for head, error in found.items() if error > MAX_FIRST_RATIO_ERROR}
        for fault, found in errors.items()
    }
    assert tripped == dict.fromkeys(faults, heads)


def test_the_sound_policy_does_not_trip_it():
    """The same road as the faults take, with a core and without a fault."""
    errors = _first_errors(_ALL, _config(reset="fresh", **_LSTM), {"none": _Fault()})
    assert max(errors["none"].values()) < MAX_FIRST_RATIO_ERROR


def test_a_fault_reaches_the_status_of_the_update(cards, monkeypatch):
    def faulty(heads, config):
        policy = make_policy(heads, config)
        corrupt = _after_sampling(_choice_counted_as_a_set)
        return policy._replace(sample=corrupt(policy))

    monkeypatch.setattr(learner_lib, "make_policy", faulty)
    config = _config()
    learner = make_learner(config, _CARDS)
    _, metrics = jax.jit(learner.update)(cards, as_arrays(config.hypers))
    np.testing.assert_allclose(metrics["ratio/first_minibatch_error"], 0.5, rtol=1e-4)
    assert UpdateStatus(int(metrics["status"])) & UpdateStatus.RATIO


def test_the_policy_loss_at_a_ratio_of_one_is_minus_the_mean_advantage():
    """Why the first minibatch must be exact: there the gradient is the true one."""
    advantages = jax.random.normal(jax.random.key(0), (50,))
    loss, grad = jax.value_and_grad(
        lambda x: jnp.mean(losses.policy_loss(x, advantages, 0.2))
    )(jnp.zeros((50,)))
    np.testing.assert_allclose(loss, -jnp.mean(advantages), rtol=1e-5)
    np.testing.assert_allclose(grad, -advantages / 50, rtol=1e-5)


def test_windows_of_a_recurrent_policy_need_contiguous_steps(monkeypatch):
    """The strided reshape of Stoix's recurrent PPO, planted."""

    def strided(batch, length):
        reshaped = jax.tree.map(lambda x: x.reshape((length, -1, *x.shape[2:])), batch)
        first = jax.tree.map(lambda x: x[0], reshaped.stored.carry)
        return reshaped.replace(stored=reshaped.stored.replace(carry=first))

    config = _config(reset="fresh", **_LSTM)
    assert dataclasses.replace(config).window == 4
    monkeypatch.setattr("purejaxppo.ppo.batch.as_sequences", strided)
    errors = _first_errors(_CARDS, config, {"strided": _Fault()})
    assert errors["strided"]["cards"] > MAX_FIRST_RATIO_ERROR
    assert as_sequences is not strided
