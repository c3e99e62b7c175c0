"""The epochs of an update: minibatch after minibatch, with a stop on KL and entropy."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from purejaxppo import trees
from purejaxppo.config import Hypers
from purejaxppo.policy.networks import head_parameters
from purejaxppo.policy.policy import Params
from purejaxppo.ppo import optim, reduce, shuffle
from purejaxppo.ppo.coefficients import Coefficients
from purejaxppo.ppo.minibatch import (
    Measures,
    ValidCounts,
    minibatch_loss,
    valid_counts,
)
from purejaxppo.ppo.types import Batch, Metrics, Task, TrainState

# Spinning Up and Stable-Baselines3 stop at this multiple of target_kl.
_KL_STOP = 1.5


class Learning(NamedTuple):
    """What moves from minibatch to minibatch."""

    params: Params
    opt_state: optax.OptState
    stopped: jax.Array  # bool []


class Outcome(struct.PyTreeNode):
    """What came of a minibatch. All NaN and False where it did not run."""

    ran: jax.Array  # bool []
    nonfinite: jax.Array  # bool [], its step was skipped for that
    stopped: jax.Array  # bool [], its step and all later ones were skipped: too far
    measures: Measures
    logged: Metrics  # of the gradient: norms, of all and of each head's output layer


class Work(NamedTuple):
    """What all minibatches of an update share."""

    task: Task
    batch: Batch
    expected: ValidCounts
    coefficients: Coefficients
    hypers: Hypers


Epoch = Callable[[Work, Learning, jax.Array], tuple[Learning, Outcome]]


def run_epochs(
    task: Task,
    state: TrainState,
    batch: Batch,
    coefficients: Coefficients,
    hypers: Hypers,
    key: jax.Array,
) -> tuple[TrainState, Outcome]:
    """Epochs over the batch: a step per minibatch, or one per epoch on their sum.

    Above 1.5 target_kl, measured before the step, that step and all that would
    follow are skipped; what the minibatch that said so measured is kept.

    Args:
      task: policy, configuration, and the axis to reduce over.
      state: parameters and optimiser before the update.
      batch: what is learned from, [L, M].
      coefficients: of this update.
      hypers: clip ranges, limits, Adam's numbers.
      key: of the order of samples.

    Returns:
      the state with new parameters and optimiser, and the outcome of every minibatch,
      [epochs, minibatches].
    """
    expected = valid_counts(task, state.params, batch)
    work = Work(task, batch, expected, coefficients, hypers)
    learning = Learning(state.params, state.opt_state, jnp.zeros((), bool))
    accumulate = task.config.accumulate_gradients
    epoch: Epoch = accumulated_epoch if accumulate else minibatch_epoch
    learning, outcomes = jax.lax.scan(
        functools.partial(epoch, work),
        learning,
        jax.random.split(key, task.config.epochs),
    )
    state = state.replace(params=learning.params, opt_state=learning.opt_state)
    return state, outcomes


def minibatch_epoch(
    work: Work, learning: Learning, key: jax.Array
) -> tuple[Learning, Outcome]:
    """One pass over the batch with an optimiser step per minibatch.

    Args:
      work: what all minibatches share.
      learning: where the pass begins.
      key: of the order of samples.
    """

    def minibatch_step(learning: Learning, index: jax.Array):
        def run(learning: Learning) -> tuple[Learning, Outcome]:
            grads, measures = _gradient(work, learning.params, index)
            return _apply(work, learning, grads, measures)

        return _unless_stopped(learning, run)

    return jax.lax.scan(minibatch_step, learning, _shuffled(work, key))


def accumulated_epoch(
    work: Work, learning: Learning, key: jax.Array
) -> tuple[Learning, Outcome]:
    """One pass over the batch with one optimiser step, on the mean of all gradients.

    Args:
      work: what all minibatches share.
      learning: where the pass begins.
      key: of the order of samples.

    Returns:
      where it ends, and an outcome per minibatch: the one step's, with the measures
      that each minibatch has of its own.
    """
    num = work.task.config.num_minibatches

    def add(total: Params, index: jax.Array) -> tuple[Params, Measures]:
        grads, measures = _gradient(work, learning.params, index)
        return jax.tree.map(jnp.add, total, grads), measures

    def run(learning: Learning) -> tuple[Learning, Outcome]:
        zeros = jax.tree.map(jnp.zeros_like, learning.params)
        total, measures = jax.lax.scan(add, zeros, _shuffled(work, key))
        grads = jax.tree.map(lambda g: g / num, total)
        # A minibatch without a valid sample has no mean; its loss is finite.
        means = jax.tree.map(jnp.nanmean, measures)
        means = means.replace(loss=jnp.mean(measures.loss))
        learning, outcome = _apply(work, learning, grads, means)
        outcome = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), outcome)
        # One step, so one fault at most.
        is_last = jnp.arange(num) == num - 1
        return learning, outcome.replace(
            measures=measures, nonfinite=outcome.nonfinite & is_last
        )

    return _unless_stopped(learning, run)


def _shuffled(work: Work, key: jax.Array) -> jax.Array:
    """The sequences of each minibatch, int32 [minibatches, M / minibatches]."""
    order = shuffle.permutation(key, work.batch.advantages.shape[1])
    return order.reshape(work.task.config.num_minibatches, -1)


def _gradient(work: Work, params: Params, index: jax.Array) -> tuple[Params, Measures]:
    minibatch = take_sequences(work.batch, index)
    grads, measures = jax.grad(minibatch_loss, has_aux=True)(
        params, work.task, minibatch, work.expected, work.coefficients, work.hypers
    )
    return reduce.tree_mean(grads, work.task.axis_name), measures


def take_sequences(batch: Batch, index: jax.Array) -> Batch:
    """The sequences of a minibatch: axis 1 of everything but the carry's axis 0."""
    carry = trees.take(batch.stored.carry, index)
    rest = batch.replace(stored=batch.stored.replace(carry={}))
    rest = trees.take(rest, index, axis=1)
    return rest.replace(stored=rest.stored.replace(carry=carry))


def _must_stop(measures: Measures, hypers: Hypers) -> jax.Array:
    return (measures.approx_kl > _KL_STOP * hypers.target_kl) | (
        measures.entropy_change > hypers.entropy_limit
    )


def _apply(
    work: Work, learning: Learning, grads: Params, measures: Measures
) -> tuple[Learning, Outcome]:
    """The optimiser's step, or none where it must stop or is not finite."""
    coefficients, hypers = work.coefficients, work.hypers
    params, opt_state, norm = optim.step(
        learning.params,
        grads,
        learning.opt_state,
        hypers,
        coefficients.learning_rate,
        coefficients.freeze_policy,
    )
    stop = _must_stop(measures, hypers)
    finite = jnp.isfinite(norm) & jnp.isfinite(measures.loss)
    params, opt_state = trees.where(
        stop | ~finite, (learning.params, learning.opt_state), (params, opt_state)
    )
    logged = {"grad_norm": norm}
    for head in work.task.env.spec.heads:
        own = optax.tree.norm(head_parameters(grads.policy, head))
        # Without a valid sample there is no gradient, rather than one of 0.
        has_samples = measures.logged[f"head/{head}/valid"] > 0.0
        logged[f"head/{head}/grad_norm"] = jnp.where(has_samples, own, jnp.nan)
    outcome = Outcome(jnp.ones((), bool), ~finite, stop, measures, logged)
    return Learning(params, opt_state, stop), outcome


def _unless_stopped(
    learning: Learning, run: Callable[[Learning], tuple[Learning, Outcome]]
) -> tuple[Learning, Outcome]:
    """Run, or pass through with an outcome of NaN: "not run" is not a number."""
    shapes = jax.eval_shape(run, learning)[1]

    def skip(learning: Learning) -> tuple[Learning, Outcome]:
        def empty(s: jax.ShapeDtypeStruct) -> jax.Array:
            return jnp.full(s.shape, False if s.dtype == bool else jnp.nan, s.dtype)

        return learning, jax.tree.map(empty, shapes)

    return jax.lax.cond(learning.stopped, skip, run, learning)
