"""Arrays of older checkpoints get the names that they have today."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from purejaxppo.run import arrays, migrations


def migrated(names):
    """The names in format 2 of arrays that have these in format 1."""
    named = {name: np.asarray(i) for i, name in enumerate(names)}
    named, _ = migrations.MIGRATIONS[1](named, {})
    return sorted(named, key=lambda name: int(named[name]))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (".params['actor']['b']", ".params.policy['actor']['b']"),
        (".params['outputs_arm']['mean']", ".params.policy['outputs_arm']['mean']"),
        (".params['outputs_critic']", ".params.policy['outputs_critic']"),
        (".params['critic']['b']", ".params.critic['critic']['b']"),
        (".params['critic_value']['b']", ".params.critic['critic_value']['b']"),
        (".reference.params['actor']", ".reference.params.policy['actor']"),
        (".reference.params['critic']", ".reference.params.critic['critic']"),
        (
            ".opt_state['policy'].count",
            ".opt_state[1].inner_states['policy'].inner_state.count",
        ),
        (
            ".opt_state['policy'].mu['actor']['b']",
            ".opt_state[1].inner_states['policy'].inner_state.mu.policy['actor']['b']",
        ),
        (
            ".opt_state['critic'].nu['critic']",
            ".opt_state[1].inner_states['critic'].inner_state[0].nu.critic['critic']",
        ),
        (".episodes.env_state.data['params']", ".episodes.env_state.data['params']"),
        (".obs_stats.mean", ".obs_stats.mean"),
        (".key", ".key"),
    ],
)
def test_format_1_names(old, new):
    assert migrated([old]) == [new]


class Params(struct.PyTreeNode):
    policy: dict
    critic: dict


class Learned(struct.PyTreeNode):
    """The part of a `TrainState` whose names differ between the formats."""

    params: Params | dict
    opt_state: optax.OptState | dict


def names_of(tree):
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(path) for path, _ in leaves]


def test_format_1_becomes_the_names_of_an_optax_partition():
    policy = {"actor": {"bias": jnp.ones(2)}, "outputs_arm": {"bias": jnp.ones(1)}}
    critic = {"critic": {"bias": jnp.ones(2)}, "critic_value": {"bias": jnp.ones(1)}}
    adam = optax.scale_by_adam()
    moments = {"policy": adam.init(policy), "critic": adam.init(critic)}
    decayed = optax.chain(adam, optax.add_decayed_weights(0.1))
    chain = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.partition(
            {"policy": adam, "critic": decayed}, Params("policy", "critic")
        ),
        optax.scale_by_learning_rate(1.0),
    )
    params = Params(policy, critic)
    old = Learned(policy | critic, moments)
    new = Learned(params, chain.init(params))
    assert sorted(migrated(names_of(old))) == sorted(names_of(new))


def test_no_name_of_a_run_of_0_1_0_stays_in_format_1():
    path = Path(__file__).parent / "data/run_0_1_0/checkpoints/00000012/state"
    old = list(arrays.read(path))
    new = migrated(old)
    assert len(set(new)) == len(old)
    learned = [name for name in new if "params" in name or "opt_state" in name]
    assert len(learned) > 30
    for name in learned:
        assert re.match(
            r"\.(reference\.)?params\.(policy|critic)\['|"
            r"\.opt_state\[1\]\.inner_states\['(policy|critic)'\]\.inner_state",
            name,
        ), name
    assert set(new) - set(learned) == set(old) & set(new)


def _statistics_of_format_2(*seeds):
    """Of 2, 0 and 2^24 samples, of one seed or of several."""
    arrays = {
        ".obs_stats.count": np.full(seeds, 2.0, np.float32),
        ".obs_stats.mean['actor']": np.full((*seeds, 3), 7.0, np.float32),
        ".obs_stats.square['actor']": np.full((*seeds, 3), 8.0, np.float32),
        ".reference.obs_stats.count": np.zeros(seeds, np.float32),
        ".reference.obs_stats.square": np.zeros((*seeds, 3), np.float32),
        ".return_stats.count": np.full(seeds, 2.0**33, np.float32),
        ".return_stats.square": np.full(seeds, 2.0**33 * 5, np.float32),
        ".params.policy['obs_stats']['square']": np.ones((*seeds, 2), np.float32),
        ".update_count": np.full(seeds, 12, np.int32),
    }
    return migrations.MIGRATIONS[2](arrays, {"best": {}})


@pytest.mark.parametrize("seeds", [(), (4,)])
def test_statistics_of_format_2_keep_what_they_say(seeds):
    found, metadata = _statistics_of_format_2(*seeds)
    assert metadata == {"best": {}}
    expected = {
        ".obs_stats.count": np.full((*seeds, 2), [2, 0], np.uint32),
        ".obs_stats.mean['actor']": np.full((*seeds, 3), 7.0, np.float32),
        ".obs_stats.variance['actor']": np.full((*seeds, 3), 4.0, np.float32),
        ".reference.obs_stats.count": np.zeros((*seeds, 2), np.uint32),
        ".reference.obs_stats.variance": np.zeros((*seeds, 3), np.float32),
        ".return_stats.count": np.full((*seeds, 2), [0, 2], np.uint32),
        ".return_stats.variance": np.full(seeds, 5.0, np.float32),
        ".params.policy['obs_stats']['square']": np.ones((*seeds, 2), np.float32),
        ".update_count": np.full(seeds, 12, np.int32),
        ".still_updates": np.zeros(seeds, np.int32),
    }
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype, name
