"""Instances of Gymnasium's environments on the host, which compiled programs call.

Nothing of JAX is used here but the conversion of arguments to NumPy: a computation
inside of such a call can wait for ever for the program that called it. A number that
is infinite in float32 is seen to by the quarantine, and is no reason for a warning.
"""

import dataclasses
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces.utils import flatdim, flatten
from numpy.typing import ArrayLike

from purejaxppo.adapters import gymnasium_heads
from purejaxppo.env import Discrete
from purejaxppo.errors import EnvironmentFault, summary

Environment = gymnasium.Env[object, object]
Info = Mapping[str, object]
Result = TypeVar("Result")

# What stands in place of the number of an episode before its first step, and after its
# last one.
NOT_BEGUN, ENDED = -1, -2

# An episode that is cut off from outside is not told so. Of all that have begun, so
# many are kept; the ones that were not stepped for the longest time are forgotten.
_KEPT_BATCHES, _KEPT_MORE = 4, 64

_NUMBERS = 2**31  # numbers of episodes are int32

_NOT_NEWEST = (
    "can step only the newest state of an episode, and not one from long ago, because "
    "its instances live outside of JAX and only go forward"
)


class Outcome(NamedTuple):
    """What one step led to.

    Attributes:
      number: int32 [], the number of the episode, ENDED if that was its last step.
      obs: float32 [D].
      mask: bool [M], the masks of all heads one after the other; M is 0 without masks.
      reward: float32 [].
      terminated: bool [].
      truncated: bool [], False if the episode is terminated.
    """

    number: np.generic
    obs: np.ndarray
    mask: np.ndarray
    reward: np.generic
    terminated: np.generic
    truncated: np.generic


@dataclasses.dataclass
class _Running:
    """An episode between two of its steps."""

    env: Environment
    steps: int = 0


class _Taken(NamedTuple):
    """The last step of an episode."""

    steps: int  # before it
    action: np.ndarray
    outcome: Outcome


class Instances:
    """The instances of an environment, and the episodes that they play.

    The first step of an episode takes an instance and resets it with the episode's
    seed, so a state right after reset can be stepped any number of times, like that of
    any pure environment. Later states can be stepped once, because an instance only
    goes forward. But that step can be repeated with the same action: a batch of loops
    repeats the last step of those that have ended until all have.

    Attributes:
      heads: head name -> head.
      obs_size: D, the size of a flattened observation.
      mask_sizes: the sizes of the heads' masks; empty if there are none.
      max_episode_steps: the time limit of Gymnasium, if there is one.
    """

    def __init__(self, name: str, make: Callable[[], Environment]):
        """Make the first instance, which is used for the observations of resets.

        Args:
          name: name of the environment in messages.
          make: makes an instance.

        Raises:
          ConfigError: observations or actions of a kind that cannot be used.
          EnvironmentFault: the environment raised an error.
        """
        self._name, self._make = name, make
        self._for_resets = self._called("gymnasium.make", make)
        self._obs_space = self._for_resets.observation_space
        action_space = self._for_resets.action_space
        gymnasium_heads.check_observations(f"{name}: observations", self._obs_space)
        self.heads = gymnasium_heads.heads(f"{name}: actions", action_space)
        self._decode = gymnasium_heads.decoder(action_space)
        self.obs_size = int(flatdim(self._obs_space))
        spec = self._for_resets.spec
        self.max_episode_steps = None if spec is None else spec.max_episode_steps
        sizes = [x.n for x in self.heads.values() if isinstance(x, Discrete)]
        given = self._called("reset", lambda: self._for_resets.reset(seed=0))[1]
        self.mask_sizes = sizes if _flat_mask(given).size == sum(sizes) else []
        self._free: list[Environment] = []
        # Number -> episode; the one that was stepped last is at the end.
        self._running: OrderedDict[int, _Running] = OrderedDict()
        self._taken: OrderedDict[int, _Taken] = OrderedDict()
        self._number = -1  # of the newest episode
        self._most_rows = 0  # of a call
        self._nothing = Outcome(
            number=np.int32(ENDED),
            obs=np.zeros(self.obs_size, np.float32),
            mask=np.ones(sum(self.mask_sizes), bool),
            reward=np.float32(0.0),
            terminated=np.bool_(False),
            truncated=np.bool_(False),
        )
        self._lock = threading.Lock()  # programs call from threads of their own
        logging.getLogger("jax._src.callback").addFilter(_is_no_fault)

    # --- called by programs ---------------------------------------------------------

    def reset(self, seed: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return the first observations and masks of episodes.

        Args:
          seed: uint32 [...].

        Returns:
          float32 [..., D] and bool [..., M].

        Raises:
          EnvironmentFault: the environment raised an error.
        """
        seeds = np.asarray(seed)
        with self._lock, np.errstate(over="ignore"):
            rows = [self._reset(self._for_resets, x) for x in seeds.ravel().tolist()]
        obs, mask = _stacked(rows, seeds.shape)
        return obs, mask

    def step(
        self,
        number: ArrayLike,
        steps: ArrayLike,
        seed: ArrayLike,
        luck: ArrayLike,
        action: ArrayLike,
    ) -> tuple[np.ndarray, ...]:
        """Step episodes; of those that have ended nothing is computed.

        Args:
          number: int32 [...], the numbers of the episodes, NOT_BEGUN or ENDED.
          steps: int32 [...], the number of steps that each has taken.
          seed: uint32 [...], with which the instance of an episode is reset.
          luck: uint32 [...], the seed of its random numbers after the reset; none if it
            equals `seed`.
          action: float32 or int32 [..., A], the actions of all heads.

        Returns:
          the fields of an `Outcome`, each with the leading axes [...].

        Raises:
          EnvironmentFault: the environment raised an error, or a state was stepped that
            is not the newest of its episode.
        """
        shape = np.shape(number)
        plain = (np.asarray(x).ravel().tolist() for x in (number, steps, seed, luck))
        actions = np.asarray(action)
        calls = [*zip(*plain, actions.reshape((-1, actions.shape[-1])), strict=True)]
        outcomes = [self._nothing] * len(calls)
        with self._lock, np.errstate(over="ignore"):
            self._most_rows = max(self._most_rows, len(calls))
            # Episodes that begin come last: for them old ones may be forgotten.
            for i in sorted(range(len(calls)), key=lambda i: calls[i][0] == NOT_BEGUN):
                outcomes[i] = self._step(*calls[i])
        return tuple(_stacked(outcomes, shape))

    # --- one episode ----------------------------------------------------------------

    def _step(
        self, number: int, steps: int, seed: int, luck: int, action: np.ndarray
    ) -> Outcome:
        if number == ENDED:
            return self._nothing
        if number == NOT_BEGUN:
            number = self._begin(seed, luck)
        taken = self._taken.get(number)
        if taken and taken.steps == steps and np.array_equal(taken.action, action):
            return taken.outcome
        running = self._running.get(number)
        if running is None or running.steps != steps:
            raise EnvironmentFault(self._name, _NOT_NEWEST)
        outcome = self._advance(number, running.env, action)
        running.steps += 1
        self._running.move_to_end(number)
        if outcome.number == ENDED:
            self._free.append(self._running.pop(number).env)
        self._taken[number] = _Taken(steps, action.copy(), outcome)
        self._taken.move_to_end(number)
        while len(self._taken) > self._num_kept():
            self._taken.popitem(last=False)
        return outcome

    def _begin(self, seed: int, luck: int) -> int:
        """Begin an episode with a free instance or a new one; return its number."""
        while len(self._running) >= self._num_kept():
            _, oldest = self._running.popitem(last=False)
            self._free.append(oldest.env)
        if not self._free:
            self._free.append(self._called("gymnasium.make", self._make))
        env = self._free.pop()
        self._reset(env, seed)
        if luck != seed:
            env.unwrapped.np_random = np.random.default_rng(luck)
        self._number = (self._number + 1) % _NUMBERS
        self._running[self._number] = _Running(env)
        self._taken.pop(self._number, None)
        return self._number

    def _num_kept(self) -> int:
        return _KEPT_BATCHES * self._most_rows + _KEPT_MORE

    # --- one instance ---------------------------------------------------------------

    def _called(self, name: str, function: Callable[[], Result]) -> Result:
        """Call code of the environment; its errors become one sentence."""
        try:
            return function()
        except (Exception, SystemExit) as error:
            inner = error.__traceback__
            while inner is not None and inner.tb_frame.f_code.co_filename == __file__:
                inner = inner.tb_next  # the place to name is not in this file
            told = summary(error.with_traceback(inner))
            raise EnvironmentFault(self._name, f"failed in {name}: {told}") from None

    def _reset(self, env: Environment, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Reset an instance; return its observation and mask."""
        return self._called("reset", lambda: self._observed(*env.reset(seed=seed)))

    def _advance(self, number: int, env: Environment, action: np.ndarray) -> Outcome:
        """Step an instance of the episode with that number."""

        def advance() -> Outcome:
            obs, reward, terminated, truncated, info = env.step(self._decode(action))
            row, mask = self._observed(obs, info)
            return Outcome(
                number=np.int32(ENDED if terminated or truncated else number),
                obs=row,
                mask=mask,
                reward=np.float32(float(reward)),
                terminated=np.bool_(terminated),
                truncated=np.bool_(truncated and not terminated),
            )

        return self._called("step", advance)

    def _observed(self, obs: object, info: Info) -> tuple[np.ndarray, np.ndarray]:
        """Flatten an observation, and the masks; the result is never the env's own."""
        row = np.asarray(flatten(self._obs_space, obs), np.float32)
        if row.shape != (self.obs_size,):
            raise ValueError(
                f"an observation has {row.size} numbers, and its space {self.obs_size}"
            )
        mask = _flat_mask(info) if self.mask_sizes else self._nothing.mask
        if mask.shape != self._nothing.mask.shape:  # there is none after the last step
            mask = self._nothing.mask
        return row, mask


def _flat_mask(info: Info) -> np.ndarray:
    """Return Gymnasium's "action_mask", that of several heads one after the other."""
    mask = info.get("action_mask", ())
    parts = mask if isinstance(mask, tuple) else (mask,)
    rows = [np.asarray(part).ravel() != 0 for part in parts]
    return np.concatenate([np.zeros(0, bool), *rows])


def _stacked(
    rows: Sequence[tuple[np.ndarray | np.generic, ...]], shape: tuple[int, ...]
) -> Iterator[np.ndarray]:
    """Stack tuples of arrays to arrays with the leading axes `shape`."""
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return (x.reshape((*shape, *x.shape[1:])) for x in columns)


def _is_no_fault(record: logging.LogRecord) -> bool:
    """Return whether JAX should log a record: not a fault, which is one sentence."""
    return not (record.exc_info and isinstance(record.exc_info[1], EnvironmentFault))
