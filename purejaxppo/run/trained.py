"""A trained policy, loaded from its run: act with it, or evaluate it."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.errors import ConfigError
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import Learner, make_learner
from purejaxppo.ppo.types import TrainState
from purejaxppo.run import checkpoint, folder, record, seeds

Which = Literal["best", "latest"]


class Loaded(NamedTuple):
    """A policy and what it came from.

    Attributes:
      learner, state: of the run; with several seeds, those of the one asked for.
      act: (State of one environment, carry or None, start=False) -> (action, carry).
        Deterministic; pass the carry on if the policy is recurrent.
      update: the checkpoint's update.
    """

    learner: Learner
    state: TrainState
    act: Callable[..., Any]
    update: int


def _restore(path: Path, which: Which, like: TrainState) -> TrainState:
    """The state of the newest whole checkpoint, or of the best that it knows of."""
    if which not in get_args(Which):
        raise ConfigError("which", which, "one of best, latest")
    checkpoints = path / folder.CHECKPOINTS
    if not checkpoint.steps(checkpoints):
        raise ConfigError("run", str(path), "a run with a finished checkpoint")
    state, memory = checkpoint.restore_latest(checkpoints, like, _warn)
    best = memory["best"].get("update")
    if which == "best" and best is not None:
        state, _ = checkpoint.restore(checkpoints, best, like)
    return state


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def load_policy(run: str | Path, which: Which = "best", seed_index: int = 0) -> Loaded:
    """The policy of a run.

    Args:
      run: the run's folder.
      which: "best" by the worst evaluation block, or "latest".
      seed_index: which of the run's seeds.

    Raises:
      PurejaxppoError: no such run, seed or checkpoint.
    """
    path = Path(run)
    resolved, options = record.read_config(path, "run")
    if not 0 <= seed_index < options.num_seeds:
        raise ConfigError(
            "seed_index", seed_index, f"a number from 0 to {options.num_seeds - 1}"
        )
    learner = make_learner(resolved.config)
    record.check_env_version(path, learner.env.spec, "run")
    state = _restore(path, which, seeds.state_shapes(learner, options))
    if options.num_seeds > 1:
        state = jax.tree.map(lambda x: x[seed_index], state)
    update = int(state.update_count)
    return Loaded(learner, state, _make_act(learner, state), update)


def _make_act(learner: Learner, train_state: TrainState) -> Callable[..., Any]:
    @jax.jit
    def act(state: Any, carry: Any, start: jax.Array) -> Any:
        inputs = PolicyInput(
            obs=normalize.apply(train_state.obs_stats, state.obs),
            start=start,
            action_mask=state.action_mask,
            active=state.active,
        )
        inputs = jax.tree.map(lambda x: x[None], inputs)
        action, carry = learner.policy.mode(train_state.params, inputs, carry)
        return jax.tree.map(lambda x: x[0], action), carry

    def bound(state: Any, carry: Any = None, start: bool = False) -> Any:
        fresh = carry is None
        carry = learner.policy.initial_carry(1) if fresh else carry
        return act(state, carry, jnp.asarray(start or fresh))

    return bound


def evaluate(
    run: str | Path,
    which: Which = "best",
    *,
    deterministic: bool = True,
    episodes: int | None = None,
    seed_index: int = 0,
) -> dict[str, float]:
    """Evaluate a run's policy on its fixed seed blocks.

    Args:
      run, which, seed_index: see `load_policy`.
      deterministic: the mode of the policy, or samples from it.
      episodes: per block; None: as many as in training.

    Returns:
      metric -> value, under the names of training's evaluations.
    """
    if episodes is not None and episodes < 1:
        raise ConfigError("episodes", episodes, "a whole number of at least 1")
    loaded = load_policy(run, which, seed_index)
    learner = loaded.learner
    if episodes is not None:
        config = dataclasses.replace(learner.config, eval_episodes=episodes)
        learner = make_learner(config, learner.env)
    f = jax.jit(lambda state: learner.evaluate(state, deterministic=deterministic))
    metrics = f(loaded.state)
    return {name: float(np.asarray(metrics[name])) for name in sorted(metrics)}
