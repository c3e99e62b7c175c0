"""The training loop on the host: chunks of updates, logs, evaluations, checkpoints.

The loop does not influence the results: they equal those of `make_train`, for any
length of the chunks and after any number of interruptions.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TypeVar, TypeVarTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo import trees
from purejaxppo.config import Hypers, Resolved
from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK, TrainingStopped
from purejaxppo.ppo.demonstrations import Demonstrations
from purejaxppo.ppo.types import Initial, Metrics, TrainState
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run import (
    checkpoint,
    compiler,
    demonstrations,
    devices,
    folder,
    preflight,
    report,
    seeds,
    weights_and_biases,
)
from purejaxppo.run.interrupt import Interrupt
from purejaxppo.run.journal import Journal, Metadata
from purejaxppo.run.options import Options, gives_policy
from purejaxppo.run.progress import Progress
from purejaxppo.run.saving import Saver, write_persistently

_CHUNK_SECONDS = 2.0  # target duration of a chunk of updates
SUMMARY = "summary.json"
# What can be done with a run whose environments cannot be saved.
NO_RESUME = "evaluate it, or begin a new run with --init-from {}"

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

# (state, hypers, number of updates) -> state, metrics
ChunkProgram = compiler.Executable[
    TrainState, Hypers, jax.Array, tuple[TrainState, Metrics]
]


class Runner:
    """One run, from its first state to its summary.

    The constructor checks the configuration, the environment and the demonstrations. It
    compiles nothing and writes no file.
    """

    def __init__(
        self, resolved: Resolved, options: Options, path: Path, progress: Progress
    ):
        """Check the inputs of a run.

        Args:
          resolved: the configuration.
          options: the options of the run.
          path: the run's folder.
          progress: shows messages and figures.

        Raises:
          ConfigError: a value that cannot be used.
        """
        weights_and_biases.check(options.wandb)
        self.options, self.path, self.progress = options, path, progress
        self.config = resolved.config
        self.learner = preflight.make_learner(self.config, options)
        spec = self.learner.task.env.spec
        self.mesh = devices.choose(self.config, spec, options)
        self.hypers = as_arrays(self.config.hypers)
        self.compile = compiler.Compiler(progress, self.mesh)
        self.journal = Journal(self.learner, options, path, progress)
        num_devices = devices.count(self.mesh)
        self.saver = Saver(path, options, self.journal, progress, num_devices)
        self.demonstrations = self._load_demonstrations()

    def _load_demonstrations(self) -> Demonstrations | None:
        """Load the file of the option `demonstrations`, or its copy in the run.

        A run with a checkpoint is past cloning, and one with a given policy does not
        clone: neither needs them.
        """
        if not self.options.demonstrations or gives_policy(self.options):
            return None
        if checkpoint.steps(self.saver.checkpoints):
            return None
        copy = self.path / demonstrations.FILE
        source = copy if copy.exists() else Path(self.options.demonstrations)
        return demonstrations.load(source, self.learner.task.env, self.config)

    def _map(
        self, function: Callable[[*Args], Result], *axes: int | None
    ) -> Callable[[*Args], Result]:
        """Map a function of the learner over the seeds of the run."""
        num_seeds = self.options.num_seeds
        return seeds.map_over_seeds(function, num_seeds, *axes, mesh=self.mesh)

    def _placed_shapes(self, state: TrainState) -> TrainState:
        """Return the shapes of a state, and on a mesh where its parts belong."""
        num_seeds = self.options.num_seeds
        return devices.state_shapes(self.mesh, self.config, num_seeds, state)

    # --- the first state ------------------------------------------------------------

    def make_first_state(self, initial: Initial | None = None) -> TrainState:
        """Make the first state, including demonstrations and cloning if configured.

        Evaluation and update are compiled at the same time.

        Args:
          initial: what all seeds begin with; None for random parameters.
        """
        for sentence in devices.sentences(self.mesh, self.options):
            self.progress.line(sentence)
        num = self.options.num_seeds
        keys = seeds.seed_keys(self.options.seed, num)
        keys = devices.placed(keys, devices.per_seed(self.mesh, keys))
        demos, axis = self.demonstrations, None
        collect = None
        if demos is None and self.config.num_demonstrations:
            # Jitted here, so that shapes and compilation share one trace.
            collect = jax.jit(self._map(self.learner.collect, 0))
            shapes = jax.eval_shape(collect, keys)
            demos, axis = devices.per_seed(self.mesh, shapes), 0
        init = self._map(self.learner.init, 0, None, axis, None)
        program = self.compile.begin("init", init, keys, self.hypers, demos, initial)
        if collect is not None:
            demos = self.compile("collect", collect, keys)(keys)
            demonstrations.check_collected(demos, self.learner.task.env)
        if demos is not None:
            self._save_demonstrations(demos, per_seed=axis is not None and num > 1)
        compiled = self.compile.wait(program)
        placed = self._placed_shapes(compiled.out_info[0])
        self.begin_compiling(placed)
        with self.progress.phase("cloning" if demos is not None else "starting"):
            result = compiled(keys, self.hypers, demos, initial)
            state, cloning = jax.block_until_ready(result)
        for name, value in sorted(cloning.items()):
            self.progress.line(f"{name} {np.asarray(value).mean():.3f}")
        demonstrations.check_cloned(cloning)
        return devices.placed(state, placed)

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
        """Start to compile evaluation and updates for states of the given shapes."""
        evaluate = self._map(self.learner.evaluate, 0)
        update = self._map(self.learner.update, 0, None)

        def chunk(state: TrainState, hypers: Hypers, num: jax.Array):
            strict = self.options.strict
            state, metrics = seeds.run_chunk(update, state, hypers, num, strict)
            return devices.constrained(state, shapes), metrics

        self.evaluation = self.compile.begin("evaluate", evaluate, shapes)
        num = jnp.zeros((), jnp.int32)
        # The state is donated, so that there is only one copy of it in memory.
        self.updates = self.compile.begin(
            "update", chunk, shapes, self.hypers, num, donate=(0,)
        )

    def evaluate_and_log(self, state: TrainState, update: int) -> None:
        """Evaluate on the fixed blocks of seeds, and log the metrics."""
        compiled = self.compile.wait(self.evaluation)
        with self.progress.phase("evaluating", announce=False):
            metrics = jax.block_until_ready(compiled(state))
        self.journal.log_evaluation(metrics, update)

    def _chunk_length(self, update: int, seconds_per_update: float | None) -> int:
        """Return the number of updates of the next chunk.

        It ends at the next evaluation or regular checkpoint at the latest. Before the
        duration of an update is known, it is 1.
        """
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
        """Train until the last update or an interrupt.

        Args:
          state: the state after `update` updates; its buffers are donated.
          update: the number of updates so far.
          interrupt: is checked after each chunk.

        Returns:
          the exit code.

        Raises:
          TrainingStopped: at a fatal fault; with `strict` at the first one, and then
            the state that is saved is the one before the update with the fault.
        """
        per_update = None
        while update < self.config.num_updates:
            compiled = self.compile.wait(self.updates)  # which an interrupt ends
            interrupt.must_save = True
            length = self._chunk_length(update, per_update)
            first, before = per_update is None, update
            state, metrics, seconds = self._run_chunk(compiled, state, length, first)
            strict = self.options.strict
            num = seeds.num_run(metrics, length) if strict else length
            reason = self.journal.log_updates(metrics, before + 1, num, seconds)
            update = before + (num - 1 if reason and strict else num)
            per_update = seconds / num
            evaluated = update in self.config.eval_points
            if evaluated and update > before:
                self.evaluate_and_log(state, update)
            reason = reason or self.journal.report_findings()
            stopping = interrupt.requested and update < self.config.num_updates
            if reason or stopping:
                self.saver.save_last(state, update)
            elif evaluated or self.saver.is_due(update):
                self.saver.save(state, update)
            interrupt.must_save = self.saver.saved_update != update
            if reason:
                raise TrainingStopped(reason)
            if stopping:
                can_resume = self.learner.task.env.spec.can_resume
                advice = "go on with --resume {}" if can_resume else NO_RESUME
                self.progress.line(f"saved; {advice.format(self.path)}")
                return EXIT_INTERRUPTED
        self.saver.save_last(state, update)
        interrupt.must_save = False
        self.finish(state, update)
        return EXIT_OK

    def _run_chunk(
        self, compiled: ChunkProgram, state: TrainState, length: int, first: bool
    ) -> tuple[TrainState, Metrics, float]:
        """Run `length` updates; return the state, metrics on the host, and seconds."""
        phase = self.progress.phase("training", announce=False)
        start = time.monotonic()
        with phase if first else nullcontext():  # later chunks show the last figures
            state, metrics = compiled(state, self.hypers, jnp.int32(length))
            metrics = jax.device_get(metrics)
        return state, metrics, time.monotonic() - start

    def finish(self, state: TrainState, update: int) -> None:
        """Evaluate with sampled actions, and write the summary of a finished run."""

        def evaluate_stochastic(state: TrainState) -> Metrics:
            return self.learner.evaluate(state, deterministic=False)

        function = self._map(evaluate_stochastic, 0)
        shapes = self._placed_shapes(state)
        metrics = self.compile("evaluate_stochastic", function, shapes)(state)
        for line in compiler.ledger_lines(self.compile.ledger):
            self.progress.line(line)
        self.journal.report_end()
        summary = self.journal.summary(update, self.compile.ledger)
        summary["stochastic"] = {n: np.asarray(x).tolist() for n, x in metrics.items()}
        path = self.path / SUMMARY
        write_persistently(lambda: folder.write_json(path, summary), self.path)
        if self.options.report:
            with self.progress.phase("writing report.html", announce=False):
                first = seeds.of_seed(state, 0, self.options.num_seeds)
                if self.mesh is not None:
                    first = jax.device_put(first, self.mesh.devices.flat[0])
                warn = self.progress.line
                report.write_still(self.path, self.learner.task, first, warn)
                report.write_run(self.path, warn)

    def run_from_start(
        self, interrupt: Interrupt, initial: Initial | None = None
    ) -> int:
        """Train from the first state; return the exit code.

        Args:
          interrupt: is checked after each chunk.
          initial: what all seeds begin with; None for random parameters.
        """
        self.journal.open(-1)  # deletes the rows of an earlier attempt
        state = self.make_first_state(initial)
        self.evaluate_and_log(state, 0)
        self.saver.save_last(state, 0)
        return self.train(state, 0, interrupt)

    def run_from_checkpoint(self, interrupt: Interrupt) -> int:
        """Train from the newest undamaged checkpoint; return the exit code.

        Raises:
          CheckpointError: there is no such checkpoint.
        """
        shapes = seeds.state_shapes(self.learner, self.options)
        state, metadata = checkpoint.restore_latest(
            self.saver.checkpoints, shapes, self.progress.line
        )
        update = int(np.asarray(state.update_count).ravel()[0])
        checkpoint.discard_after(self.saver.checkpoints, update)
        metadata = cast(Metadata, metadata)
        self.journal.restore(metadata)
        saved = metadata.get("num_devices", 1)
        for sentence in devices.sentences(self.mesh, self.options, saved):
            self.progress.line(sentence)
        self.journal.open(update, metadata.get("tables"))
        self.saver.saved_update = update
        steps = update * self.config.batch_size
        self.progress.line(f"resuming {self.path} at {steps:,} steps")
        if update < self.config.num_updates:
            # Not for `shapes`: keys have the implementation that they were saved with.
            placed = self._placed_shapes(jax.eval_shape(lambda state: state, state))
            state = devices.placed(state, placed)
            self.begin_compiling(placed)
        return self.train(state, update, interrupt)
