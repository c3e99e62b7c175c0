"""The rules of the scheduling problem, as pure functions.

Letters: K jobs of an instance, J slots of the queue, M machines, H ticks of the longest
job. Time is in ticks. A job runs on one machine and is never interrupted, so its
completion and its reward are known when it starts.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

# Values of `Board.start` for jobs that have not started.
WAITING = -1
LOST = -2


@dataclasses.dataclass(frozen=True)
class Limits:
    """The static parameters of a shop.

    Attributes:
      num_machines: M, identical machines.
      capacity: units of resource per machine.
      num_slots: J, the number of waiting jobs that are observed and can be started.
      max_duration: H, the duration of the longest job.
      patience: number of ticks; a job that completes so long after its deadline counts
        as much as a lost job.
      horizon: the last tick; jobs that have not started by then are lost.
    """

    num_machines: int = 2
    capacity: int = 8
    num_slots: int = 10
    max_duration: int = 16
    patience: int = 8
    horizon: int = 64


class Instance(struct.PyTreeNode):
    """The jobs of an episode, sorted by deadline."""

    arrival: jax.Array  # int32 [K]
    duration: jax.Array  # int32 [K], 1 to H
    deadline: jax.Array  # int32 [K], of the completion; ascending
    need: jax.Array  # int32 [K], 1 to the capacity of a machine
    weight: jax.Array  # float32 [K], positive
    bound: jax.Array  # float32 [], upper bound of the return, see generator.py


class Board(struct.PyTreeNode):
    """The state of a shop at a tick."""

    instance: Instance
    time: jax.Array  # int32 []
    start: jax.Array  # int32 [K], tick of the start, or WAITING or LOST
    used: jax.Array  # int32 [M, H], resource in use h ticks from now


class Queue(struct.PyTreeNode):
    """The J waiting jobs with the earliest deadlines; zeros in empty slots."""

    job: jax.Array  # bool [J, K], one-hot index of the job in the instance
    present: jax.Array  # bool [J], the slot holds a job
    duration: jax.Array  # int32 [J]
    deadline: jax.Array  # int32 [J]
    need: jax.Array  # int32 [J]
    weight: jax.Array  # float32 [J]
    startable: jax.Array  # bool [J], some machine has enough free resource now


def new(instance: Instance, limits: Limits) -> Board:
    """Return the shop at tick 0, with idle machines."""
    return Board(
        instance=instance,
        time=jnp.zeros((), jnp.int32),
        start=jnp.full(instance.arrival.shape, WAITING, jnp.int32),
        used=jnp.zeros((limits.num_machines, limits.max_duration), jnp.int32),
    )


def waiting(board: Board) -> jax.Array:
    """Return the jobs that have arrived and are neither started nor lost, bool [K]."""
    return (board.start == WAITING) & (board.instance.arrival <= board.time)


def free(board: Board, limits: Limits) -> jax.Array:
    """Return the free resource of each machine, int32 [M].

    No starts are planned ahead, so resource that is free now stays free.
    """
    return limits.capacity - board.used[:, 0]


def queue(board: Board, limits: Limits) -> Queue:
    """Return the observed waiting jobs, and which of them can start now."""
    waits = waiting(board)
    place = jnp.cumsum(waits.astype(jnp.int32)) - 1
    slots = jnp.arange(limits.num_slots, dtype=jnp.int32)
    job = waits[None, :] & (place[None, :] == slots[:, None])

    def look_up(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(job, values[None, :], 0), axis=1, dtype=values.dtype)

    instance = board.instance
    present = slots < jnp.sum(waits.astype(jnp.int32))
    need = look_up(instance.need)
    return Queue(
        job=job,
        present=present,
        duration=look_up(instance.duration),
        deadline=look_up(instance.deadline),
        need=need,
        weight=look_up(instance.weight),
        startable=present & (need <= jnp.max(free(board, limits))),
    )


def best_fit(board: Board, need: jax.Array, limits: Limits) -> jax.Array:
    """Choose the machine with the least sufficient free resource, one-hot [M].

    Args:
      board: the state of the shop.
      need: int32 [], units of resource.
      limits: the static parameters.
    """
    room = free(board, limits)
    machine = jnp.argmin(jnp.where(room >= need, room, limits.capacity + 1))
    return jnp.arange(limits.num_machines) == machine


def play(
    board: Board, queue: Queue, slot: jax.Array, starts: jax.Array, limits: Limits
) -> Board:
    """Start the job in a slot, which takes no time, or let one tick pass.

    Args:
      board: the state of the shop.
      queue: the queue of this board.
      slot: int32 [], index of a slot, from 0.
      starts: bool [], whether the job in the slot starts; if False, a tick passes. The
        caller must check that the job can start.
      limits: the static parameters.
    """
    duration, need = queue.duration[slot], queue.need[slot]
    ticks = jnp.arange(limits.max_duration, dtype=jnp.int32)
    machine = best_fit(board, need, limits)
    block = jnp.where(machine[:, None] & (ticks < duration)[None, :], need, 0)
    next_tick = jnp.pad(board.used[:, 1:], ((0, 0), (0, 1)))
    time = board.time + jnp.where(starts, 0, 1)
    start = jnp.where(queue.job[slot] & starts, board.time, board.start)
    start = jnp.where(
        (start == WAITING) & too_late(board.instance, time, limits), LOST, start
    )
    return board.replace(
        time=time,
        start=start,
        used=jnp.where(starts, board.used + block, next_tick),
    )


def too_late(instance: Instance, time: jax.Array, limits: Limits) -> jax.Array:
    """Return the jobs that are lost if they have not started before a tick, bool [K].

    Args:
      instance: the jobs.
      time: int32 [], the tick.
      limits: the static parameters.
    """
    late = time + instance.duration - instance.deadline >= limits.patience
    return late | (time >= limits.horizon)


def tardiness(board: Board, limits: Limits) -> jax.Array:
    """Compute the tardiness of each job in units of the patience, float32 [K].

    It is 0 for jobs on time and for waiting jobs, and 1 for lost jobs.
    """
    instance = board.instance
    late = board.start + instance.duration - instance.deadline
    late = jnp.clip(late, 0, limits.patience).astype(jnp.float32) / limits.patience
    return jnp.where(board.start >= 0, late, (board.start == LOST).astype(jnp.float32))


def shares(board: Board, limits: Limits) -> tuple[jax.Array, jax.Array]:
    """Return weight on time and weighted tardiness, as shares of the total weight."""
    weight = board.instance.weight
    late = tardiness(board, limits)
    on_time = (board.start >= 0) & (late == 0.0)
    total = jnp.sum(weight)
    return (
        jnp.sum(jnp.where(on_time, weight, 0.0)) / total,
        jnp.sum(weight * late) / total,
    )


def is_over(board: Board) -> jax.Array:
    """Return whether every job is started or lost."""
    return jnp.all(board.start != WAITING)
