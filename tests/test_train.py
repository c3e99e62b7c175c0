"""One jitted function, ten chunks, a batch of seeds and hyperparameters: one training.

test_resume compares bits of programs that are compiled as users compile them.
"""

import dataclasses

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
from probe_envs import HeadsProbe, Probe

from purejaxppo.config import Hypers
from purejaxppo.ppo.learner import make_learner, make_train
from purejaxppo.ppo.update import as_arrays, run_updates

_ENV = Probe("both", continuous=True)
# Ten updates: one, then three times three, each with an evaluation behind it.
_CONFIG = small_config(num_evals=3, normalize_rewards=True, learning_rate=0.01)


class _Counted:
    """A function and how often it was traced."""

    def __init__(self, function):
        self.function, self.traces = function, 0
        self.__name__ = "counted"

    def __call__(self, *args):
        self.traces += 1
        return self.function(*args)


@pytest.fixture(scope="module")
def single():
    counted = _Counted(make_train(_CONFIG, _ENV))
    return jax.jit(counted), counted


@pytest.fixture(scope="module")
def hypers():
    return as_arrays(_CONFIG.hypers)


@pytest.fixture(scope="module")
def start(hypers):
    """The learner, and the state that it begins with."""
    learner = make_learner(_CONFIG, _ENV)
    state, _ = jax.jit(learner.init)(jax.random.key(0), hypers)
    return learner, state


def test_one_call_is_ten_chunks_to_the_bit(single, hypers, start):
    train, _ = single
    whole, metrics = train(jax.random.key(0), hypers)
    learner, state = start
    chunk = jax.jit(lambda state, hypers: run_updates(learner.task, state, hypers, 1))
    evaluate = jax.jit(learner.evaluate)
    chunks, evaluations = [], []
    for count in range(1, _CONFIG.num_updates + 1):
        key = state.key
        state, part = chunk(state, hypers)
        assert trees_differ(key, state.key)
        chunks.append(part)
        if count in _CONFIG.eval_points:
            evaluations.append(evaluate(state))
    assert_trees_equal(whole, state)
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *chunks)
    joined |= jax.tree.map(lambda *x: jnp.stack(x), *evaluations)
    assert_trees_equal(metrics, joined)
    # The state that goes in is of the type that comes out: nothing compiles twice.
    assert chunk._cache_size() == 1


def test_it_did_train(single, hypers, start):
    """Else any two trainings would be equal."""
    train, _ = single
    state, metrics = train(jax.random.key(0), hypers)
    assert trees_differ(start[1].params, state.params)
    assert int(state.update_count) == _CONFIG.num_updates == 10
    assert metrics["loss/policy"].shape == (10,)
    assert metrics["eval/mean_return"].shape == (3,)
    other, _ = train(jax.random.key(1), hypers)
    assert trees_differ(other.params, state.params)


def test_a_second_call_compiles_nothing(single, hypers):
    train, counted = single
    train(jax.random.key(0), hypers)
    traces, compiled = counted.traces, train._cache_size()
    train(jax.random.key(3), hypers)
    train(jax.random.key(0), hypers.replace(gamma=jnp.float32(0.5)))
    assert (counted.traces, train._cache_size()) == (traces, compiled)


def test_vmap_over_keys_and_hyperparameters_is_each_by_itself(single, hypers):
    """Sums run in another order in a batch: equal to a few units in the last place
    at each step, which ten updates amplify."""
    train, _ = single
    members = [
        (0, {}),
        (1, {}),
        (0, {"learning_rate": 0.003}),
        (0, {"clip_eps": 0.05}),
        (0, {"entropy_coef": 0.1, "gamma": 0.3}),
    ]
    keys = jnp.stack([jax.random.key(seed) for seed, _ in members])
    each = [as_arrays(_CONFIG.hypers.replace(**changes)) for _, changes in members]
    together = jax.tree.map(lambda *x: jnp.stack(x), *each)
    states, metrics = jax.jit(jax.vmap(make_train(_CONFIG, _ENV)))(keys, together)
    for index in range(len(members)):
        state, alone = train(keys[index], each[index])
        assert_trees_close(
            jax.tree.map(lambda x, index=index: x[index], states.params),
            state.params,
            rtol=1e-3,
            atol=1e-4,
        )
        for name in ("loss/value", "eval/mean_return", "update/learning_rate"):
            np.testing.assert_allclose(
                metrics[name][index], alone[name], rtol=1e-2, atol=1e-3
            )
    # And they are five different trainings.
    for index in range(1, len(members)):
        first, other = (
            jax.tree.map(lambda x, i=i: x[i], states.params) for i in (0, index)
        )
        assert trees_differ(first, other)


def test_hyperparameters_are_not_constants_of_the_program(single):
    """Every leaf that has a say must be traced: another value, another result."""
    train, counted = single
    before = counted.traces
    base, _ = train(jax.random.key(0), as_arrays(_CONFIG.hypers))
    changes = {
        "gae_lambda": 0.5,
        "value_coef": 5.0,
        "value_clip": 0.01,
        "dual_clip": 1.0,
        "max_grad_norm": 0.01,
        "adam_eps": 0.1,
        "critic_weight_decay": 0.9,
        "target_kl": 1e-6,
    }
    for name, value in changes.items():
        changed = as_arrays(_CONFIG.hypers.replace(**{name: value}))
        state, _ = train(jax.random.key(0), changed)
        # One-step episodes have nothing for λ to weigh.
        assert trees_differ(state.params, base.params) == (name != "gae_lambda"), name
    assert counted.traces - before <= 1


def test_metrics_do_not_grow_with_the_rollout():
    """Reduced where they arise: a number per update, whatever T and N are."""
    shapes = []
    for num_envs, num_steps in ((8, 8), (64, 32)):
        config = dataclasses.replace(
            _CONFIG,
            num_envs=num_envs,
            num_steps=num_steps,
            total_timesteps=num_envs * num_steps * 10,
        )
        train = make_train(config, HeadsProbe())
        _, metrics = jax.eval_shape(train, jax.random.key(0))
        shapes.append({name: x.shape for name, x in metrics.items()})
    assert shapes[0] == shapes[1]
    assert set(shapes[0].values()) == {(10,), (3,)}


def test_state_has_no_weak_types_and_keeps_its_shape():
    learner = make_learner(_CONFIG, _ENV)
    state, _ = jax.eval_shape(learner.init, jax.random.key(0))
    after, metrics = jax.eval_shape(learner.update, state)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        assert not getattr(a, "weak_type", False)
        assert not getattr(b, "weak_type", False)
    dtypes = {name: x.dtype for name, x in metrics.items()}
    assert dtypes.pop("status") == jnp.int32
    assert set(dtypes.values()) == {jnp.dtype("float32")}


def test_plain_numbers_and_arrays_are_the_same_hyperparameters():
    for leaf in jax.tree.leaves(as_arrays(Hypers())):
        assert leaf.dtype == jnp.float32
        assert not leaf.weak_type


@pytest.mark.parametrize(("num_evals", "expected"), [(0, None), (10, 10), (99, 10)])
def test_number_of_updates_and_evaluations(num_evals, expected):
    """Three evaluations are in `test_it_did_train`."""
    config = dataclasses.replace(_CONFIG, num_evals=num_evals)
    _, metrics = jax.eval_shape(make_train(config, _ENV), jax.random.key(0))
    assert metrics["loss/policy"].shape == (10,)
    if expected is None:
        assert not any(name.startswith("eval") for name in metrics)
    else:
        assert metrics["eval/mean_return"].shape == (expected,)
