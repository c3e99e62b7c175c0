"""The scheduler as an environment: observation, masks, reward, bookkeeping."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from purejaxppo.env import Action, Discrete, EnvSpec, State
from purejaxppo.errors import ConfigError, UnknownName, whole_number

from . import generator, render, rules
from .rules import Board, Instance, Limits, Queue

HEAD = "job"
NO_OP = 0  # action 0 lets a tick pass; action 1 + j starts the job in slot j
SUCCESS = 0.9  # smallest share of the weight on time in a successful episode

# Future ticks for which the observation shows the free resource of each machine.
_TICKS_SHOWN = (0, 1, 2, 3, 4, 6, 8, 12)
# Intervals, in ticks from now, over which the observation sums up future arrivals.
_ANNOUNCED = ((1, 2), (3, 5), (6, 10))


class Data(struct.PyTreeNode):
    """The internal state of the environment."""

    board: Board
    on_time: jax.Array  # float32 [], share of the weight
    tardiness: jax.Array  # float32 [], share of the weight
    steps: jax.Array  # int32 []
    choices: jax.Array  # int32 [], steps at which a job could have started
    held: jax.Array  # int32 [], no-ops at these steps
    invalid: jax.Array  # int32 [], steps with a job that could not start


def observe(board: Board, queue: Queue, limits: Limits) -> jax.Array:
    """Compute the observation, float32 [D]; see the table in README.md.

    Args:
      board: the state of the shop.
      queue: the queue of this board.
      limits: the static parameters.
    """
    num_jobs = board.start.shape[0]
    progress = jnp.stack(
        [
            _scaled(board.time, limits.horizon),
            _scaled(jnp.sum(rules.waiting(board)), num_jobs),
            _scaled(jnp.sum(board.instance.arrival > board.time), num_jobs),
        ]
    )
    ticks = jnp.asarray([h for h in _TICKS_SHOWN if h < limits.max_duration])
    room = _scaled(limits.capacity - board.used[:, ticks], limits.capacity)
    return jnp.concatenate(
        [
            _slot_features(board, queue, limits).reshape(-1),
            room.reshape(-1),
            *_announcements(board, limits),
            progress,
        ]
    )


def _scaled(x: jax.Array, scale: float) -> jax.Array:
    return x.astype(jnp.float32) / scale


def _jobs_per_weight(board: Board) -> jax.Array:
    """Return the factor that scales weights to a mean of 1."""
    return board.start.shape[0] / jnp.sum(board.instance.weight)


def _slot_features(board: Board, queue: Queue, limits: Limits) -> jax.Array:
    """Compute the observed features of the job in each slot, float32 [7, J]."""
    slack = queue.deadline - board.time - queue.duration
    area = queue.duration * queue.need
    per_weight = _jobs_per_weight(board)
    return jnp.stack(
        [
            queue.present.astype(jnp.float32),
            queue.startable.astype(jnp.float32),
            _scaled(queue.duration, limits.max_duration),
            _scaled(queue.need, limits.capacity),
            jnp.where(queue.present, _scaled(slack, limits.patience), 0.0),
            queue.weight * (per_weight / 4.0),
            queue.weight * per_weight / jnp.maximum(area, 1).astype(jnp.float32),
        ]
    )


def _announcements(board: Board, limits: Limits) -> tuple[jax.Array, jax.Array]:
    """Sum up area and weight of the jobs that arrive in each interval, [3] each."""
    instance, num_jobs = board.instance, board.start.shape[0]
    area = (instance.duration * instance.need).astype(jnp.float32)
    wait = instance.arrival - board.time
    first, last = jnp.asarray(_ANNOUNCED, jnp.int32).T
    announced = (wait[None, :] >= first[:, None]) & (wait[None, :] <= last[:, None])
    volume = limits.num_machines * limits.capacity * limits.patience
    return (
        jnp.sum(jnp.where(announced, area[None, :], 0.0), axis=1) / volume,
        jnp.sum(jnp.where(announced, instance.weight[None, :], 0.0), axis=1)
        * (_jobs_per_weight(board) / num_jobs * 4.0),
    )


def _ratio(count: jax.Array, total: jax.Array) -> jax.Array:
    return count.astype(jnp.float32) / jnp.maximum(total, 1).astype(jnp.float32)


def _metrics(data: Data) -> dict[str, jax.Array]:
    return {
        "success": (data.on_time >= SUCCESS).astype(jnp.float32),
        "on_time": data.on_time,
        "tardiness": data.tardiness,
        "noop_frac": _ratio(data.held, data.choices),
        "invalid_frac": _ratio(data.invalid, data.steps),
    }


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """The environment: each action starts a waiting job or lets a tick pass."""

    name: str
    limits: Limits
    draw: Callable[[jax.Array], Instance]

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(self.name, {HEAD: Discrete(1 + self.limits.num_slots)})

    def start(self, instance: Instance) -> State:
        """Return the first state of a given instance."""
        zero, none = jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32)
        data = Data(
            rules.new(instance, self.limits), zero, zero, none, none, none, none
        )
        return self._state(data, zero)

    def reset(self, key: jax.Array) -> State:
        return self.start(self.draw(key))

    def step(self, state: State, action: Action) -> State:
        data, limits = state.data, self.limits
        # Computed from the board, so that the rules do not depend on the state's mask.
        queue = rules.queue(data.board, limits)
        choice = action[HEAD].astype(jnp.int32)
        slot = jnp.clip(choice - 1, 0, limits.num_slots - 1)
        in_range = (choice >= 1) & (choice <= limits.num_slots)
        starts = in_range & queue.startable[slot]
        board = rules.play(data.board, queue, slot, starts, limits)
        on_time, tardiness = rules.shares(board, limits)
        could_start = jnp.any(queue.startable)
        data = Data(
            board=board,
            on_time=on_time,
            tardiness=tardiness,
            steps=data.steps + 1,
            choices=data.choices + could_start.astype(jnp.int32),
            held=data.held + (could_start & (choice == NO_OP)).astype(jnp.int32),
            invalid=data.invalid + ((choice != NO_OP) & ~starts).astype(jnp.int32),
        )
        reward = (on_time - state.data.on_time) - (tardiness - state.data.tardiness)
        return self._state(data, reward)

    @property
    def seconds_per_step(self) -> float:
        return render.SECONDS_PER_STEP

    def render(
        self, states: State, actions: Action, steps: Sequence[int]
    ) -> Iterable[np.ndarray]:
        """Draw a Gantt chart of the jobs started so far; see `RenderedEnv`.

        Args:
          states, actions, steps: see `RenderedEnv`.
        """
        del actions
        return render.draw(states.data.board, steps, self.limits)

    def _state(self, data: Data, reward: jax.Array) -> State:
        queue = rules.queue(data.board, self.limits)
        return State(
            data=data,
            obs=observe(data.board, queue, self.limits),
            reward=reward,
            terminated=rules.is_over(data.board),
            truncated=jnp.zeros((), bool),
            action_mask={
                HEAD: jnp.concatenate([jnp.ones((1,), bool), queue.startable])
            },
            metrics=_metrics(data),
        )


def optimal_return(state: State) -> jax.Array:
    """Return the optimal return of a toy instance; for other families a bound, 1."""
    return state.data.board.instance.bound


def make(
    family: str, num_jobs: int, num_machines: int, capacity: int, num_slots: int
) -> Scheduler:
    """Build the environment.

    Args:
      family: "mix", "toy" or one of `generator.FAMILIES`.
      num_jobs: number of jobs per instance; ignored for the family "toy".
      num_machines: number of identical machines.
      capacity: units of resource per machine.
      num_slots: number of observed waiting jobs.

    Raises:
      ConfigError: an argument is not allowed.
    """
    known = ("mix", "toy", *generator.FAMILIES)
    if family not in known:
        raise UnknownName("family", family, known)
    whole_number("num_jobs", num_jobs, 1, 256)
    limits = Limits(
        num_machines=whole_number("num_machines", num_machines, 1, 16),
        capacity=whole_number("capacity", capacity, 2, 64),
        num_slots=whole_number("num_slots", num_slots, 1, 64),
    )

    toy = generator.Toy()
    max_waiting = toy.max_waiting(limits)
    if family == "toy" and max_waiting > num_slots:
        # With fewer slots decoys could hide good jobs from the policy.
        raise ConfigError(
            "num_slots", num_slots, f"at least {max_waiting} with family toy"
        )

    def draw(key: jax.Array) -> Instance:
        if family == "toy":
            return toy.draw(key, limits)
        if family == "mix":
            return generator.draw_mix(key, num_jobs, limits)
        return generator.draw(key, generator.FAMILIES[family], num_jobs, limits)

    return Scheduler(f"scheduler_{family}", limits, draw)
