"""The epochs of an update: optimiser steps on minibatches, with early stopping."""

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
    average_num_valid,
    minibatch_loss,
    over_devices,
)
from purejaxppo.ppo.types import Batch, Metrics, Task, TrainState

# Spinning Up and Stable-Baselines3 stop at this multiple of target_kl.
_KL_STOP = 1.5


class EpochState(NamedTuple):
    """The carry of the scan over minibatches and epochs."""

    params: Params
    opt_state: optax.OptState
    stopped: jax.Array  # bool [], all further minibatches are skipped


class Outcome(struct.PyTreeNode):
    """The results of a minibatch; NaN and False if it was skipped."""

    ran: jax.Array  # bool []
    nonfinite: jax.Array  # bool [], the loss or gradient was non-finite: no step taken
    stopped: jax.Array  # bool [], a limit was exceeded: no step taken, nor later ones
    measures: Measures
    logged: Metrics  # gradient norms: of all parameters and of each output layer


class UpdateInputs(NamedTuple):
    """The inputs that all minibatches of an update share."""

    task: Task
    batch: Batch
    num_valid: jax.Array  # float32 [], valid samples per minibatch on average
    coefficients: Coefficients
    hypers: Hypers


Epoch = Callable[[UpdateInputs, EpochState, jax.Array], tuple[EpochState, Outcome]]


def run_epochs(
    task: Task,
    state: TrainState,
    batch: Batch,
    coefficients: Coefficients,
    hypers: Hypers,
    key: jax.Array,
) -> tuple[TrainState, Outcome]:
    """Train for several epochs on a batch.

    Each minibatch has an optimiser step, or with `accumulate_gradients` each epoch has
    one. If the KL of a minibatch, measured before its step, exceeds 1.5 target_kl, that
    step and all later minibatches are skipped. The statistics of that minibatch are
    still reported.

    Args:
      task: policy, configuration, and the axis to reduce over.
      state: parameters and optimiser before the update.
      batch: the training batch, [L, M].
      coefficients: the coefficients of this update.
      hypers: clip ranges, limits and the optimiser's hyperparameters.
      key: the random key of the order of samples.

    Returns:
      the state with new parameters and optimiser, and the outcome of every minibatch,
      [epochs, minibatches].
    """
    num_valid = average_num_valid(task, state.params, batch)
    inputs = UpdateInputs(task, batch, num_valid, coefficients, hypers)
    epoch_state = EpochState(state.params, state.opt_state, jnp.zeros((), bool))
    accumulate = task.config.accumulate_gradients
    epoch: Epoch = accumulated_epoch if accumulate else minibatch_epoch
    epoch_state, outcomes = jax.lax.scan(
        functools.partial(epoch, inputs),
        epoch_state,
        jax.random.split(key, task.config.epochs),
    )
    largest = reduce.tree_max(outcomes.measures.largest, task.axis_name)
    outcomes = outcomes.replace(measures=outcomes.measures.replace(largest=largest))
    state = state.replace(params=epoch_state.params, opt_state=epoch_state.opt_state)
    return state, outcomes


def minibatch_epoch(
    inputs: UpdateInputs, epoch_state: EpochState, key: jax.Array
) -> tuple[EpochState, Outcome]:
    """Run one epoch with an optimiser step per minibatch.

    Args:
      inputs: the inputs that all minibatches share.
      epoch_state: parameters and optimiser before the epoch.
      key: the random key of the order of samples.

    Returns:
      the state after the epoch, and the outcome of each minibatch.
    """

    def minibatch_step(epoch_state: EpochState, index: jax.Array):
        def optimise_minibatch(epoch_state: EpochState) -> tuple[EpochState, Outcome]:
            own = _gradient(inputs, epoch_state.params, index)
            grads, measures = over_devices(*own, inputs.task.axis_name)
            return _apply(inputs, epoch_state, grads, measures)

        return _unless_stopped(epoch_state, optimise_minibatch)

    return jax.lax.scan(minibatch_step, epoch_state, _shuffled(inputs, key))


def accumulated_epoch(
    inputs: UpdateInputs, epoch_state: EpochState, key: jax.Array
) -> tuple[EpochState, Outcome]:
    """Run one epoch with one optimiser step, on the mean of all minibatch gradients.

    Args:
      inputs: the inputs that all minibatches share.
      epoch_state: parameters and optimiser before the epoch.
      key: the random key of the order of samples.

    Returns:
      the state after the epoch, and an outcome per minibatch: its own measures, and the
      gradient norms of the single step.
    """
    num = inputs.task.config.num_minibatches

    def add_gradient(total: Params, index: jax.Array) -> tuple[Params, Measures]:
        grads, measures = _gradient(inputs, epoch_state.params, index)
        return jax.tree.map(jnp.add, total, grads), measures

    def optimise_minibatch(epoch_state: EpochState) -> tuple[EpochState, Outcome]:
        zeros = jax.tree.map(jnp.zeros_like, epoch_state.params)
        own = jax.lax.scan(add_gradient, zeros, _shuffled(inputs, key))
        total, measures = over_devices(*own, inputs.task.axis_name)
        grads = jax.tree.map(lambda g: g / num, total)
        # The statistics of a minibatch without valid samples are NaN; its loss is not.
        means = jax.tree.map(jnp.nanmean, measures)
        means = means.replace(loss=jnp.mean(measures.loss))
        epoch_state, outcome = _apply(inputs, epoch_state, grads, means)
        outcome = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), outcome)
        # A non-finite step is counted once per epoch, not once per minibatch.
        is_last = jnp.arange(num) == num - 1
        return epoch_state, outcome.replace(
            measures=measures, nonfinite=outcome.nonfinite & is_last
        )

    return _unless_stopped(epoch_state, optimise_minibatch)


def _shuffled(inputs: UpdateInputs, key: jax.Array) -> jax.Array:
    """Assign sequences to minibatches: indices [minibatches, M / minibatches].

    M is the number of sequences on this device, which all are its own.
    """
    config = inputs.task.config
    return shuffle.minibatches(
        key,
        config.num_envs,
        config.num_steps // config.window,
        config.num_minibatches,
        inputs.task.axis_name,
    )


def _gradient(
    inputs: UpdateInputs, params: Params, index: jax.Array
) -> tuple[Params, Measures]:
    """Return gradient and measures of this device's samples of a minibatch."""
    minibatch = take_sequences(inputs.batch, index)
    return jax.grad(minibatch_loss, has_aux=True)(
        params,
        inputs.task,
        minibatch,
        inputs.num_valid,
        inputs.coefficients,
        inputs.hypers,
    )


def take_sequences(batch: Batch, index: jax.Array) -> Batch:
    """Select the sequences of a minibatch: axis 0 of the carry, axis 1 of the rest."""
    carry = trees.take(batch.stored.carry, index)
    minibatch = batch.replace(stored=batch.stored.replace(carry={}))
    minibatch = trees.take(minibatch, index, axis=1)
    return minibatch.replace(stored=minibatch.stored.replace(carry=carry))


def _must_stop(measures: Measures, hypers: Hypers) -> jax.Array:
    return (measures.approx_kl > _KL_STOP * hypers.target_kl) | (
        measures.entropy_change > hypers.entropy_limit
    )


def _apply(
    inputs: UpdateInputs, epoch_state: EpochState, grads: Params, measures: Measures
) -> tuple[EpochState, Outcome]:
    """Take an optimiser step, unless training must stop or the step is not finite."""
    coefficients, hypers = inputs.coefficients, inputs.hypers
    params, opt_state, norm = optim.step(
        epoch_state.params,
        grads,
        epoch_state.opt_state,
        hypers,
        coefficients.learning_rate,
        coefficients.freeze_policy,
    )
    stop = _must_stop(measures, hypers)
    finite = jnp.isfinite(norm) & jnp.isfinite(measures.loss)
    params, opt_state = trees.where(
        stop | ~finite, (epoch_state.params, epoch_state.opt_state), (params, opt_state)
    )
    logged = {
        "grad_norm": norm,
        "policy/grad_norm": optax.tree.norm(grads.policy),
        "critic/grad_norm": optax.tree.norm(grads.critic),
    }
    for head in inputs.task.env.spec.heads:
        own = optax.tree.norm(head_parameters(grads.policy, head))
        # Without a valid sample the head has no gradient, which is not a gradient of 0.
        has_samples = measures.logged[f"head/{head}/valid"] > 0.0
        logged[f"head/{head}/grad_norm"] = jnp.where(has_samples, own, jnp.nan)
    outcome = Outcome(jnp.ones((), bool), ~finite, stop, measures, logged)
    return EpochState(params, opt_state, stop), outcome


def _unless_stopped(
    epoch_state: EpochState, run: Callable[[EpochState], tuple[EpochState, Outcome]]
) -> tuple[EpochState, Outcome]:
    """Call `run`, or if the epochs have stopped return an outcome of NaN and False."""
    shapes = jax.eval_shape(run, epoch_state)[1]

    def skip(epoch_state: EpochState) -> tuple[EpochState, Outcome]:
        def empty(s: jax.ShapeDtypeStruct) -> jax.Array:
            return jnp.full(s.shape, False if s.dtype == bool else jnp.nan, s.dtype)

        return epoch_state, jax.tree.map(empty, shapes)

    return jax.lax.cond(epoch_state.stopped, skip, run, epoch_state)
