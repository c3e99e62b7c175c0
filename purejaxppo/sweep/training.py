"""Trains one trial. Trials that differ in `Hypers` alone share compiled programs.

The functions are those of a run: the same update, in chunks, and its seeds in the way
of this backend (`run.seeds`). No file is written.
"""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.config import Config, Hypers
from purejaxppo.errors import PurejaxppoError
from purejaxppo.ppo import status
from purejaxppo.ppo.demonstrations import Demonstrations
from purejaxppo.ppo.learner import Learner
from purejaxppo.ppo.status import UpdateStatus
from purejaxppo.ppo.types import Initial, Metrics, TrainState
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import compiler, demonstrations, init_from, preflight, seeds
from purejaxppo.run.options import Options, gives_policy
from purejaxppo.run.progress import Progress
from purejaxppo.run.runner import ChunkProgram
from purejaxppo.sweep.outcome import Outcome, State

_MOST_PROGRAMS = 16  # static configurations whose programs stay in memory

# (number of the evaluation, from 1; mean score of the seeds) -> whether to go on
GoOn = Callable[[int, float], bool]


class Diverged(PurejaxppoError):  # noqa: N818
    """A trial whose numbers are of no use any more."""


class Programs(NamedTuple):
    """The compiled functions of one static configuration, and what they begin with."""

    learner: Learner
    demonstrations: Demonstrations | None
    initial: Initial | None
    init: compiler.Executable[
        jax.Array,
        Hypers,
        Demonstrations | None,
        Initial | None,
        tuple[TrainState, Metrics],
    ]
    evaluate: compiler.Executable[TrainState, Metrics]
    update: ChunkProgram


def load_beginning(
    learner: Learner, options: Options, warn: Callable[[str], None]
) -> tuple[Demonstrations | None, Initial | None]:
    """Read the files that training begins with, if any: demonstrations, parameters.

    Args:
      learner: of a trial.
      options: they name the files.
      warn: prints a warning.

    Raises:
      PurejaxppoError: a file that is missing or does not fit.
    """
    initial = init_from.load(learner, options, warn).initial
    if not options.demonstrations or gives_policy(options):
        return None, initial
    path, config = Path(options.demonstrations), learner.task.config
    return demonstrations.load(path, learner.task.env, config), initial


class _Key(NamedTuple):
    """What two configurations must share, to share programs."""

    static: Config
    traced: object  # the structure of its Hypers


class Trainer:
    """Trains trials one after the other.

    Attributes:
      compile_seconds: so far.
    """

    def __init__(self, options: Options, metric: str, progress: Progress):
        """Prepare to train; nothing is compiled.

        Args:
          options: seeds, and what training begins with.
          metric: the metric of an evaluation that is the score of a seed.
          progress: shows messages.
        """
        self._options, self._metric, self._progress = options, metric, progress
        self._compile = compiler.Compiler(progress)
        self._kept: list[tuple[_Key, Programs]] = []
        self.compile_seconds = 0.0

    def programs(self, config: Config) -> Programs:
        """Return the programs of a configuration, compiled if none like it has been.

        Args:
          config: of a trial. The values of its `Hypers` are arguments of the programs.

        Raises:
          PurejaxppoError: a value that cannot be used; before anything compiles.
        """
        learner = preflight.make_learner(config, self._options)
        static = dataclasses.replace(config, hypers=Hypers())
        key = _Key(static, jax.tree.structure(config.hypers))
        for kept, programs in self._kept:
            if kept == key:
                return programs
        start = time.monotonic()
        programs = self._compiled(learner)
        self.compile_seconds += time.monotonic() - start
        self._kept = [*self._kept, (key, programs)][-_MOST_PROGRAMS:]
        return programs

    def _compiled(self, learner: Learner) -> Programs:
        options, config = self._options, learner.task.config
        demos, initial = load_beginning(learner, options, self._progress.line)
        num, hypers = options.num_seeds, as_arrays(config.hypers)
        keys = seeds.seed_keys(options.seed, num)
        init = seeds.map_over_seeds(learner.init, num, 0, None, None, None)
        evaluate = seeds.map_over_seeds(learner.evaluate, num, 0)
        update = seeds.map_over_seeds(learner.update, num, 0, None)

        def chunk(state: TrainState, hypers: Hypers, length: jax.Array):
            return seeds.run_chunk(update, state, hypers, length)

        first = self._compile("init", init, keys, hypers, demos, initial)
        shapes, length = first.out_info[0], jnp.zeros((), jnp.int32)
        evaluation = self._compile("evaluate", evaluate, shapes)
        updates = self._compile("update", chunk, shapes, hypers, length, donate=(0,))
        return Programs(learner, demos, initial, first, evaluation, updates)

    def train(self, config: Config, go_on: GoOn) -> Outcome:
        """Train one trial to its end, or to where it is pruned or diverges.

        Args:
          config: of the trial.
          go_on: is asked after each evaluation but the last, and told the last.

        Raises:
          PurejaxppoError: a value that cannot be used.
        """
        start, before = time.monotonic(), self.compile_seconds
        programs = self.programs(config)
        trial = _Training(programs, config, self._options, self._metric)
        try:
            outcome = trial.run(go_on)
        except Diverged as error:
            outcome = trial.outcome("diverged", str(error))
        return dataclasses.replace(
            outcome,
            seconds=time.monotonic() - start,
            compile_seconds=self.compile_seconds - before,
        )


class _Training:
    """One trial while it trains."""

    def __init__(
        self, programs: Programs, config: Config, options: Options, metric: str
    ):
        self._programs, self._config = programs, config
        self._options, self._metric = options, metric
        self._hypers = as_arrays(config.hypers)
        self._steps: list[int] = []
        self._scores: list[tuple[float, ...]] = []
        self._updates, self._seconds = 0, 0.0

    def run(self, go_on: GoOn) -> Outcome:
        points, state = self._config.eval_points, self._first_state()
        for number, point in enumerate(points, 1):
            state = self._train(state, point)
            score = self._evaluate(state)
            if not go_on(number, score) and number < len(points):
                steps = self._steps[-1]
                return self.outcome("pruned", f"pruned at {steps:,} steps")
        return self.outcome("complete", "")

    def outcome(self, state: State, reason: str) -> Outcome:
        seeds_steps = self._options.num_seeds * self._config.batch_size
        return Outcome(
            steps=tuple(self._steps),
            scores=tuple(self._scores),
            steps_per_second=self._updates * seeds_steps / max(self._seconds, 1e-9),
            state=state,
            reason=reason,
        )

    def _first_state(self) -> TrainState:
        keys = seeds.seed_keys(self._options.seed, self._options.num_seeds)
        given = self._programs.demonstrations, self._programs.initial
        state, cloning = self._programs.init(keys, self._hypers, *given)
        demonstrations.check_cloned(cloning)
        if np.min(np.asarray(cloning.get("cloning/demonstrations", 1))) == 0:
            raise Diverged("the environment's demonstrator did not succeed")
        return state

    def _train(self, state: TrainState, point: int) -> TrainState:
        """Train until `point` updates are done."""
        codes = []
        while self._updates < point:
            length = min(seeds.MAX_CHUNK, point - self._updates)
            start = time.monotonic()
            state, metrics = self._programs.update(
                state, self._hypers, jnp.int32(length)
            )
            code = np.asarray(metrics["status"])[:length]  # waits for the result
            self._seconds += time.monotonic() - start
            self._updates += length
            codes.append(code.reshape(length, -1))
        self._check(np.concatenate(codes))
        return state

    def _check(self, codes: np.ndarray) -> None:
        """Look for faults in the status of each update and seed, [U, S].

        Raises:
          Diverged: a fatal one, or losses that were not finite in all updates.
        """
        steps = self._updates * self._config.batch_size
        fatal = int(np.bitwise_or.reduce(codes, axis=None)) & status.FATAL
        if fatal:
            raise Diverged(f"until {steps:,} steps: {status.describe(fatal)[0]}")
        if np.any(np.all(codes & UpdateStatus.NONFINITE, axis=0)):
            raise Diverged(f"no loss was finite in the updates until {steps:,} steps")

    def _evaluate(self, state: TrainState) -> float:
        metrics = self._programs.evaluate(state)
        scores = np.ravel(np.asarray(metrics[self._metric])).tolist()
        steps = self._updates * self._config.batch_size
        if not np.all(np.isfinite(scores)):
            raise Diverged(f"the evaluation at {steps:,} steps is not finite")
        self._steps.append(steps)
        self._scores.append(tuple(scores))
        return float(np.mean(scores))
