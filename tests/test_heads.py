"""Heads: activity, masks picked by a parent, the joint log-prob; all by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_close, small_config

from purejaxppo.env import Box, Choice, Discrete
from purejaxppo.policy import heads as heads_lib
from purejaxppo.policy.heads import PolicyInput

_HEADS = {
    "op": Discrete(3),
    "slot": Discrete(2, parent="op", active_when=(1, 2)),
    "leaf": Discrete(2, parent="slot", active_when=(1,)),
    "aim": Box(2),
    "cards": Choice(3, 2),
}
# Probabilities 1/6, 2/6, 3/6 of op, 1/4, 3/4 of the pairs, weights 1, 2, 3 of cards.
_LOGITS = {
    "op": np.log([1.0, 2.0, 3.0]),
    "slot": np.log([1.0, 3.0]),
    "leaf": np.log([1.0, 3.0]),
    "cards": np.log([1.0, 2.0, 3.0]),
}
_CONFIG = small_config(distribution="normal")
_NUM = 4
# A standard normal in two dimensions at its mean.
_AIM = -math.log(2 * math.pi)


def _rows(values, dtype, num=_NUM):
    """The given rows, repeated until there are `num`."""
    values = np.asarray(values)
    return jnp.asarray(np.resize(values, (num, *values.shape[1:])), dtype)


def _outputs(num=_NUM):
    outputs = {
        name: {"logits": _rows([x], jnp.float32, num)} for name, x in _LOGITS.items()
    }
    outputs["aim"] = {"mean": jnp.zeros((num, 2)), "std": jnp.ones((num, 2))}
    return outputs


def _inputs(action_mask=None, active=None, num=_NUM):
    masks, active = action_mask or {}, active or {}
    return PolicyInput(
        obs=jnp.zeros((num, 1)),
        start=jnp.zeros((num,), bool),
        action_mask={name: _rows(rows, bool, num) for name, rows in masks.items()},
        active={name: _rows(rows, bool, num) for name, rows in active.items()},
    )


def _action(op=(0,), slot=(0,), leaf=(0,)):
    return {
        "op": _rows(op, jnp.int32),
        "slot": _rows(slot, jnp.int32),
        "leaf": _rows(leaf, jnp.int32),
        "aim": jnp.zeros((_NUM, 2)),
        "cards": _rows([[2, 0]], jnp.int32),
    }


def _evaluate(action, inputs, heads=_HEADS):
    return heads_lib.evaluate_actions(heads, _outputs(), inputs, action, _CONFIG)


@pytest.mark.parametrize("run", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_joint_log_prob_is_the_sum_over_heads_that_mattered(run):
    action = _action(op=[0, 1, 2, 2], slot=[1, 0, 1, 1], leaf=[0, 1, 0, 1])
    terms = run(lambda a: _evaluate(a, _inputs()))(action)
    # op 0 makes slot irrelevant; slot 0, or an irrelevant slot, makes leaf so.
    np.testing.assert_array_equal(terms.active["slot"], [False, True, True, True])
    np.testing.assert_array_equal(terms.active["leaf"], [False, False, True, True])
    op = np.log([1 / 6, 2 / 6, 3 / 6, 3 / 6])
    slot = [0.0, math.log(1 / 4), math.log(3 / 4), math.log(3 / 4)]
    leaf = [0.0, 0.0, math.log(1 / 4), math.log(3 / 4)]
    np.testing.assert_allclose(terms.log_prob["slot"], slot, rtol=1e-5)
    np.testing.assert_allclose(terms.log_prob["leaf"], leaf, rtol=1e-5)
    cards = math.log(3 / 6 * 1 / 3)
    expected = op + slot + leaf + cards + _AIM
    np.testing.assert_allclose(terms.joint_log_prob(), expected, rtol=1e-5)


def test_entropy_counts_where_the_head_is_active():
    terms = _evaluate(_action(op=[0, 1]), _inputs())
    pair = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    np.testing.assert_allclose(terms.entropy["slot"][:2], [0.0, pair], rtol=1e-5)
    np.testing.assert_allclose(
        terms.joint_entropy(), sum(terms.entropy.values()), rtol=1e-6
    )


def test_environment_switches_heads_off():
    active = {"aim": [True, False], "op": [True, False]}
    terms = _evaluate(_action(op=[1], slot=[1], leaf=[1]), _inputs(active=active))
    np.testing.assert_allclose(terms.log_prob["aim"][:2], [_AIM, 0.0], rtol=1e-5)
    # With its parent off, a head is off whatever the parent's stored action says.
    np.testing.assert_array_equal(terms.active["slot"][:2], [True, False])
    np.testing.assert_array_equal(terms.active["leaf"][:2], [True, False])
    np.testing.assert_array_equal(terms.active["cards"][:2], [True, True])


def test_unused_action_does_not_leak_into_the_gradient():
    """An inactive head may hold anything, NaN and what no density allows."""
    action = _action()
    action["aim"] = jnp.full((_NUM, 2), jnp.nan)
    inputs = _inputs(active={"aim": [False]})

    @jax.jit
    @jax.grad
    def gradient(outputs):
        terms = heads_lib.evaluate_actions(_HEADS, outputs, inputs, action, _CONFIG)
        return jnp.sum(terms.joint_log_prob())

    for leaf in jax.tree.leaves(gradient(_outputs())):
        assert bool(jnp.all(jnp.isfinite(leaf)))


def test_parent_picks_the_row_of_the_mask():
    table = [[True, True], [False, True], [True, False]]
    action = _action(op=[1, 2], slot=[1, 0])
    terms = _evaluate(action, _inputs({"slot": [table]}))
    # One valid slot in each row: certain, without entropy.
    np.testing.assert_allclose(terms.log_prob["slot"], 0.0, atol=1e-6)
    np.testing.assert_allclose(terms.entropy["slot"], 0.0, atol=1e-6)
    # A mask without rows holds for every choice of the parent.
    terms = _evaluate(action, _inputs({"slot": [[False, True]]}))
    assert float(terms.log_prob["slot"][0]) == 0.0
    assert float(terms.log_prob["slot"][1]) < -1e8


@pytest.mark.parametrize("deterministic", [False, True])
def test_choose_respects_masks_and_rows(deterministic, key):
    num = 500
    masks = {
        "op": [[False, True, True]],
        "slot": [[[True, True], [False, True], [True, False]]],
        "cards": [[True, False, True]],
    }
    inputs = _inputs(masks, num=num)

    @jax.jit
    def run(key):
        noise = None
        if not deterministic:
            noise = heads_lib.noise(_HEADS, _CONFIG, key, (num,))
        action = heads_lib.choose(_HEADS, _outputs(num), inputs, _CONFIG, noise)
        return action, heads_lib.evaluate_actions(
            _HEADS, _outputs(num), inputs, action, _CONFIG
        )

    action, terms = run(key)
    assert set(np.unique(action["op"])) == ({2} if deterministic else {1, 2})
    np.testing.assert_array_equal(action["slot"], action["op"] == 1)
    np.testing.assert_array_equal(np.sort(action["cards"], axis=1), [[0, 2]] * num)
    assert float(jnp.min(terms.joint_log_prob())) > -100.0
    assert not bool(jnp.any(terms.no_valid_action))


def test_heads_are_sampled_independently(key):
    """Two heads of one kind must not share their noise."""
    heads = {"a": Discrete(2), "b": Discrete(2)}
    outputs = {name: {"logits": jnp.zeros((4000, 2))} for name in heads}
    noise = heads_lib.noise(heads, _CONFIG, key, (4000,))
    action = heads_lib.choose(heads, outputs, _inputs(num=4000), _CONFIG, noise)
    agreement = float(jnp.mean(action["a"] == action["b"]))
    assert 0.45 < agreement < 0.55


@pytest.mark.parametrize(
    ("masks", "active", "reported"),
    [
        ({"op": [[False, False, False]]}, {}, True),
        ({"op": [[True, False, False]]}, {}, False),
        # A choice of two needs two.
        ({"cards": [[True, False, False]]}, {}, True),
        ({"cards": [[True, False, True]]}, {}, False),
        # An empty mask of a head that does not matter is no fault.
        ({"op": [[False, False, False]]}, {"op": [False]}, False),
    ],
)
def test_no_valid_action_is_reported_and_not_nan(masks, active, reported):
    terms = _evaluate(_action(), _inputs(masks, active))
    assert bool(jnp.all(terms.no_valid_action == reported))
    assert bool(jnp.all(jnp.isfinite(terms.joint_log_prob())))
    assert bool(jnp.all(jnp.isfinite(terms.joint_entropy())))


def test_normalised_entropy_is_one_for_a_uniform_head():
    config = small_config(normalize_entropy=True)
    outputs = {"op": {"logits": jnp.zeros((_NUM, 3))}}
    terms = heads_lib.evaluate_actions(
        {"op": Discrete(3)},
        outputs,
        _inputs({"op": [[True, False, True]]}),
        {"op": _action()["op"]},
        config,
    )
    np.testing.assert_allclose(terms.entropy["op"], 1.0, rtol=1e-5)


@pytest.mark.parametrize("distribution", ["truncated_normal", "tanh_normal", "normal"])
def test_mode_of_a_continuous_head_is_inside(distribution):
    config = small_config(distribution=distribution)
    outputs = {"aim": {"mean": jnp.asarray([[0.3]]), "std": jnp.asarray([[0.2]])}}
    action = heads_lib.choose({"aim": Box(1)}, outputs, _inputs(num=1), config, None)
    expected = 0.3 if distribution == "normal" else math.tanh(0.3)
    np.testing.assert_allclose(action["aim"], [[expected]], rtol=1e-5)


def test_leading_axes_are_free():
    """[N] in the rollout, [L, M] in the loss: the same numbers."""
    inputs = _inputs({"op": [[False, True, True], [True, True, True]]})
    action = _action(op=[1, 0, 2, 0], slot=[1, 0], leaf=[1])

    def fold(tree):
        return jax.tree.map(lambda x: x.reshape((2, 2, *x.shape[1:])), tree)

    folded = jax.jit(
        lambda outputs: heads_lib.evaluate_actions(
            _HEADS, outputs, fold(inputs), fold(action), _CONFIG
        )
    )(fold(_outputs()))
    assert_trees_close(fold(_evaluate(action, inputs)), folded, rtol=1e-5)


def test_order_of_heads_does_not_change_the_joint():
    action = _action(op=[0, 1, 2, 2], slot=[1, 0, 1, 1], leaf=[0, 1, 0, 1])
    order = ["cards", "op", "aim", "slot", "leaf"]
    there = _evaluate(action, _inputs(), {name: _HEADS[name] for name in order})
    here = _evaluate(action, _inputs())
    np.testing.assert_array_equal(here.joint_log_prob(), there.joint_log_prob())
