"""The host's side of training: chunks of updates, and between them log, evaluate, save.

Nothing here computes what training depends on. The numbers are those of `make_train`
whatever the chunks, however often the run was killed.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo import trees
from purejaxppo.config import Hypers, Resolved
from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK, TrainingStopped
from purejaxppo.ppo.imitation import Demonstrations
from purejaxppo.ppo.learner import make_learner
from purejaxppo.ppo.types import Metrics, TrainState
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import checkpoint, compiler, demonstrations, folder, record, seeds
from purejaxppo.run.interrupt import Interrupt
from purejaxppo.run.journal import Journal, Metadata
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress
from purejaxppo.validation import advice

_CHUNK_SECONDS = 2.0  # between two looks of the host, where an update is shorter
_SUMMARY = "summary.json"


class Runner:
    """One run, from its first state to its summary.

    Building one checks the configuration, the environment and the demonstrations;
    nothing compiles and nothing is written before it is asked for.
    """

    def __init__(
        self, resolved: Resolved, options: Options, path: Path, progress: Progress
    ):
        """Check everything that a run needs.

        Args:
          resolved: the configuration.
          options: what the host does with the run.
          path: the run's folder.
          progress: where to show how it goes.

        Raises:
          ConfigError: a value that cannot be used.
        """
        self.options, self.path, self.progress = options, path, progress
        self.config = resolved.config
        self.learner = make_learner(self.config)
        self.hypers = as_arrays(self.config.hypers)
        self.compile = compiler.Compiler(progress)
        self.journal = Journal(self.learner, options, path, progress)
        self.checkpoints = path / folder.CHECKPOINTS
        self.saved_update, self.saved_time = -1, time.monotonic()
        self.demonstrations = self._load_demonstrations()

    def _load_demonstrations(self) -> Demonstrations | None:
        """Those of the file asked for, from the run's own copy where it has one."""
        if not self.options.demonstrations:
            return None
        own = self.path / demonstrations.FILE
        source = own if own.exists() else Path(self.options.demonstrations)
        return demonstrations.load(source, self.learner.task.env, self.config)

    # --- the first state ------------------------------------------------------------

    def make_first_state(self) -> TrainState:
        """Collect demonstrations, clone them and make the first state, as asked for.

        The programs that come after are compiled meanwhile.
        """
        num = self.options.num_seeds
        keys = seeds.seed_keys(self.options.seed, num)
        demos, axis = self.demonstrations, None
        collect = None
        if demos is None and self.config.num_demonstrations:
            # Jitted here, so that it is traced once for its shapes and its program.
            collect = jax.jit(seeds.over_seeds(self.learner.collect, num, 0))
            demos, axis = jax.eval_shape(collect, keys), 0
        init = seeds.over_seeds(self.learner.init, num, 0, None, axis)
        program = self.compile.begin("init", init, keys, self.hypers, demos)
        if collect is not None:
            demos = self.compile("collect", collect, keys)(keys)
        if demos is not None:
            self._save_demonstrations(demos, per_seed=axis is not None and num > 1)
        compiled = self.compile.wait(program)
        self.begin_compiling(compiled.out_info[0])
        with self.progress.phase("cloning" if demos is not None else "starting"):
            result = compiled(keys, self.hypers, demos)
            state, cloning = jax.block_until_ready(result)
        for name, value in sorted(cloning.items()):
            self.progress.line(f"{name} {np.asarray(value).mean():.3f}")
        return state

    def _save_demonstrations(self, demos: Demonstrations, per_seed: bool) -> None:
        env = self.learner.task.env
        if not per_seed:
            demonstrations.save(self.path / demonstrations.FILE, demos, env)
            return
        for i in range(self.options.num_seeds):
            name = f"demonstrations-seed{self.options.seed + i}.npz"
            demonstrations.save(self.path / name, trees.take(demos, i), env)

    # --- between chunks -------------------------------------------------------------

    def begin_compiling(self, shapes: TrainState) -> None:
        """Begin to compile evaluation and updates, for states of those shapes."""
        num_seeds = self.options.num_seeds
        evaluate = seeds.over_seeds(self.learner.evaluate, num_seeds, 0)
        update = seeds.over_seeds(self.learner.update, num_seeds, 0, None)

        def chunk(state: TrainState, hypers: Hypers, num: jax.Array):
            return seeds.run_chunk(update, state, hypers, num)

        self.evaluation = self.compile.begin("evaluate", evaluate, shapes)
        num = jnp.zeros((), jnp.int32)
        # The state is consumed: memory for one of it is enough.
        self.updates = self.compile.begin(
            "update", chunk, shapes, self.hypers, num, donate=(0,)
        )

    def evaluate_and_log(self, state: TrainState, update: int) -> None:
        """Evaluate on the fixed seed blocks, into the journal."""
        compiled = self.compile.wait(self.evaluation)
        with self.progress.phase("evaluating", announce=False):
            metrics = jax.block_until_ready(compiled(state))
        self.journal.log_evaluation(metrics, update)

    def save(self, state: TrainState, update: int) -> None:
        """Write a checkpoint, then delete older ones."""
        if self.saved_update != update:
            metadata = dict(self.journal.metadata())
            checkpoint.save(self.checkpoints, update, state, metadata)
            best = self.journal.best
            protect = {best.update} if best else set()
            checkpoint.prune(self.checkpoints, self.options.keep_checkpoints, protect)
        self.saved_update, self.saved_time = update, time.monotonic()

    def _save_is_due(self, update: int) -> bool:
        every = self.options.checkpoint_every
        age = time.monotonic() - self.saved_time
        evaluated = update in self.config.eval_points
        due = age > self.options.checkpoint_seconds
        return evaluated or due or bool(every and update % every == 0)

    def _chunk_length(self, update: int, seconds_per_update: float | None) -> int:
        """Updates until the host must look again; 1 before it is known how long one
        takes."""
        points = [p for p in self.config.eval_points if p > update]
        stop = min([*points, self.config.num_updates])
        if every := self.options.checkpoint_every:
            stop = min(stop, (update // every + 1) * every)
        wanted = self.options.chunk_updates
        if not wanted and seconds_per_update is not None:
            wanted = int(_CHUNK_SECONDS / max(seconds_per_update, 1e-6))
        return min(max(wanted, 1), seeds.MAX_CHUNK, stop - update)

    # --- the loop -------------------------------------------------------------------

    def train(self, state: TrainState, update: int, interrupt: Interrupt) -> int:
        """Train from `update` to the end, or until an interrupt.

        Args:
          state: after that many updates; consumed.
          update: the number of updates so far.
          interrupt: looked at after each chunk.

        Returns:
          The exit code.

        Raises:
          TrainingStopped: under `strict`, at the first fault; the state is saved.
        """
        interrupt.must_save = True
        per_update = None
        while update < self.config.num_updates:
            length = self._chunk_length(update, per_update)
            first = per_update is None
            state, metrics, seconds = self._run_chunk(state, length, first)
            update, per_update = update + length, seconds / length
            try:
                self.journal.log_updates(metrics, update - length + 1, length, seconds)
            except TrainingStopped:
                self.save(state, update)
                raise
            if update in self.config.eval_points:
                self.evaluate_and_log(state, update)
            if interrupt.requested or self._save_is_due(update):
                self.save(state, update)
            if interrupt.requested and update < self.config.num_updates:
                self.progress.line(f"saved; go on with --resume {self.path}")
                return EXIT_INTERRUPTED
        self.save(state, update)
        self.finish(state, update)
        return EXIT_OK

    def _run_chunk(
        self, state: TrainState, length: int, first: bool
    ) -> tuple[TrainState, Metrics, float]:
        """The state after `length` updates, their metrics on the host, and seconds."""
        compiled = self.compile.wait(self.updates)
        phase = self.progress.phase("training", announce=False)
        start = time.monotonic()
        with phase if first else nullcontext():  # until there are figures to show
            state, metrics = compiled(state, self.hypers, jnp.int32(length))
            metrics = jax.device_get(metrics)
        return state, metrics, time.monotonic() - start

    def finish(self, state: TrainState, update: int) -> None:
        """The stochastic evaluation, and the summary that marks the run as finished."""

        def evaluate_stochastic(state: TrainState) -> Metrics:
            return self.learner.evaluate(state, deterministic=False)

        function = seeds.over_seeds(evaluate_stochastic, self.options.num_seeds, 0)
        metrics = self.compile("evaluate_noisy", function, state)(state)
        for line in compiler.ledger_lines(self.compile.ledger):
            self.progress.line(line)
        self.journal.report_end()
        summary = self.journal.summary(update, self.compile.ledger)
        summary["stochastic"] = {n: np.asarray(x).tolist() for n, x in metrics.items()}
        folder.write_json(self.path / _SUMMARY, summary)

    def run_from_start(self, interrupt: Interrupt) -> int:
        """Train from the first state. Returns the exit code."""
        self.journal.open(-1)  # drops the rows of an earlier attempt
        state = self.make_first_state()
        self.evaluate_and_log(state, 0)
        self.save(state, 0)
        return self.train(state, 0, interrupt)

    def run_from_checkpoint(self, interrupt: Interrupt) -> int:
        """Train from the newest checkpoint that is whole. Returns the exit code.

        Raises:
          CheckpointError: there is none.
        """
        shapes = seeds.state_shapes(self.learner, self.options)
        state, metadata = checkpoint.restore_latest(
            self.checkpoints, shapes, self.progress.line
        )
        update = int(np.asarray(state.update_count).ravel()[0])
        checkpoint.discard_after(self.checkpoints, update)
        self.journal.restore(cast(Metadata, metadata))
        self.journal.open(update)
        self.saved_update = update
        steps = update * self.config.batch_size
        self.progress.line(f"resuming {self.path} at {steps:,} steps")
        if update < self.config.num_updates:
            self.begin_compiling(shapes)
        return self.train(state, update, interrupt)


def start(resolved: Resolved, options: Options, path: Path, command: list[str]) -> int:
    """Train in a new folder.

    Args:
      resolved: the configuration.
      options: what the host does with the run.
      path: the run's folder, new or empty.
      command: the words of the command line, for the record.

    Returns:
      The exit code.

    Raises:
      PurejaxppoError: bad input, before anything compiles; a fault, under `strict`.
    """
    progress = Progress()
    runner = Runner(resolved, options, path, progress)
    folder.create(path)
    record.write(path, resolved, options, command, runner.learner.task.env.spec)
    progress.line(f"run {path}")
    for sentence in advice(resolved.config):
        progress.line(f"warning: {sentence}")
    return _run(runner, runner.run_from_start)


def resume(resolved: Resolved, options: Options, path: Path) -> int:
    """Continue a run, to the bit.

    Args:
      resolved: the run's own configuration.
      options: the run's own, but for those that may be changed.
      path: the run's folder.

    Returns:
      The exit code.

    Raises:
      PurejaxppoError: no usable checkpoint; a fault, under `strict`.
    """
    progress = Progress()
    if (path / _SUMMARY).exists():
        progress.line(f"{path} is finished; nothing to resume")
        return EXIT_OK
    changes = folder.changed_since(record.read(path))
    if changes:
        progress.line(
            "resuming on another machine or other versions, so the last bits of all "
            "numbers may differ: " + "; ".join(changes)
        )
    runner = Runner(resolved, options, path, progress)
    record.check_env_version(path, runner.learner.task.env.spec)
    if checkpoint.steps(runner.checkpoints):
        return _run(runner, runner.run_from_checkpoint)
    progress.line(f"{path} was killed before its first checkpoint; starting it anew")
    return _run(runner, runner.run_from_start)


def _run(runner: Runner, train: Callable[[Interrupt], int]) -> int:
    compiler.use_compilation_cache()
    progress = runner.progress
    with Interrupt(progress.line, progress.close) as interrupt:
        try:
            return train(interrupt)
        finally:
            progress.close()
            runner.journal.close()
