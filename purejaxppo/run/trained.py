"""Trained policies: load one from its run, choose actions with it, evaluate it."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo import trees
from purejaxppo.env import Action, Env, State
from purejaxppo.errors import ConfigError, whole_number
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Carries
from purejaxppo.ppo import normalize
from purejaxppo.ppo.learner import Learner, make_learner
from purejaxppo.ppo.types import TrainState
from purejaxppo.run import (
    arrays,
    best,
    checkpoint,
    folder,
    preflight,
    record,
    seeds,
)
from purejaxppo.run.arrays import Arrays
from purejaxppo.run.journal import Metadata
from purejaxppo.run.options import Options
from purejaxppo.run.trust import Trust, check_imports

Which = Literal["best", "latest"]


class Act(Protocol):
    """A function that returns the mode of the policy, for one environment."""

    def __call__(
        self, state: State, carry: Carries | None = None, start: bool = False
    ) -> tuple[Action, Carries]:
        """Choose an action.

        Args:
          state: the state of one environment, without a batch axis.
          carry: the carry returned by the last call; None at the first step.
          start: whether `state` is the first of an episode.

        Returns:
          the action, and the carry for the next call.
        """
        ...


class TrainedPolicy(NamedTuple):
    """A trained policy.

    Attributes:
      learner: the learner of the run's configuration.
      state: the restored training state, of one seed.
      act: (state of one environment, carry=None, start=False) -> (action, carry).
      update: the number of updates before the checkpoint.
    """

    learner: Learner
    state: TrainState
    act: Act
    update: int


def read_checkpoint(
    path: Path,
    which: Which,
    options: Options,
    seed_index: int,
    warn: Callable[[str], None],
    field: str = "run",
) -> tuple[int, Arrays]:
    """Read the newest undamaged checkpoint of a run, or the one where a seed was best.

    Args:
      path: the run's folder.
      which: "best", by the worst evaluation block of that seed, or "latest".
      options: the run's options.
      seed_index: index of one of the run's seeds, from 0.
      warn: prints a warning.
      field: name of the run in an error.

    Returns:
      the number of updates before it, and the arrays of all seeds by tree path.

    Raises:
      PurejaxppoError: there is no such checkpoint.
    """
    checkpoints = path / folder.CHECKPOINTS
    if not checkpoint.steps(checkpoints):
        raise ConfigError(field, str(path), "a run with a finished checkpoint")
    step, named, metadata = checkpoint.read_latest(checkpoints, warn)
    saved = cast(Metadata, metadata)["best"]
    own = best.from_json(saved, options.num_seeds)[seed_index]
    if which == "best" and own is not None and own.update != step:
        step, (named, _) = own.update, checkpoint.read(checkpoints, own.update)
    return step, named


def check_seed_index(index: int, options: Options, field: str = "seed_index") -> None:
    """Check that a run has that seed.

    Raises:
      ConfigError: it has not.
    """
    if not 0 <= index < options.num_seeds:
        allowed = f"a number from 0 to {options.num_seeds - 1}"
        raise ConfigError(field, index, allowed)


def _warn(text: str) -> None:
    print(text, file=sys.stderr)


def load_policy(
    run: str | Path,
    which: Which = "best",
    seed_index: int = 0,
    *,
    env: Env | str | None = None,
    distribution: str | None = None,
    trunk: str | None = None,
    trust_env: bool = False,
) -> TrainedPolicy:
    """Load the policy of a run.

    Args:
      run: the run's folder.
      which: "best", by the worst evaluation block of that seed, or "latest".
      seed_index: index of one of the run's seeds, from 0.
      env: the environment, or its name as the run has it. It is needed where the name
        is "package.module:factory", because a run must not decide what is imported.
      distribution: the same for a "package.module:factory" of a distribution.
      trunk: the same for one of the hidden layers.
      trust_env: import whatever the run names.

    Raises:
      PurejaxppoError: there is no such run, seed or checkpoint.
    """
    path = Path(run)
    resolved, options = record.read_config(path, "run")
    check_seed_index(seed_index, options)
    if which not in get_args(Which):
        raise ConfigError("which", which, "one of best, latest")
    preflight.check_precision()
    check_imports(resolved.config, Trust(env, distribution, trunk, trust_env), path)
    record.check_unchanged(path, "run")
    made = None if isinstance(env, str) else env
    learner = make_learner(resolved.config, made)
    record.check_env_version(path, learner.task.env.spec, "run")
    _, named = read_checkpoint(path, which, options, seed_index, _warn)
    shapes = seeds.state_shapes(learner, options)
    state = arrays.unflatten(named, shapes, path / folder.CHECKPOINTS)
    state = seeds.of_seed(state, seed_index, options.num_seeds)
    return TrainedPolicy(
        learner, state, make_act(learner, state), int(state.update_count)
    )


def make_act(learner: Learner, train_state: TrainState) -> Act:
    """Make the function that chooses a policy's actions, for one environment.

    Args:
      learner: the learner of the policy's configuration.
      train_state: its parameters and normaliser.
    """

    @jax.jit
    def choose(
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
        return choose(state, carry, jnp.asarray(first))

    return act


def evaluate(
    run: str | Path,
    which: Which = "best",
    *,
    deterministic: bool = True,
    episodes: int | None = None,
    seed_index: int = 0,
    env: Env | str | None = None,
    distribution: str | None = None,
    trunk: str | None = None,
    trust_env: bool = False,
) -> dict[str, float]:
    """Evaluate the policy of a run on its fixed blocks of seeds.

    Args:
      run: the run's folder.
      which: "best", by the worst evaluation block of that seed, or "latest".
      deterministic: take the mode of the policy; if False, sample.
      episodes: episodes per block; None for as many as in training.
      seed_index: index of one of the run's seeds, from 0.
      env: the environment, or its name as the run has it; see `load_policy`.
      distribution, trunk: their factories, as the run has them.
      trust_env: import whatever the run names.

    Returns:
      metric -> value, with the names of the evaluations in training.

    Raises:
      PurejaxppoError: there is no such run, seed or checkpoint, or `episodes` is below
        1.
    """
    check_episodes(episodes)
    loaded = load_policy(
        run,
        which,
        seed_index,
        env=env,
        distribution=distribution,
        trunk=trunk,
        trust_env=trust_env,
    )
    return evaluate_policy(loaded, deterministic=deterministic, episodes=episodes)


def check_episodes(episodes: int | None) -> None:
    """Check the number of episodes per block of `evaluate`.

    Raises:
      ConfigError: it is below 1 or too large.
    """
    if episodes is not None:
        whole_number("episodes", episodes, 1, 2**16 - 1)


def evaluate_policy(
    loaded: TrainedPolicy, *, deterministic: bool = True, episodes: int | None = None
) -> dict[str, float]:
    """Evaluate a loaded policy; see `evaluate`.

    Args:
      loaded: the policy.
      deterministic: take the mode of the policy; if False, sample.
      episodes: episodes per block; None for as many as in training.
    """
    learner = loaded.learner
    if episodes is not None:
        config = dataclasses.replace(learner.task.config, eval_episodes=episodes)
        learner = make_learner(config, learner.task.env)
    play = jax.jit(lambda state: learner.evaluate(state, deterministic=deterministic))
    metrics = play(loaded.state)
    return {name: float(np.asarray(metrics[name])) for name in sorted(metrics)}
