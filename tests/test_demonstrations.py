"""The demonstrations file: what is written is read, and what is wrong is said."""

import dataclasses
import os
from pathlib import Path

import bad_demonstrations
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


# --- bad files and bad experts -----------------------------------------------------


def test_bad_files_are_refused_in_a_sentence_and_never_read_as_something_else(tmp_path):
    """A part of them; all when tests/bad_demonstrations.py is run."""
    outcomes = {}
    for bad in bad_demonstrations.bad_files(num_flips=30, num_damages=2):
        outcomes[bad.name] = bad_demonstrations.outcome(bad, tmp_path)
    wrong = {
        name: what
        for name, what in outcomes.items()
        if what not in (bad_demonstrations.REFUSED, bad_demonstrations.SAME)
    }
    assert wrong == {}
    assert len(outcomes) > 100


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("an .npy", r"an \.npz of demonstrations \(it is a single \.npy array\)"),
        ("text", r"an \.npz of demonstrations \(it is no zip archive\)"),
        ("obs: 400 TB", r"\(obs\.npy claims 400,000,000,000,000 bytes and has 0\)"),
        ("obs: a pickle", r"\(obs\.npy holds Python objects\)"),
        ("a member of another checksum", r"\(\w+\.npy is damaged\)"),
        ("action/aim: 1e+30 at (0, 0)", r"has action/aim within \[-1, 1\]"),
        ("action/aim: nan at (0, 0)", "has only finite numbers in action/aim"),
        ("action/slot: 3 at (0, 0)", "has action/slot within 0 to 2"),
        ("action/cards: (1, 1) at (0, 0)", "has 2 different numbers in action/cards"),
        ("obs: 1e+30 at (0, 0)", r"has numbers below 1e\+08 in obs"),
        ("valid: False at (slice(None, None, None), 0)", "valid steps of an episode"),
    ],
)
def test_the_sentence_says_what_is_wrong(name, sentence, tmp_path):
    files = {bad.name: bad for bad in bad_demonstrations.bad_files(0, 0, 0)}
    with pytest.raises(ConfigError, match=sentence):
        bad_demonstrations.load(files[name].content, tmp_path)


def test_a_mask_counts_only_where_its_head_does(tmp_path):
    arrays = bad_demonstrations.sound_arrays()
    arrays["active/op"][...] = False
    for name in ("action_mask/op", "action_mask/slot"):
        arrays[name][...] = False
    members = {name: bad_demonstrations.npy(array) for name, array in arrays.items()}
    content = bad_demonstrations.archive(members)
    loaded = bad_demonstrations.load(content, tmp_path)
    assert not np.any(loaded.active["op"])


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="exists and is an"):
            demonstrations.load(Path(path), ENV, CONFIG)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("fails", "an environment whose demonstrator succeeds: none of 12 attempts"),
        ("nan", "demonstrator has only finite numbers in action/move"),
        ("far", r"demonstrator has action/move within \[-1, 1\]"),
        # An episode with an observation that cannot be used is no success.
        ("blind", "an environment whose demonstrator succeeds: none of 12 attempts"),
    ],
)
def test_what_a_bad_demonstrator_shows_is_refused(kind, sentence):
    env = bad_demonstrations.BadDemonstrator(kind)
    config = small_config(num_demonstrations=4)
    collected = jax.jit(make_learner(config, env).collect)(jax.random.key(0))
    with pytest.raises(ConfigError, match=sentence):
        demonstrations.check_collected(collected, env)
    # Of several seeds, one is enough.
    sound = bad_demonstrations.BadDemonstrator("sound")
    others = jax.jit(make_learner(config, sound).collect)(jax.random.key(0))
    demonstrations.check_collected(others, sound)
    both = jax.tree.map(lambda *x: np.stack(x), others, collected)
    with pytest.raises(ConfigError, match=sentence):
        demonstrations.check_collected(both, env)
