"""What a rollout says about its episodes, by hand."""

import dataclasses

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal, small_config
from probe_envs import Counter, Dice

from purejaxppo import autoreset
from purejaxppo.env import Box, Choice, Discrete
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.rollout import EpisodeStats, episode_metrics, rollout
from purejaxppo.ppo.types import Task

# Three steps of two environments; three episodes end.
_DONE = [[False, True], [True, False], [True, False]]


def _stats(done=_DONE):
    table = jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    return EpisodeStats(
        reward=table,
        terminated=jnp.asarray(done),
        truncated=jnp.zeros_like(jnp.asarray(done)),
        episode_return=10.0 * table,
        episode_length=table.astype(jnp.int32),
        # Not of an ended episode: may be anything.
        metrics={"success": jnp.where(jnp.asarray(done), table, jnp.nan)},
        start_index=jnp.asarray([[0, 5], [5, 1], [7, 2]], jnp.int32),
        no_valid_action=jnp.asarray([[True, False], [False, False], [True, True]]),
        unstable=jnp.asarray([[True, False], [False, False], [False, True]]),
    )


def test_figures_are_those_of_ended_episodes():
    metrics = episode_metrics(Task(None, None, small_config()), _stats())
    expected = {
        "train/episode_return": (20.0 + 30.0 + 50.0) / 3,
        "train/episode_length": (2.0 + 3.0 + 5.0) / 3,
        "train/success": (2.0 + 3.0 + 5.0) / 3,
        "train/episodes": 3.0,
        # Counted wherever it happened.
        "train/no_valid_action": 3.0,
        "train/unstable": 2.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6, err_msg=name)


def test_without_an_ended_episode_there_is_no_figure():
    metrics = episode_metrics(
        Task(None, None, small_config()), _stats([[False] * 2] * 3)
    )
    assert np.isnan(metrics["train/episode_return"])
    assert np.isnan(metrics["train/success"])
    assert float(metrics["train/episodes"]) == 0.0
    assert float(metrics["train/distinct_starts"]) == 0.0


@pytest.mark.parametrize(
    ("reset", "starts"),
    [
        ("pool", 2.0),  # 5 twice, and 7
        ("fresh", 3.0),
        ("cached", 2.0),  # both environments, each from its own
    ],
)
def test_distinct_starts(reset, starts):
    metrics = episode_metrics(Task(None, None, small_config(reset=reset)), _stats())
    assert float(metrics["train/distinct_starts"]) == starts


def _primitives(jaxpr):
    """Names of all operations of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _primitives(inner)


def test_starts_too_large_to_be_drawn_ahead_are_the_same(monkeypatch):
    config = small_config(reset="fresh", num_steps=6)
    learner = make_learner(config, Counter())
    state, _ = jax.jit(learner.init)(jax.random.key(0))

    def play():
        return jax.jit(lambda state, key: rollout(learner.task, state, None, key))(
            state, jax.random.key(1)
        )

    ahead = play()
    monkeypatch.setattr(autoreset, "_MAX_BYTES", 0)
    assert not autoreset.can_draw_ahead(learner.task.env, 1)
    assert_trees_equal(play(), ahead)


class HeadsOfEveryKind(Counter):
    """Draws nothing in its own step."""

    @property
    def spec(self):
        heads = {"op": Discrete(3), "aim": Box(2), "cards": Choice(4, 2)}
        return dataclasses.replace(super().spec, heads=heads)


@pytest.mark.parametrize(
    ("distribution", "env"),
    [
        ("normal", HeadsOfEveryKind()),
        ("truncated_normal", HeadsOfEveryKind()),
        ("tanh_normal", HeadsOfEveryKind()),
        ("normal", Dice(thrown=False)),
    ],
    ids=["normal", "truncated_normal", "tanh_normal", "keys"],
)
@pytest.mark.parametrize("reset", ["fresh", "pool", "cached"])
def test_nothing_is_drawn_inside_the_scan_of_steps(distribution, env, reset):
    """On a CPU random numbers there take as long as the networks of a small one."""
    config = small_config(distribution=distribution, reset=reset, num_steps=6)
    learner = make_learner(config, env)
    state, _ = jax.eval_shape(learner.init, jax.random.key(0))

    def run(state, key):
        starts = autoreset.draw_starts(
            learner.task.env, config.reset, config.num_starts, key
        )
        return rollout(learner.task, state, starts, key)

    jaxpr = jax.make_jaxpr(run)(state, jax.random.key(0)).jaxpr
    (steps,) = [
        equation
        for equation in jaxpr.eqns
        if equation.primitive.name == "scan" and equation.params["length"] == 6
    ]
    drawn = {"random_bits", "random_split", "random_fold_in", "threefry2x32"}
    assert drawn & set(_primitives(jaxpr))
    assert not drawn & set(_primitives(steps.params["jaxpr"].jaxpr))
