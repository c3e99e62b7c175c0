"""Environments that break: their numbers end an episode, are counted, and stay out."""

import csv
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import small_config, trees_differ
from probe_envs import FAULTS, Faulty, Probe

from purejaxppo import autoreset, episodes, train
from purejaxppo.env import EnvSpec
from purejaxppo.errors import EXIT_OK, EXIT_STRICT
from purejaxppo.ppo import imitation
from purejaxppo.ppo.learner import as_arrays, make_learner
from purejaxppo.ppo.status import UpdateStatus
from purejaxppo.ppo.types import Task
from purejaxppo.run import checkpoint

_KINDS = [name for name in FAULTS if name != "none"]
_RIGHT = {"move": jnp.int32(1)}

# --- one step ---------------------------------------------------------------------


def _steps(env, num_steps, kind="fresh", limit=None):
    """The first episode, the episodes after each step, and the steps, [T]."""

    @jax.jit
    def run(key):
        key_init, key_starts, key_steps = jax.random.split(key, 3)
        starts = autoreset.draw_starts(env, kind, 2, key_starts)
        first = autoreset.init(env, kind, limit, False, key_init)

        def step(episode, key):
            following = autoreset.draw_next(env, kind, starts, key, first=first.first)
            after, out = autoreset.step(env, episode, _RIGHT, starts, limit, following)
            return after, (after, out)

        _, played = jax.lax.scan(step, first, jax.random.split(key_steps, num_steps))
        return first, *played

    return run(jax.random.key(0))


@pytest.mark.parametrize("fault", _KINDS)
def test_a_broken_step_is_a_cut_of_what_came_before(fault):
    # At the last step, which the environment calls an end by the rules.
    env = Faulty(fault, at=3, length=3)
    _, after, out = _steps(env, 7)
    broken = np.asarray([False, False, True] * 2 + [False])
    np.testing.assert_array_equal(out.unstable, broken)
    np.testing.assert_array_equal(out.truncated, broken)
    assert not np.any(out.terminated)
    np.testing.assert_array_equal(out.reward, [1, 1, 0, 1, 1, 0, 1])
    # The state that the value is bootstrapped from is the last that can be trusted.
    np.testing.assert_allclose(
        out.final_obs[:, 1], [0.2, 0.4, 0.4, 0.2, 0.4, 0.4, 0.2], rtol=1e-6
    )
    np.testing.assert_array_equal(out.episode_return, [1, 2, 2, 1, 2, 2, 1])
    np.testing.assert_array_equal(out.episode_length, [1, 2, 3, 1, 2, 3, 1])
    np.testing.assert_array_equal(out.metrics["success"], [1, 2, 2, 1, 2, 2, 1])
    np.testing.assert_array_equal(after.start, broken)
    np.testing.assert_array_equal(
        after.state.obs[:, 1], np.where(broken, 1, out.final_obs[:, 1])
    )
    assert _all_finite((after, out))


@pytest.mark.parametrize("kind", ["fresh", "pool", "cached"])
@pytest.mark.parametrize("start", ["obs_nan", "obs_inf", "obs_huge"])
def test_a_broken_start_is_observed_as_zero_and_counted(kind, start):
    env = Faulty(start=start, length=2)
    first, after, out = _steps(env, 5, kind)
    np.testing.assert_array_equal(first.state.obs, [0, 1])
    np.testing.assert_array_equal(after.state.obs[:, 0], [0] * 5)
    np.testing.assert_array_equal(after.state.obs[1::2, 1], [1, 1])
    # At the first step of the episode that began there, the very first one included.
    np.testing.assert_array_equal(out.unstable, [True, False] * 2 + [True])
    # Only its observation is replaced: the episode itself goes on.
    np.testing.assert_array_equal(out.terminated, [False, True] * 2 + [False])
    np.testing.assert_array_equal(out.reward, [1] * 5)


def test_numbers_up_to_the_bound_are_let_pass():
    @dataclasses.dataclass(frozen=True)
    class Large(Probe):
        def step(self, state, action):
            return super().step(state, action).replace(reward=jnp.float32(-1e8))

    _, _, out = _steps(Large("endless"), 3)
    np.testing.assert_array_equal(out.reward, [-1e8] * 3)
    assert not np.any(out.unstable)


# --- updates ----------------------------------------------------------------------


def _all_finite(tree):
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return all(bool(np.all(np.isfinite(x))) for x in leaves)


# NaN by definition: no episode ended, or returns do not vary.
_MAY_BE_NAN = (
    *("train/", "value/explained_variance", "consistency/bootstrap"),
    *("consistency/sign", "obs/still", "obs/spikes", "obs/autocorrelation"),
)


def _assert_sound(state, metrics):
    assert _all_finite(state)
    assert int(metrics["status"]) & UpdateStatus.NONFINITE == 0
    assert float(metrics["update/nonfinite"]) == 0.0
    for name, value in metrics.items():
        assert np.isfinite(value) or name.startswith(_MAY_BE_NAN), name


def _learner(env, **changes):
    config = small_config(
        **{
            "num_steps": 8,
            "normalize_rewards": True,
            "normalize_observations": "running",
            "learning_rate": 0.01,
            **changes,
        }
    )
    learner = make_learner(config, env)
    state, _ = jax.jit(learner.init)(jax.random.key(0))
    hypers, update = as_arrays(config.hypers), jax.jit(learner.update)
    return state, lambda state: update(state, hypers)


@pytest.fixture(scope="module", params=["plain", "recurrent"])
def healthy(request):
    """The first state and an update; the second is of two observations and a core."""
    recurrent = request.param == "recurrent"
    changes = {"core": "gru", "sequence_length": 4, "anchor": True} if recurrent else {}
    if recurrent:
        changes |= {"num_demonstrations": 2, "cloning_steps": 1, "kl_coef": 0.1}
    limit = 20 if recurrent else None  # without one there are no demonstrations
    return _learner(Faulty(privileged=recurrent, limit=limit), **changes)


def _poisoned(state, fault, env_index):
    """The next step of that environment breaks, and no other ever."""
    data = state.episodes.state.data
    data = {
        "count": data["count"].at[env_index].set(2),
        "fault": data["fault"].at[env_index].set(list(FAULTS).index(fault)),
    }
    inner = state.episodes.state.replace(data=data)
    return state.replace(episodes=state.episodes.replace(state=inner))


@pytest.mark.parametrize("fault", _KINDS)
def test_a_single_broken_step_is_counted_and_training_goes_on(healthy, fault):
    state, update = healthy
    state, metrics = update(state)
    assert float(metrics["train/unstable"]) == 0.0
    assert int(metrics["status"]) == UpdateStatus.OK
    state = _poisoned(_poisoned(state, fault, 3), fault, 5)
    for expected in (2.0, 0.0, 0.0):
        before = state.params
        state, metrics = update(state)
        assert float(metrics["train/unstable"]) == expected
        flag = UpdateStatus.UNSTABLE if expected else UpdateStatus.OK
        assert int(metrics["status"]) == flag
        _assert_sound(state, metrics)
        assert trees_differ(before.policy, state.params.policy)
        assert trees_differ(before.critic, state.params.critic)


@dataclasses.dataclass(frozen=True)
class Own(Faulty):
    """With a figure of its own, as the hammer's physics has, and a quarantine too."""

    def _with_figure(self, state):
        return state.replace(metrics={"success": 1.0, "unstable": jnp.float32(0.5)})

    def reset(self, key):
        return self._with_figure(super().reset(key))

    def step(self, state, action):
        return self._with_figure(super().step(state, action))


@pytest.mark.parametrize(
    "env",
    [
        Own("obs_nan", at=3, start="obs_huge"),
        Faulty("reward_inf", at=3, start="obs_nan", privileged=True),
    ],
    ids=["array", "dict"],
)
def test_an_environment_that_always_breaks_does_no_harm(env):
    core = {"core": "gru", "sequence_length": 4} if env.privileged else {}
    state, update = _learner(env, **core)
    for expected in (5, 6, 5):  # starts at steps 0, 3, 6, breaks at 2, 5; then on
        before = state.params
        state, metrics = update(state)
        assert float(metrics["train/unstable"]) == 8.0 * expected
        # An environment's own figure of that name is kept.
        own = metrics.get("train/episode_unstable")
        assert own == (0.5 if isinstance(env, Own) else None)
        both = UpdateStatus.UNSTABLE | UpdateStatus.ALL_UNSTABLE
        assert int(metrics["status"]) & both == both
        _assert_sound(state, metrics)
        assert trees_differ(before, state.params)


@pytest.mark.parametrize(("at", "hopeless"), [(1, True), (2, False)])
def test_a_single_environment_is_hopeless_where_every_step_breaks(at, hopeless):
    env = Faulty("obs_nan", at=at)
    few = {"num_envs": 1, "num_minibatches": 2, "normalize_observations": "off"}
    state, update = _learner(env, **few)
    _, metrics = update(state)
    assert float(metrics["train/unstable"]) == 8.0 / at
    flags = UpdateStatus(int(metrics["status"]))
    assert UpdateStatus.UNSTABLE & flags
    assert bool(UpdateStatus.ALL_UNSTABLE & flags) == hopeless


# --- whole episodes ---------------------------------------------------------------


@pytest.mark.parametrize("num", [1, 8])
@pytest.mark.parametrize("fault", _KINDS)
def test_a_played_episode_ends_where_it_breaks(fault, num):
    """The broken step counts as one of its length, and for nothing else."""

    def right(env, state, key):
        return _RIGHT

    keys = jax.random.split(jax.random.key(0), num)
    figures = episodes.play_baseline(Faulty(fault), right, keys)
    np.testing.assert_array_equal(figures["return"], [2] * num)
    np.testing.assert_array_equal(figures["length"], [3] * num)
    np.testing.assert_array_equal(figures["success"], [2] * num)


def test_players_never_see_what_is_broken():
    def act(carry, states, start, keys):
        bound = 1e8
        carry &= jnp.all(jnp.abs(states.obs) <= bound, axis=-1)
        return {"move": carry.astype(jnp.int32)}, carry

    env = Faulty("obs_inf", share=0.5, start="obs_nan", length=4)
    keys = jax.random.split(jax.random.key(0), 16)
    played = episodes.play(env, act, keys, jnp.ones((16,), bool))
    unlucky = np.asarray(played.length) == 3
    assert 0 < np.sum(unlucky) < 16
    assert np.all(played.ended)
    np.testing.assert_array_equal(played.episode_return, np.where(unlucky, 2, 4))


@dataclasses.dataclass(frozen=True)
class Shown(Faulty):
    """Succeeds at its last step."""

    @property
    def spec(self):
        return EnvSpec("shown", super().spec.heads, 6, "success")

    def step(self, state, action):
        after = super().step(state, action)
        return after.replace(metrics={"success": after.terminated.astype(jnp.float32)})


@pytest.mark.parametrize(
    ("fault", "start", "at"),
    [
        ("obs_nan", "none", 2),
        ("reward_inf", "none", 2),
        ("reward_huge", "none", 5),  # with its success
        ("none", "obs_nan", 1),
    ],
)
def test_broken_attempts_are_not_demonstrations(fault, start, at):
    env = Shown(fault, share=0.3, at=at, start=start)
    config = small_config(num_demonstrations=8)
    collect = jax.jit(lambda key: imitation.collect(Task(env, None, config), key))
    shown = collect(jax.random.key(1))
    # 20 attempts, of which six are broken or so.
    np.testing.assert_array_equal(jnp.sum(shown.valid, axis=1), [5] * 8)
    valid = np.asarray(shown.valid)
    assert np.all(np.isfinite(np.asarray(shown.obs)[valid]))
    assert np.all(np.abs(np.asarray(shown.obs)[valid]) < 10)
    np.testing.assert_array_equal(np.asarray(shown.reward)[valid], 1.0)


# --- the command line ---------------------------------------------------------------


def _run(path, *flags):
    small = (
        "--env probe_envs:Faulty --num-envs 4 --num-steps 8 --num-minibatches 2 "
        "--num-epochs 2 --total-timesteps 192 --hidden-sizes 8 "
        "--critic-hidden-sizes 8 --num-evals 2 --eval-episodes 4 "
        "--no-tensorboard --no-report "
        "--chunk-updates 6 --num-starts 8 --seed 1"
    ).split()
    code = train.main([*small, "--run-dir", str(path), *flags])
    with (path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (path / "evals.csv").open(newline="") as file:
        evaluated = [int(row["update"]) for row in csv.DictReader(file)]
    return code, rows, evaluated


def test_some_broken_episodes_are_said_once(tmp_path, capsys):
    kwargs = ["--env-kwargs", "fault=obs_nan", "share=0.3"]
    code, rows, _ = _run(tmp_path / "run", *kwargs)
    assert code == EXIT_OK
    assert sum(float(row["train/unstable"]) for row in rows) > 3
    assert all(np.isfinite(float(row["loss/value"])) for row in rows)
    error = capsys.readouterr().err
    assert error.count("an observation or reward that is not finite or above 1e8") == 1


def test_all_environments_broken_stops_the_run(tmp_path, capsys):
    """At the fourth update; the chunk goes on to the sixth, whose evaluation is due."""
    path = tmp_path / "run"
    kwargs = ["--env-kwargs", "fault=obs_nan", "at=26", "length=1000"]
    code, rows, evaluated = _run(path, *kwargs)
    assert code == EXIT_STRICT
    error = capsys.readouterr().err
    assert (
        "stopped: update 4, seed 1: all environments gave an observation or reward"
        in error
    )
    assert [int(row["update"]) for row in rows] == [1, 2, 3, 4, 5, 6]
    assert checkpoint.steps(path / "checkpoints")[-1] == 6
    assert evaluated == [0, 3, 6]
