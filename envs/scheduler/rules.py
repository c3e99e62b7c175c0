"""Jobs on machines: what may start, what it uses, what it is worth. Plain rules.

Letters: K jobs of an instance, J places of the queue, M machines, H ticks of the
longest job. Time is in ticks; a job runs on one machine and is never interrupted, so
once it starts its completion, and with it its worth, is settled.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

# What `Board.start` holds for jobs without a start.
WAITING = -1
LOST = -2


@dataclasses.dataclass(frozen=True)
class Limits:
    """The static facts of a shop.

    Attributes:
      num_machines: M, all alike.
      capacity: of each machine, in units of resource.
      num_slots: J, how many waiting jobs can be seen and started.
      max_duration: H; no job is longer.
      patience: ticks behind its deadline after which a job is worth no more than
        one that never ran.
      horizon: the tick at which the shop closes: what did not start by then is lost.
    """

    num_machines: int = 2
    capacity: int = 8
    num_slots: int = 10
    max_duration: int = 16
    patience: int = 8
    horizon: int = 64


class Instance(struct.PyTreeNode):
    """What is to be done, the jobs in order of their deadlines."""

    arrival: jax.Array  # int32 [K]
    duration: jax.Array  # int32 [K], 1 to H
    deadline: jax.Array  # int32 [K], of the completion; ascending
    need: jax.Array  # int32 [K], 1 to the capacity of a machine
    weight: jax.Array  # float32 [K], positive
    bound: jax.Array  # float32 [], no schedule scores more; see generator.py


class Board(struct.PyTreeNode):
    """A shop in the middle of its day."""

    instance: Instance
    time: jax.Array  # int32 []
    start: jax.Array  # int32 [K], tick of the start, or WAITING or LOST
    used: jax.Array  # int32 [M, H], resource in use `h` ticks from now


class Queue(struct.PyTreeNode):
    """The J most urgent of the jobs that wait, by deadline; zeros where empty."""

    job: jax.Array  # bool [J, K], one-hot: which job it is
    present: jax.Array  # bool [J]
    duration: jax.Array  # int32 [J]
    deadline: jax.Array  # int32 [J]
    need: jax.Array  # int32 [J]
    weight: jax.Array  # float32 [J]
    startable: jax.Array  # bool [J], fits the free resource of a machine now


def new(instance: Instance, limits: Limits) -> Board:
    """The shop at tick 0, every machine idle."""
    return Board(
        instance=instance,
        time=jnp.zeros((), jnp.int32),
        start=jnp.full(instance.arrival.shape, WAITING, jnp.int32),
        used=jnp.zeros((limits.num_machines, limits.max_duration), jnp.int32),
    )


def waiting(board: Board) -> jax.Array:
    """Jobs that are here and neither started nor lost, bool [K]."""
    return (board.start == WAITING) & (board.instance.arrival <= board.time)


def free(board: Board, limits: Limits) -> jax.Array:
    """Resource of each machine that is free now, and stays so: int32 [M].

    Nothing starts in the future, so what is free now is free for any duration.
    """
    return limits.capacity - board.used[:, 0]


def queue(board: Board, limits: Limits) -> Queue:
    """The waiting jobs that can be seen, and which of them can start now."""
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
    """The machine with the least free resource that still suffices, one-hot [M].

    Args:
      board: the shop.
      need: int32 [], units of resource.
      limits: the static facts.
    """
    room = free(board, limits)
    machine = jnp.argmin(jnp.where(room >= need, room, limits.capacity + 1))
    return jnp.arange(limits.num_machines) == machine


def play(
    board: Board, queue: Queue, slot: jax.Array, starts: jax.Array, limits: Limits
) -> Board:
    """Start the job in a slot, which takes no time, or let one tick pass.

    Args:
      board: the shop before.
      queue: its queue.
      slot: int32 [], from 0.
      starts: bool [], whether the job in that slot starts; the caller makes sure that
        it can. Else a tick passes.
      limits: the static facts.
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
    """Jobs that are worth no more if they start at that tick than if never, bool [K].

    Args:
      instance: the jobs.
      time: int32 [], the tick.
      limits: the static facts.
    """
    late = time + instance.duration - instance.deadline >= limits.patience
    return late | (time >= limits.horizon)


def tardiness(board: Board, limits: Limits) -> jax.Array:
    """Tardiness of each settled job in units of the patience: 0 on time, 1 lost. [K]"""
    instance = board.instance
    late = board.start + instance.duration - instance.deadline
    late = jnp.clip(late, 0, limits.patience).astype(jnp.float32) / limits.patience
    return jnp.where(board.start >= 0, late, (board.start == LOST).astype(jnp.float32))


def shares(board: Board, limits: Limits) -> tuple[jax.Array, jax.Array]:
    """Weight on time and weighted tardiness so far, each a share of all weight."""
    weight = board.instance.weight
    late = tardiness(board, limits)
    on_time = (board.start >= 0) & (late == 0.0)
    total = jnp.sum(weight)
    return (
        jnp.sum(jnp.where(on_time, weight, 0.0)) / total,
        jnp.sum(weight * late) / total,
    )


def is_over(board: Board) -> jax.Array:
    """Every job is settled: started or lost."""
    return jnp.all(board.start != WAITING)
