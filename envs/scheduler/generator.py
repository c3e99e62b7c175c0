"""Random instances of the scheduling problem, by family.

A family is a tuple of numbers, so that a mixture of families is one program. The toy
family has a separate generator, with instances whose optimal schedule is known.
"""

import dataclasses

import jax
import jax.numpy as jnp

from purejaxppo import trees

from .rules import Instance, Limits


@dataclasses.dataclass(frozen=True)
class Family:
    """The parameters of the distribution of jobs. U is uniform in (0, 1].

    Attributes:
      window: ticks during which jobs arrive.
      bursts: number of ticks at which jobs arrive; 0 for arrivals at any tick.
      scale: durations are `scale` U^(-1/tail) ticks, rounded down: a Pareto
        distribution.
      tail: shape of the Pareto distribution; a smaller number has a heavier tail.
      size: needs are 1 + capacity U^size, rounded down.
      slack: smallest number of ticks from the earliest completion to the deadline.
      spread: this number is uniform from `slack` to `slack + spread`.
    """

    window: float
    bursts: float
    scale: float
    tail: float
    size: float
    slack: float
    spread: float


FAMILIES = {
    "light": Family(32.0, 0.0, 2.0, 2.0, 1.5, 2.0, 8.0),
    "bursty": Family(21.0, 3.0, 2.0, 2.0, 1.5, 1.0, 9.0),
    "tight": Family(22.0, 0.0, 2.0, 2.0, 1.5, 0.0, 3.0),
    "heavy": Family(22.0, 0.0, 1.5, 1.0, 1.5, 1.0, 8.0),
}

# The weights of jobs, with probabilities 0.6, 0.3 and 0.1.
_WEIGHTS = (1.0, 3.0, 9.0)
_CUMULATIVE = (0.6, 0.9)


def draw(key: jax.Array, family: Family, num_jobs: int, limits: Limits) -> Instance:
    """Draw an instance of a family.

    Args:
      key: a random key.
      family: the family, whose numbers may be traced.
      num_jobs: K, the number of jobs.
      limits: the static parameters of the shop.
    """
    u = jax.random.uniform(key, (5, num_jobs), jnp.float32)
    bursts = jnp.maximum(family.bursts, 1.0)
    in_bursts = jnp.floor(u[0] * bursts) / bursts
    moment = jnp.where(family.bursts > 0.0, in_bursts, u[0])
    arrival = jnp.floor(moment * family.window)
    duration = jnp.floor(family.scale * (1.0 - u[1]) ** (-1.0 / family.tail))
    duration = jnp.clip(duration, 1.0, limits.max_duration)
    need = 1.0 + jnp.floor(limits.capacity * u[2] ** family.size)
    need = jnp.clip(need, 1.0, limits.capacity)
    slack = family.slack + jnp.floor((family.spread + 1.0) * u[3])
    light, middle, heavy = _WEIGHTS
    weight = jnp.where(
        u[4] < _CUMULATIVE[0], light, jnp.where(u[4] < _CUMULATIVE[1], middle, heavy)
    )
    return by_deadline(arrival, duration, arrival + duration + slack, need, weight)


def draw_mix(key: jax.Array, num_jobs: int, limits: Limits) -> Instance:
    """Draw a family uniformly, and an instance of it.

    Args:
      key: a random key.
      num_jobs: K, the number of jobs.
      limits: the static parameters of the shop.
    """
    key_family, key_jobs = jax.random.split(key)
    rows = [dataclasses.astuple(family) for family in FAMILIES.values()]
    index = jax.random.randint(key_family, (), 0, len(rows), jnp.int32)
    return draw(
        key_jobs, Family(*jnp.asarray(rows, jnp.float32)[index]), num_jobs, limits
    )


def by_deadline(
    arrival: jax.Array,
    duration: jax.Array,
    deadline: jax.Array,
    need: jax.Array,
    weight: jax.Array,
    bound: float | jax.Array = 1.0,
) -> Instance:
    """Make an instance, with jobs sorted by deadline.

    Args:
      arrival: [K], ticks.
      duration: [K], ticks.
      deadline: [K], ticks, of the completion.
      need: [K], units of resource.
      weight: [K].
      bound: [], an upper bound of the return.
    """
    order = jnp.argsort(deadline)
    arrival, duration, deadline, need = (
        x[order].astype(jnp.int32) for x in (arrival, duration, deadline, need)
    )
    weight = weight[order].astype(jnp.float32)
    bound = jnp.asarray(bound, jnp.float32)
    return Instance(arrival, duration, deadline, need, weight, bound)


@dataclasses.dataclass(frozen=True)
class Toy:
    """Instances of good jobs that fill all machines, and decoys not worth starting.

    Time is divided into phases of `phase` ticks. In each phase, for each machine, two
    good jobs arrive, with needs r and capacity - r, which are due at the end of the
    phase. A decoy has a low weight, and is due at least `patience` ticks before the end
    of the last phase.
    """

    num_phases: int = 6
    phase: int = 4
    num_decoys: int = 6

    def max_waiting(self, limits: Limits) -> int:
        """Return the largest number of jobs that wait at once if no job is late."""
        return 2 * limits.num_machines + self.num_decoys

    def draw(self, key: jax.Array, limits: Limits) -> Instance:
        """Draw an instance whose `bound` is the return of its optimal schedule."""
        keys = jax.random.split(key, 4)
        good = self._good(keys[0], limits)
        decoys = self._decoys(keys[1], limits)
        jobs = {k: jnp.concatenate([good[k], decoys[k]]) for k in good}
        order = jax.random.permutation(keys[2], jobs["need"].shape[0])
        jobs = trees.take(jobs, order)
        gain, loss = jnp.sum(good["weight"]), jnp.sum(decoys["weight"])
        return by_deadline(**jobs, bound=(gain - loss) / (gain + loss))

    def _good(self, key: jax.Array, limits: Limits) -> dict[str, jax.Array]:
        key_need, key_weight = jax.random.split(key)
        pairs = (self.num_phases, limits.num_machines)
        half = jax.random.randint(key_need, pairs, 1, limits.capacity, jnp.int32)
        need = jnp.stack([half, limits.capacity - half], axis=-1)
        begin = self.phase * jnp.arange(self.num_phases, dtype=jnp.int32)
        begin = jnp.broadcast_to(begin[:, None, None], need.shape).reshape(-1)
        need = need.reshape(-1)
        density = jax.random.uniform(key_weight, need.shape, jnp.float32, 1.0, 1.5)
        return {
            "arrival": begin,
            "duration": jnp.full_like(need, self.phase),
            "deadline": begin + self.phase,
            "need": need,
            "weight": density * (need * self.phase).astype(jnp.float32),
        }

    def _decoys(self, key: jax.Array, limits: Limits) -> dict[str, jax.Array]:
        u = jax.random.uniform(key, (4, self.num_decoys), jnp.float32)
        duration = 1 + jnp.floor(self.phase * u[0])
        need = 1 + jnp.floor(limits.capacity // 2 * u[1])
        # The latest deadline of a decoy for which the proof of the optimum holds.
        last = self.num_phases * self.phase - limits.patience
        arrival = jnp.floor((last - duration + 1) * u[2])
        return {
            "arrival": arrival.astype(jnp.int32),
            "duration": duration.astype(jnp.int32),
            "deadline": jnp.minimum(arrival + duration + 2, last).astype(jnp.int32),
            "need": need.astype(jnp.int32),
            "weight": duration * need * (0.1 + 0.3 * u[3]),
        }
