"""One update of PPO: roll out, estimate advantages, optimise, measure."""

import jax
import jax.numpy as jnp

from purejaxppo import autoreset
from purejaxppo.config import Config, Hypers
from purejaxppo.ppo import coefficients as coefficients_lib
from purejaxppo.ppo import normalize
from purejaxppo.ppo.batch import make_batch
from purejaxppo.ppo.diagnostics import diagnostics, normalizer
from purejaxppo.ppo.epochs import run_epochs
from purejaxppo.ppo.rollout import episode_metrics, is_all_unstable, rollout
from purejaxppo.ppo.status import count_still, update_status
from purejaxppo.ppo.summary import Summary, summarise
from purejaxppo.ppo.types import Batch, Metrics, Task, TrainState


def as_arrays(hypers: Hypers) -> Hypers:
    """Convert all hyperparameters to float32 arrays, so that none has a weak type.

    An optimisation barrier hides their values from XLA. With constants it would
    simplify operations, for example a division to a product, and round differently than
    with the same numbers as arguments.
    """
    hypers = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hypers)
    return jax.lax.optimization_barrier(hypers)


def update(
    task: Task, state: TrainState, hypers: Hypers | None = None
) -> tuple[TrainState, Metrics]:
    """Run one update: collect a rollout, estimate advantages, optimise, log.

    Args:
      task: environment, policy and configuration.
      state: the state from `init` or from the previous update.
      hypers: the hyperparameters; None for those of the configuration.

    Returns:
      the state for the next update, and the metrics of this one.
    """
    hypers = as_arrays(task.config.hypers if hypers is None else hypers)
    key, key_starts, key_rollout, key_epochs = jax.random.split(state.key, 4)
    before, config = state, task.config
    starts = autoreset.draw_starts(
        task.env, config.reset, config.num_starts, key_starts
    )
    state, transitions, episodes, obs_stats = rollout(task, state, starts, key_rollout)
    batch, state, estimates = make_batch(
        task, state, transitions, before.carry["critic"], hypers
    )
    state, summary = optimise(task, state, batch, hypers, key_epochs)
    metrics = summary.logged | estimates | episode_metrics(task, episodes)
    metrics |= normalizer(obs_stats) | diagnostics(
        task,
        before.params,
        state.params,
        transitions,
        batch,
        episodes,
        normalize.return_std(state.return_stats),
        hypers,
    )
    still_updates = count_still(
        before.still_updates, summary, _policy_moves(task, before)
    )
    metrics["status"] = update_status(
        summary,
        still_updates,
        metrics["train/no_valid_action"],
        metrics["train/unstable"],
        is_all_unstable(episodes, task.axis_name),
    )
    # Only now, because the loss must normalise observations as the rollout did.
    state = state.replace(
        obs_stats=obs_stats,
        key=key,
        update_count=state.update_count + 1,
        still_updates=still_updates,
    )
    return state, metrics


def optimise(
    task: Task, state: TrainState, batch: Batch, hypers: Hypers, key: jax.Array
) -> tuple[TrainState, Summary]:
    """Run the epochs of one update, and adapt the coefficients of the next.

    Args:
      task: environment, policy and configuration.
      state: the state after the rollout.
      batch: the training batch, [L, M].
      hypers: the hyperparameters, as arrays.
      key: the random key of the order of samples.

    Returns:
      the state with new parameters, optimiser state and adaptive factors; a summary.
    """
    coefficients = coefficients_lib.coefficients(task, state, hypers)
    after, outcomes = run_epochs(task, state, batch, coefficients, hypers, key)
    summary = summarise(outcomes, coefficients)
    adaptive = coefficients_lib.adapt(
        task,
        state,
        hypers,
        summary.approx_kl,
        summary.stopped,
        summary.head_entropy,
    )
    return after.replace(adaptive=adaptive), summary


def _policy_moves(task: Task, state: TrainState) -> jax.Array:
    """Return whether the ratio should differ from 1 at the end of this update.

    It cannot during the critic's warm-up, nor if an update has a single optimiser step,
    because the ratio is measured before each step.
    """
    warm = state.update_count >= task.config.critic_warmup
    return warm & (_steps_per_update(task.config) > 1)


def _steps_per_update(config: Config) -> int:
    steps = 1 if config.accumulate_gradients else config.num_minibatches
    return config.epochs * steps


def run_updates(
    task: Task, state: TrainState, hypers: Hypers, num_updates: int
) -> tuple[TrainState, Metrics]:
    """Run several updates in a scan.

    Args:
      task: environment, policy and configuration.
      state: the state before the first of these updates.
      hypers: the hyperparameters.
      num_updates: the number of updates.

    Returns:
      the state after them, and the metrics of each, [num_updates].
    """

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return update(task, state, hypers)

    return jax.lax.scan(body, state, length=num_updates)
