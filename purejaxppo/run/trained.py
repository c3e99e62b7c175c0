"""A trained policy, loaded from its run: act with it, or evaluate it."""

import dataclasses
import sys
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo import trees
from purejaxppo.env import Action, State
from purejaxppo.errors import ConfigError
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Carries
from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import Learner, make_learner
from purejaxppo.ppo.types import TrainState
from purejaxppo.run import checkpoint, folder, record, seeds
from purejaxppo.run.journal import Metadata, best_evaluation

Which = Literal["best", "latest"]


class Act(Protocol):
    """Chooses the action of one environment: the mode of the policy."""

    def __call__(
        self, state: State, carry: Carries | None = None, start: bool = False
    ) -> tuple[Action, Carries]:
        """Choose an action.

        Args:
          state: of one environment, without a batch axis.
          carry: what the call before gave; None at the first step.
          start: whether `state` is the first of an episode.

        Returns:
          The action, and the carry for the next call.
        """
        ...


class TrainedPolicy(NamedTuple):
    """A policy and what it came from.

    Attributes:
      learner, state: of the run; with several seeds, those of the one asked for.
      act: (state of one environment, carry=None, start=False) -> (action, carry).
      update: the checkpoint's update.
    """

    learner: Learner
    state: TrainState
    act: Act
    update: int


def _restore(path: Path, which: Which, shapes: TrainState) -> TrainState:
    """The state of the newest whole checkpoint, or of the best that it knows of."""
    if which not in get_args(Which):
        raise ConfigError("which", which, "one of best, latest")
    checkpoints = path / folder.CHECKPOINTS
    if not checkpoint.steps(checkpoints):
        raise ConfigError("run", str(path), "a run with a finished checkpoint")
    state, metadata = checkpoint.restore_latest(checkpoints, shapes, _warn)
    best = best_evaluation(cast(Metadata, metadata))
    if which == "best" and best is not None:
        state, _ = checkpoint.restore(checkpoints, best.update, shapes)
    return state


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def load_policy(
    run: str | Path, which: Which = "best", seed_index: int = 0
) -> TrainedPolicy:
    """Load the policy of a run.

    Args:
      run: the run's folder.
      which: "best" by the worst evaluation block, or "latest".
      seed_index: which of the run's seeds, from 0.

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
    record.check_env_version(path, learner.task.env.spec, "run")
    state = _restore(path, which, seeds.state_shapes(learner, options))
    if options.num_seeds > 1:
        state = trees.take(state, seed_index)
    return TrainedPolicy(
        learner, state, _make_act(learner, state), int(state.update_count)
    )


def _make_act(learner: Learner, train_state: TrainState) -> Act:
    @jax.jit
    def jitted(
        state: State, carry: Carries, start: jax.Array
    ) -> tuple[Action, Carries]:
        inputs = PolicyInput(
            obs=normalize.apply(train_state.obs_stats, state.obs),
            start=start,
            action_mask=state.action_mask,
            active=state.active,
        )
        action, carry = learner.task.policy.mode(
            train_state.params, trees.unsqueeze(inputs), carry
        )
        return trees.take(action, 0), carry

    def act(
        state: State, carry: Carries | None = None, start: bool = False
    ) -> tuple[Action, Carries]:
        first = start or carry is None
        carry = learner.task.policy.initial_carry(1) if carry is None else carry
        return jitted(state, carry, jnp.asarray(first))

    return act


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
      run: the run's folder.
      which: "best" by the worst evaluation block, or "latest".
      deterministic: the mode of the policy, or samples from it.
      episodes: per block; None: as many as in training.
      seed_index: which of the run's seeds, from 0.

    Returns:
      metric -> value, under the names of training's evaluations.

    Raises:
      PurejaxppoError: no such run, seed or checkpoint; no episodes.
    """
    if episodes is not None and episodes < 1:
        raise ConfigError("episodes", episodes, "a whole number of at least 1")
    loaded = load_policy(run, which, seed_index)
    learner = loaded.learner
    if episodes is not None:
        config = dataclasses.replace(learner.task.config, eval_episodes=episodes)
        learner = make_learner(config, learner.task.env)
    f = jax.jit(lambda state: learner.evaluate(state, deterministic=deterministic))
    metrics = f(loaded.state)
    return {name: float(np.asarray(metrics[name])) for name in sorted(metrics)}
