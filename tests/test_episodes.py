"""The player of whole episodes: figures by hand, keys and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal
from probe_envs import Counter, Lottery, Probe

from purejaxppo import episodes


def _first(env, state, key):
    """A baseline that always moves the same way."""
    del env, state, key
    return {"move": jnp.int32(0)}


def _keys(num, seed=0):
    return jax.random.split(jax.random.key(seed), num)


@pytest.mark.parametrize("num", [1, 3, 12])  # fewer than four are never compacted
def test_figures_by_hand_and_nothing_after_the_end(num):
    """After its end an episode of the lottery pays NaN."""
    keys = _keys(num)
    luck = np.asarray(jax.vmap(Lottery().reset)(keys).data[:, 0])
    length = 1 + np.floor(4 * luck)
    play = jax.jit(lambda keys: episodes.play_baseline(Lottery(), _first, keys))
    figures = play(keys)
    np.testing.assert_allclose(figures["return"], luck * length, rtol=1e-6)
    np.testing.assert_array_equal(figures["length"], length)
    np.testing.assert_array_equal(figures["success"], length)
    assert num < 12 or len(set(length)) == 4


def test_an_episode_is_the_same_alone_and_among_others():
    """Its luck is its own key's, whatever is played beside it."""

    def chance(env, state, key):
        del env, state
        return {"move": jax.random.bernoulli(key).astype(jnp.int32)}

    env = Probe("endless")

    class Paid:
        """Pays what is chosen, 1 or -1, and one half of the episodes ends early."""

        spec, reset = env.spec, staticmethod(env.reset)

        def step(self, state, action):
            after = env.step(state, action)
            ends = (state.data[0] > 0) & (after.data[1] == 2)
            move = 2.0 * action["move"].astype(jnp.float32) - 1.0
            return after.replace(reward=move, terminated=ends)

    play = jax.jit(lambda keys: episodes.play_baseline(Paid(), chance, keys))
    keys = _keys(9)
    figures = play(keys)
    assert len(set(np.asarray(figures["return"]).tolist())) > 2
    for index in (0, 4, 8):
        alone = play(keys[index : index + 1])
        assert_trees_equal(alone, {n: x[index : index + 1] for n, x in figures.items()})


def _play(env, **kwargs):
    keys = _keys(2)

    def act(carry, states, start, keys):
        return {"move": jnp.zeros(start.shape, jnp.int32)}, carry

    return episodes.play(env, act, keys, (), **kwargs)


def test_time_limits():
    """The environment's own, the caller's, and neither of them reached."""
    own = _play(Probe("endless"))
    np.testing.assert_array_equal(own.length, [5, 5])
    np.testing.assert_array_equal(own.ended, [False, False])
    shorter = _play(Probe("endless"), max_steps=3)
    np.testing.assert_array_equal(shorter.length, [3, 3])
    ended = _play(Counter("truncated", 3), max_steps=7)
    np.testing.assert_array_equal(ended.length, [3, 3])
    np.testing.assert_array_equal(ended.episode_return, [6.0, 6.0])
    np.testing.assert_array_equal(ended.ended, [True, True])


def test_the_players_carry_goes_along_and_start_marks_the_first_step():
    """A player that counts: it moves right once its count of steps reaches 2."""

    def act(count, states, start, keys):
        count = jnp.where(start, 100, count + 1)
        return {"move": (count >= 102).astype(jnp.int32)}, count

    class Paid(Probe):
        def step(self, state, action):
            after = super().step(state, action)
            return after.replace(reward=action["move"].astype(jnp.float32))

    played = episodes.play(Paid("endless"), act, _keys(6), jnp.zeros((6,), jnp.int32))
    np.testing.assert_array_equal(played.episode_return, [3.0] * 6)


def test_continuous_actions_are_executed_within_their_range():
    env = Probe("endless", continuous=True)

    class Paid:
        spec, reset = env.spec, staticmethod(env.reset)

        def step(self, state, action):
            return env.step(state, action).replace(reward=action["move"][0])

    def far(env, state, key):
        return {"move": jnp.full((1,), 40.0, jnp.float32)}

    figures = episodes.play_baseline(Paid(), far, _keys(1))
    np.testing.assert_array_equal(figures["return"], [5.0])


def test_keys_of_actions_are_none_that_reset_can_have_split_from_its_own():
    """Under partitionable threefry split(key, n)[i] is fold_in(key, i)."""
    seen = []

    def act(carry, states, start, keys):
        seen.append(np.asarray(jax.random.key_data(keys)))
        return {"move": jnp.zeros(start.shape, jnp.int32)}, carry

    keys = _keys(2)
    with jax.disable_jit():  # so that the loop is Python's, and its values are known
        episodes.play(Probe("endless"), act, keys, ())
    assert len(seen) == 5
    drawn = [tuple(row) for step in seen for row in step.tolist()]
    assert len(set(drawn)) == 10
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    for key in keys:
        once = fold(key, jnp.arange(64))
        # An environment draws its steps from a key that `reset` split from its own.
        twice = jax.vmap(lambda key: fold(key, jnp.arange(64)))(once).ravel()
        for own in (jax.random.split(key, 64), once, twice):
            rows = {tuple(row) for row in jax.random.key_data(own).tolist()}
            assert rows.isdisjoint(drawn)
