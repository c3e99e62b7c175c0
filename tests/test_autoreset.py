"""Auto-reset: the true last observation, three kinds of start, ages and limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probe_envs import Counter, Dice, HeadsProbe, Probe

from purejaxppo import autoreset


def _play(
    env,
    kind="fresh",
    num_steps=9,
    num_envs=1,
    stagger=False,
    num_starts=4,
    train_steps=0,
):
    """Steps [T, N] and the episodes after each."""
    limit = autoreset.time_limit(env, train_steps)

    @jax.jit
    def run(key):
        key_init, key_starts, key_steps = jax.random.split(key, 3)
        starts = autoreset.draw_starts(env, kind, num_starts, key_starts)
        first = jax.vmap(lambda key: autoreset.init(env, kind, limit, stagger, key))(
            jax.random.split(key_init, num_envs)
        )
        action = {"move": jnp.zeros((num_envs,), jnp.int32)}

        def step(episodes, key):
            episodes, out = jax.vmap(
                lambda e, a, k: autoreset.step(
                    env,
                    e,
                    a,
                    starts,
                    limit,
                    autoreset.draw_next(env, kind, starts, k, first=e.first),
                )
            )(episodes, action, jax.random.split(key, num_envs))
            return episodes, (episodes, out)

        _, played = jax.lax.scan(step, first, jax.random.split(key_steps, num_steps))
        return first, starts, *played

    return run(jax.random.key(0))


@pytest.mark.parametrize("kind", ["fresh", "pool", "cached"])
@pytest.mark.parametrize(
    ("end", "terminated", "truncated"),
    [
        ("terminated", True, False),
        ("truncated", False, True),
        ("limit", False, True),
        # An end by the rules is not a cut, whatever else the environment says.
        ("both", True, False),
    ],
)
def test_true_final_observation_and_flags(end, terminated, truncated, kind):
    _, _, episodes, out = _play(Counter(end), kind)
    np.testing.assert_array_equal(out.final_obs[:, 0, 0], [1, 2, 3] * 3)
    np.testing.assert_array_equal(out.reward[:, 0], [1, 2, 3] * 3)
    # What the policy sees next is the new episode's first observation.
    np.testing.assert_array_equal(episodes.state.obs[:, 0, 0], [1, 2, 0] * 3)
    np.testing.assert_array_equal(episodes.start[:, 0], [False, False, True] * 3)
    ends = np.asarray([False, False, True] * 3)
    np.testing.assert_array_equal(out.terminated[:, 0], ends & terminated)
    np.testing.assert_array_equal(out.truncated[:, 0], ends & truncated)


def test_figures_of_an_episode_are_those_before_the_reset():
    _, _, episodes, out = _play(Counter())
    np.testing.assert_array_equal(out.episode_return[:, 0], [1, 3, 6] * 3)
    np.testing.assert_array_equal(out.episode_length[:, 0], [1, 2, 3] * 3)
    np.testing.assert_allclose(out.metrics["success"][:, 0], [0.1, 0.2, 0.3] * 3)
    np.testing.assert_array_equal(episodes.total_reward[:, 0], [1, 3, 0] * 3)
    np.testing.assert_array_equal(episodes.state.metrics["success"][2, 0], 0.0)


def _serials(episodes):
    """Counter draws a number at each reset: the start's fingerprint."""
    return np.asarray(episodes.state.data[..., 1])


def test_fresh_starts_are_all_different():
    first, starts, episodes, _ = _play(Counter(), "fresh", num_envs=3)
    serials = np.concatenate([_serials(first)[None], _serials(episodes)])
    assert starts is None
    assert len(np.unique(serials)) == 3 * 4


def test_pool_starts_come_from_the_pool_and_say_which():
    _, starts, episodes, out = _play(Counter(), "pool", num_envs=3, num_steps=30)
    pool = np.asarray(starts.states.data[:, 1])
    done = np.asarray(out.terminated)
    np.testing.assert_array_equal(
        _serials(episodes)[done], pool[np.asarray(out.start_index)[done]]
    )
    assert len(np.unique(np.asarray(out.start_index)[done])) == 4


def test_cached_starts_return_to_the_first_of_each_environment():
    first, _, episodes, out = _play(Counter(), "cached", num_envs=3)
    done = np.asarray(out.terminated)
    expected = np.broadcast_to(_serials(first), done.shape)
    np.testing.assert_array_equal(_serials(episodes)[done], expected[done])


def test_stagger_spreads_the_first_episodes_alone():
    env = Probe("endless")
    first, _, _, out = _play(env, num_envs=40, num_steps=15, stagger=True)
    assert set(np.asarray(first.age)) == set(range(5))
    ends = np.asarray(out.truncated)
    np.testing.assert_array_equal(np.argmax(ends, axis=0), 4 - np.asarray(first.age))
    # From then on each lasts the full time.
    for column in range(40):
        assert set(np.diff(np.flatnonzero(ends[:, column]))) == {5}
    first, *_ = _play(env, num_envs=40, num_steps=1, stagger=False)
    assert not np.any(first.age)


@pytest.mark.parametrize(("train_steps", "length"), [(0, 5), (3, 3), (9, 5)])
def test_the_shorter_limit_holds(train_steps, length):
    """A limit of training shortens episodes, and never lengthens them."""
    _, _, _, out = _play(Probe("endless"), num_steps=10, train_steps=train_steps)
    assert int(np.argmax(out.truncated[:, 0])) == length - 1
    assert autoreset.time_limit(Counter(), train_steps) == (train_steps or None)


def test_states_with_keys_and_masks_reset_whole():
    """Typed keys cannot go through `where`; masks must be those of the new state."""
    env = HeadsProbe()
    action = env.demonstrator(env.reset(jax.random.key(1)))

    @jax.jit
    def run(key):
        starts = autoreset.draw_starts(env, "pool", 3, key)
        episode = autoreset.init(env, "pool", 7, False, key)

        def step(episode, key):
            next_start = autoreset.draw_next(env, "pool", starts, key)
            after, out = autoreset.step(env, episode, action, starts, 7, next_start)
            return after, (after, out)

        return starts, *jax.lax.scan(step, episode, jax.random.split(key, 40))[1]

    starts, episodes, out = run(jax.random.key(0))
    done = np.flatnonzero(out.terminated | out.truncated)
    assert len(done) > 3
    for t in done:
        index = int(out.start_index[t])
        for name, mask in episodes.state.action_mask.items():
            np.testing.assert_array_equal(
                mask[t], starts.states.action_mask[name][index]
            )
        features = episodes.state.data["features"][t]
        np.testing.assert_array_equal(features, starts.states.data["features"][index])
    # The luck to come is the episode's own.
    keys = jax.random.key_data(episodes.state.data["key"][done]).tolist()
    pooled = jax.random.key_data(starts.states.data["key"]).tolist()
    assert len(set(map(tuple, [*keys, *pooled]))) == len(done) + 3


@pytest.mark.parametrize("kind", ["fresh", "pool", "cached"])
def test_episodes_from_one_start_have_luck_of_their_own(kind):
    """Each of the three steps throws with another key of the state's."""
    _, _, _, out = _play(Dice(), kind, num_envs=2, num_steps=12, num_starts=1)
    # The first episode of each environment is that of its own reset.
    throws = np.asarray(out.reward).reshape(4, 3, 2)[1:]
    if kind == "fresh":  # whose key is then the environment's own affair
        assert len(np.unique(throws)) == 3
    else:
        assert len(np.unique(throws)) == throws.size


def test_environments_get_continuous_actions_inside_the_box():
    """A plain normal samples beyond [-1, 1]; the environment must not see that."""
    env = Probe("action", continuous=True)
    seen = []

    class Spy:
        spec = env.spec
        reset = staticmethod(env.reset)

        def step(self, state, action):
            seen.append(action["move"])
            return env.step(state, action)

    episode = autoreset.init(Spy(), "fresh", None, False, jax.random.key(0))
    next_start = autoreset.draw_next(Spy(), "fresh", None, jax.random.key(1))
    autoreset.step(Spy(), episode, {"move": jnp.asarray([3.0])}, None, None, next_start)
    np.testing.assert_array_equal(seen[0], [1.0])
