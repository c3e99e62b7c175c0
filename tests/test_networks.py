"""Networks: initialisation, the recurrent core step by step, who sees what."""

import functools
import math

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

from purejaxppo.env import Box, Choice, Discrete
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.networks import head_parameters
from purejaxppo.policy.policy import Stored, make_policy

_HEADS = {"move": Box(2), "op": Discrete(3), "cards": Choice(4, 2)}


def _inputs(num_steps, num, seed=0, start=None, dims=5):
    obs = jax.random.normal(jax.random.key(seed), (num_steps, num, dims))
    if start is None:
        start = jnp.zeros((num_steps, num), bool).at[0].set(True)
    return PolicyInput(obs, start, {}, {})


def _first(tree):
    return jax.tree.map(lambda x: x[0], tree)


@functools.cache
def _policy(**changes):
    policy = make_policy(_HEADS, small_config(**changes))
    params = jax.jit(policy.init)(jax.random.key(1), _first(_inputs(1, 3)))
    return policy, params


def _kernel(branch, *path):
    for name in path:
        branch = branch[name]
    return np.asarray(branch["kernel"])


def _assert_orthogonal(kernel, gain):
    narrow = kernel if kernel.shape[0] >= kernel.shape[1] else kernel.T
    expected = gain**2 * np.eye(narrow.shape[1])
    np.testing.assert_allclose(narrow.T @ narrow, expected, atol=1e-4 * gain**2)


def test_initialisation_is_orthogonal_with_the_gains_of_the_contract():
    _, params = _policy(hidden_sizes=(8, 6), critic_hidden_sizes=(7,))
    policy, critic = params.policy, params.critic
    for trunk, layer in (
        (policy["actor"], 0),
        (policy["actor"], 1),
        (critic["critic"], 0),
    ):
        _assert_orthogonal(_kernel(trunk, f"Dense_{layer}"), math.sqrt(2.0))
    _assert_orthogonal(_kernel(head_parameters(policy, "op"), "logits"), 0.01)
    _assert_orthogonal(_kernel(head_parameters(policy, "cards"), "logits"), 0.01)
    _assert_orthogonal(_kernel(head_parameters(policy, "move"), "mean"), 0.01)
    _assert_orthogonal(_kernel(head_parameters(policy, "move"), "std"), 0.01)
    _assert_orthogonal(_kernel(critic, "critic_value"), 1.0)
    assert "LayerNorm_0" in critic["critic"]
    assert "LayerNorm_0" not in policy["actor"]


@pytest.mark.parametrize(
    ("distribution", "init_std"),
    [("truncated_normal", 0.2), ("tanh_normal", 0.01), ("normal", 1.0)],
)
def test_untrained_std_is_init_std_within_its_bounds(distribution, init_std):
    policy, params = _policy(distribution=distribution, init_std=init_std)
    inputs = _inputs(1, 64)
    action = {
        "move": jnp.zeros((1, 64, 2)),
        "op": jnp.zeros((1, 64), jnp.int32),
        "cards": jnp.tile(jnp.asarray([0, 1], jnp.int32), (1, 64, 1)),
    }
    terms = policy.log_prob(params, Stored(inputs, action, policy.initial_carry(64)))
    np.testing.assert_allclose(terms.std["move"], init_std, rtol=0.05, atol=1e-3)
    assert float(jnp.min(terms.std["move"])) >= 0.01
    assert float(jnp.max(terms.std["move"])) <= 1.0


def test_forget_bias_is_one():
    _, params = _policy(core="lstm")
    core = params.policy["actor"]["core"]
    bias = [v for k, v in _flat(core).items() if "forget_bias" in k]
    np.testing.assert_array_equal(bias[0], 1.0)
    assert any("LayerNorm" in k for k in _flat(core))


def _flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _start(num_steps, num):
    """Episodes that begin at different steps of the window."""
    return jax.random.bernoulli(jax.random.key(3), 0.3, (num_steps, num))


@pytest.fixture(scope="module", params=["lstm", "gru"])
def recurrent(request):
    policy, params = _policy(core=request.param)
    loud = jax.tree.map(lambda x: 3.0 * x, params)
    return policy, loud, jax.jit(policy.value)


def test_a_sequence_is_its_steps(recurrent):
    policy, params, value = recurrent
    num_steps, num = 6, 3
    inputs = _inputs(num_steps, num, start=_start(num_steps, num))
    carry = policy.initial_carry(num)["critic"]
    together, carries = value(params, inputs, carry)
    for t in range(num_steps):
        one = jax.tree.map(lambda x, t=t: x[t : t + 1], inputs)
        stepwise, after = value(params, one, carry)
        carry = _first(after)
        np.testing.assert_allclose(stepwise[0], together[t], rtol=1e-4, atol=1e-5)
        expected = jax.tree.map(lambda x, t=t: x[t], carries)
        assert_trees_close(carry, expected, rtol=1e-4, atol=1e-5)


def test_an_episode_does_not_see_the_one_before(recurrent):
    policy, params, value = recurrent
    start = jnp.zeros((6, 1), bool).at[3].set(True)
    carry = jax.tree.map(lambda x: x + 2.0, policy.initial_carry(1)["critic"])
    inputs = _inputs(6, 1, start=start)
    other = inputs.replace(obs=inputs.obs.at[:3].add(5.0))
    here, _ = value(params, inputs, carry)
    there, _ = value(params, other, carry)
    np.testing.assert_array_equal(here[3:], there[3:])
    assert trees_differ(here[:3], there[:3])
    # And it does remember within the episode.
    late = inputs.replace(obs=inputs.obs.at[3].add(5.0))
    assert trees_differ(value(params, late, carry)[0][4:], here[4:])
    # The carry from before the window counts until the first start.
    zero, _ = value(params, inputs, policy.initial_carry(1)["critic"])
    assert trees_differ(zero[:3], here[:3])
    np.testing.assert_array_equal(zero[3:], here[3:])


def test_gru_and_lstm_carries_have_their_shapes():
    for core, num_leaves in (("none", 0), ("gru", 1), ("lstm", 2)):
        policy = make_policy(_HEADS, small_config(core=core, core_size=5))
        leaves = jax.tree.leaves(policy.initial_carry(7)["actor"])
        assert [leaf.shape for leaf in leaves] == [(7, 5)] * num_leaves


def _dict_inputs(num):
    keys = jax.random.split(jax.random.key(0))
    obs = {
        "actor": jax.random.normal(keys[0], (1, num, 3)),
        "critic": jax.random.normal(keys[1], (1, num, 4)),
    }
    return PolicyInput(obs, jnp.ones((1, num), bool), {}, {})


def test_actor_and_critic_see_their_own_part():
    policy = make_policy(_HEADS, small_config())
    inputs = _dict_inputs(6)
    params = jax.jit(policy.init)(jax.random.key(0), _first(inputs))
    loud = jax.tree.map(lambda x: 10.0 * x, params)
    carry = policy.initial_carry(6)

    def moved(name):
        return inputs.replace(obs={**inputs.obs, name: inputs.obs[name] + 1.0})

    @jax.jit
    def mode(inputs):
        return policy.mode(loud, _first(inputs), carry)[0]["move"]

    @jax.jit
    def value(inputs):
        return policy.value(loud, inputs, ())[0]

    assert not trees_differ(mode(inputs), mode(moved("critic")))
    assert trees_differ(mode(inputs), mode(moved("actor")))
    assert not trees_differ(value(inputs), value(moved("actor")))
    assert trees_differ(value(inputs), value(moved("critic")))


def test_shared_trunk_has_no_critic_network():
    policy = make_policy(_HEADS, small_config(shared_trunk=True))
    params = jax.eval_shape(policy.init, jax.random.key(1), _first(_inputs(1, 3)))
    assert set(params.critic) == {"critic_value"}
    assert set(_policy()[1].critic) == {"critic", "critic_value"}


def test_gradients_of_policy_and_critic_do_not_mix():
    policy, params = _policy()
    inputs = _inputs(1, 4)
    total = jax.jit(jax.grad(lambda p: jnp.sum(policy.value(p, inputs, ())[0])))
    grad = total(params)
    assert_trees_equal(grad.policy, _zeros(grad.policy))
    for name, branch in grad.critic.items():
        assert trees_differ(branch, _zeros(branch)), name


def _zeros(tree):
    return jax.tree.map(jnp.zeros_like, tree)


@pytest.mark.parametrize("activation", ["tanh", "relu", "swish", "elu"])
def test_every_activation_runs(activation):
    policy = make_policy(_HEADS, small_config(activation=activation))
    params = _policy()[1]
    value, _ = jax.jit(policy.value)(params, _inputs(1, 4), ())
    assert value.shape == (1, 4)
    assert bool(jnp.all(jnp.isfinite(value)))


def test_sample_is_re_evaluable_and_the_mode_is_its_centre(key):
    policy, params = _policy()
    inputs = _first(_inputs(1, 5))
    carry = policy.initial_carry(5)
    noise = policy.noise(key, 5)
    action, stored, terms, _ = jax.jit(policy.sample)(params, inputs, carry, noise)
    assert_trees_close(action, stored.action)
    stored = jax.tree.map(lambda x: x[None], stored)
    again = jax.jit(policy.log_prob)(params, stored)
    assert_trees_close(again, jax.tree.map(lambda x: x[None], terms), rtol=1e-5)
