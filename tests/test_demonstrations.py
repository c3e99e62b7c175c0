"""The demonstrations file: what is written is read, and what is wrong is said."""

import dataclasses

import jax
import numpy as np
import pytest
from helpers import assert_trees_equal, small_config
from probe_envs import make

from purejaxppo.errors import ConfigError
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run import demonstrations

ENV = make("endless", continuous=True)
CONFIG = small_config(env_kwargs={"kind": "endless"}, num_demonstrations=3)


@pytest.fixture(scope="module")
def collected():
    return make_learner(CONFIG, ENV).collect(jax.random.key(0))


@pytest.fixture
def file(tmp_path, collected):
    path = tmp_path / demonstrations.FILE
    demonstrations.save(path, collected, ENV)
    return path


def rewrite(path, **changes):
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez(path, **{name: x for name, x in arrays.items() if x is not None})


def test_round_trip_is_exact(file, collected):
    assert_trees_equal(demonstrations.load(file, ENV, CONFIG), collected)


def test_shapes_are_those_of_what_is_collected(collected):
    num, length = collected.valid.shape
    expected = demonstrations.shapes(ENV, num, length)
    assert jax.tree.structure(expected) == jax.tree.structure(collected)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(collected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_the_first_so_many_are_taken(file, collected):
    config = dataclasses.replace(CONFIG, num_demonstrations=2)
    taken = demonstrations.load(file, ENV, config)
    assert_trees_equal(taken, jax.tree.map(lambda x: x[:2], collected))


@pytest.mark.parametrize("num", [0, 4])
def test_more_than_there_are_or_none_is_refused(file, num):
    config = dataclasses.replace(CONFIG, num_demonstrations=num)
    with pytest.raises(ConfigError, match=f"num_demonstrations: got {num}; allowed is"):
        demonstrations.load(file, ENV, config)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "a file that has format 1"),
        ({"env": "probe_cue"}, "a file that is of probe_endless, not of probe_cue"),
        ({"obs": None}, "a file that has an array obs"),
        ({"valid": None}, r"a file that has an array valid, bool \[K, L\]"),
        ({"obs": np.zeros((3, 5, 2), np.float32)}, r"has obs as float32 \(3, 5, 1\)"),
        ({"reward": np.zeros((3, 5))}, "has reward as float32"),
        ({"action/move": np.full((3, 5, 1), np.nan, np.float32)}, "finite numbers"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(file, changes, sentence):
    rewrite(file, **changes)
    with pytest.raises(ConfigError, match=sentence):
        demonstrations.load(file, ENV, CONFIG)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "text.npz"
    path.write_text("hello")
    for wrong in (path, tmp_path / "missing.npz"):
        with pytest.raises(ConfigError, match=r"a file that exists and is an \.npz of"):
            demonstrations.load(wrong, ENV, CONFIG)
