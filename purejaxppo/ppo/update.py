"""One update of PPO: roll out, estimate advantages, optimise, measure."""

import jax
import jax.numpy as jnp

from purejaxppo import autoreset
from purejaxppo.config import Config, Hypers
from purejaxppo.ppo import coefficients as coefficients_lib
from purejaxppo.ppo.batch import make_batch
from purejaxppo.ppo.epochs import run_epochs
from purejaxppo.ppo.rollout import episode_metrics, is_all_unstable, rollout
from purejaxppo.ppo.status import count_still, update_status
from purejaxppo.ppo.summary import Summary, summarise
from purejaxppo.ppo.types import Batch, Metrics, Task, TrainState


def as_arrays(hypers: Hypers) -> Hypers:
    """Every hyperparameter as a float32 array: a weak type would compile twice.

    Behind a barrier, so that XLA never sees a constant: it would fold one, a division
    into a product say, and round otherwise than where the same number is an argument.
    """
    hypers = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), hypers)
    return jax.lax.optimization_barrier(hypers)


def update(
    task: Task, state: TrainState, hypers: Hypers | None = None
) -> tuple[TrainState, Metrics]:
    """One update: roll out, estimate advantages, optimise, measure.

    Args:
      task: what is trained.
      state: from `init` or the update before.
      hypers: the numbers of PPO; None: those of the configuration.

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
    # Only now: the statistics that this rollout was sampled with served its update.
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
    """The epochs of one update, and what follows from them for the next.

    Args:
      task: what is trained.
      state: after the rollout.
      batch: what is learned from, [L, M].
      hypers: the numbers of PPO, as arrays.
      key: of the order of samples.

    Returns:
      the state with new parameters, optimiser and adaptive factors, and a summary.
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
    """Whether ratios should leave 1 in this update: not while the critic warms up, and
    not where a single step follows the only look at them."""
    warm = state.update_count >= task.config.critic_warmup
    return warm & (_steps_per_update(task.config) > 1)


def _steps_per_update(config: Config) -> int:
    steps = 1 if config.accumulate_gradients else config.num_minibatches
    return config.epochs * steps


def run_updates(
    task: Task, state: TrainState, hypers: Hypers, num_updates: int
) -> tuple[TrainState, Metrics]:
    """Scan the update.

    Args:
      task: what is trained.
      state: before the first of these updates.
      hypers: the numbers of PPO.
      num_updates: how many.

    Returns:
      the state after them, and the metrics of each, [num_updates].
    """

    def body(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
        return update(task, state, hypers)

    return jax.lax.scan(body, state, length=num_updates)
