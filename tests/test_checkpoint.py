"""Checkpoints on a real disk: the same bits back, or a clear refusal."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from helpers import assert_trees_equal

from purejaxppo.errors import CheckpointError
from purejaxppo.run import checkpoint


class Nested(struct.PyTreeNode):
    weights: dict
    key: jax.Array
    count: jax.Array
    nothing: None = None
    empty: tuple = ()


def state(seed: int = 0) -> Nested:
    key = jax.random.key(seed)
    return Nested(
        weights={"a": jax.random.normal(key, (3, 2)), "b": {"c": jnp.arange(4) > 1}},
        key=jax.random.split(key, 5),
        count=jnp.asarray(7, jnp.int32),
    )


def largest_file(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def test_round_trip_is_exact_in_bits_dtypes_and_types(tmp_path):
    saved = state()
    checkpoint.save(tmp_path, 3, saved, {"best": 0.1})
    restored, metadata = checkpoint.restore(tmp_path, 3, jax.eval_shape(state))
    assert_trees_equal(saved, restored)
    assert metadata == {"best": 0.1}
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(restored), strict=True):
        assert a.dtype == b.dtype
        assert not getattr(b, "weak_type", False)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_keep_the_implementation_that_they_were_saved_with(tmp_path, impl):
    """Whatever the default is where they are restored."""
    saved = {"key": jax.random.split(jax.random.key(3, impl=impl), 5)}
    checkpoint.save(tmp_path, 1, saved, {})
    like = {"key": jax.random.split(jax.random.key(0), 5)}
    restored, _ = checkpoint.restore(tmp_path, 1, like)
    assert jax.random.key_impl(restored["key"]) == impl
    assert_trees_equal(saved, restored)
    draw = jax.vmap(jax.random.uniform)
    assert_trees_equal(draw(saved["key"]), draw(restored["key"]))


def test_latest_is_the_newest(tmp_path):
    for step in (2, 10):
        checkpoint.save(tmp_path, step, state(step), {})
    restored, _ = checkpoint.restore_latest(tmp_path, state(), pytest.fail)
    assert_trees_equal(restored, state(10))


def test_arrays_without_elements_come_back(tmp_path):
    saved = {"none": jnp.zeros((0, 3)), "one": jnp.ones((1,))}
    checkpoint.save(tmp_path, 1, saved, {})
    restored, _ = checkpoint.restore(tmp_path, 1, saved)
    assert_trees_equal(saved, restored)


def seen_otherwise(path):
    text = (path / "meta.json").read_text()
    (path / "meta.json").write_text(text.replace('"seen": 1', '"seen": 2'))


def truncate(path):
    victim = largest_file(path / "state")
    victim.write_bytes(victim.read_bytes()[:-3])


def flip(path):
    victim = largest_file(path / "state")
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)


DAMAGES = {
    "a state file truncated": truncate,
    "a bit of a state file flipped": flip,
    "a state file removed": lambda path: largest_file(path / "state").unlink(),
    "the state removed": lambda path: shutil.rmtree(path / "state"),
    "meta.json changed": seen_otherwise,
    "meta.json emptied": lambda path: (path / "meta.json").write_bytes(b""),
    "meta.json removed": lambda path: (path / "meta.json").unlink(),
    "the marker not UTF-8": lambda path: (path / "done").write_bytes(b"\xff\xfe"),
    "the marker emptied": lambda path: (path / "done").write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_gives_way_to_the_one_before_and_says_so(tmp_path, damage):
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, state(step), {"seen": 1})
    DAMAGES[damage](path)
    said = []
    restored, _ = checkpoint.restore_latest(tmp_path, state(), said.append)
    assert_trees_equal(restored, state(1))
    assert len(said) == 1
    assert "is damaged" in said[0]
    assert "using the one before" in said[0]
    checkpoint.discard_after(tmp_path, 1)
    assert checkpoint.steps(tmp_path) == [1]


def test_without_its_done_marker_a_checkpoint_does_not_exist(tmp_path):
    for step in (1, 2):
        path = checkpoint.save(tmp_path, step, state(step), {})
    (path / "done").unlink()
    assert checkpoint.steps(tmp_path) == [1]


def test_what_a_kill_left_unfinished_is_ignored_and_swept_away(tmp_path):
    checkpoint.save(tmp_path, 1, state(), {})
    left = tmp_path / "00000002.unfinished"
    left.mkdir()
    (left / "done").touch()
    assert checkpoint.steps(tmp_path) == [1]
    checkpoint.prune(tmp_path, keep=3, protect=set())
    assert not left.exists()


def test_newer_format_is_refused_with_the_version_that_can_read_it(
    tmp_path, monkeypatch
):
    checkpoint.save(tmp_path, 1, state(), {})
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "FORMAT", 99)
        later.setattr(checkpoint, "__version__", "7.8.9")
        checkpoint.save(tmp_path, 2, state(), {})
    # Also by restore_latest: an older one would undo what a newer version trained.
    for attempt in (
        lambda: checkpoint.restore(tmp_path, 2, state()),
        lambda: checkpoint.restore_latest(tmp_path, state(), pytest.fail),
    ):
        with pytest.raises(
            CheckpointError, match="has format 99; allowed is a format"
        ) as refusal:
            attempt()
        assert "purejaxppo 7.8.9, which wrote it, can read it" in str(refusal.value)


def test_older_format_is_migrated(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, state(), {"old": 1})

    def rename(arrays, metadata):
        return arrays, {"new": metadata["old"]}

    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    monkeypatch.setitem(checkpoint.MIGRATIONS, checkpoint.FORMAT - 1, rename)
    assert checkpoint.restore(tmp_path, 1, state())[1] == {"new": 1}


def test_other_structure_is_refused_by_the_name_of_the_leaf(tmp_path):
    checkpoint.save(tmp_path, 1, state(), {})
    other = state().replace(weights={"a": np.zeros((3, 3), np.float32)})
    with pytest.raises(CheckpointError, match=r"at \.weights\['a'\]"):
        checkpoint.restore_latest(tmp_path, other, pytest.fail)


def test_prune_keeps_the_newest_and_the_protected(tmp_path):
    for step in range(1, 6):
        checkpoint.save(tmp_path, step, state(), {})
    checkpoint.prune(tmp_path, keep=2, protect={1})
    assert checkpoint.steps(tmp_path) == [1, 4, 5]


def test_empty_folder_is_an_error_that_says_what_is_needed(tmp_path):
    with pytest.raises(CheckpointError, match="holds no usable checkpoint"):
        checkpoint.restore_latest(tmp_path, state(), pytest.fail)
