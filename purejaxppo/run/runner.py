"""The host's side of training: chunks of updates, and between them log, evaluate, save.

Nothing here computes what training depends on. The numbers are those of `make_train`
whatever the chunks, however often the run was killed.
"""

import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from purejaxppo.config import Resolved
from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK, TrainingStopped
from purejaxppo.ppo.imitation import Demonstrations
from purejaxppo.ppo.learner import Learner, as_arrays, make_learner
from purejaxppo.ppo.types import TrainState
from purejaxppo.run import checkpoint, compiler, demonstrations, folder, record, seeds
from purejaxppo.run.interrupt import Interrupt
from purejaxppo.run.journal import Journal
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress
from purejaxppo.validation import advice

_CHUNK_SECONDS = 2.0  # how long the host may go without a word
_SUMMARY = "summary.json"


class Runner:
    """One run, from its first state to its summary.

    Building one checks the configuration, the environment and the demonstrations;
    nothing compiles and nothing is written before it is asked for.
    """

    def __init__(
        self, resolved: Resolved, options: Options, path: Path, progress: Progress
    ):
        self.options, self.path, self.progress = options, path, progress
        self.config = resolved.config
        self.learner: Learner = make_learner(self.config)
        self.hypers = as_arrays(self.config.hypers)
        self.compile = compiler.Compiler(progress)
        self.journal = Journal(self.learner, options, path, progress)
        self.checkpoints = path / folder.CHECKPOINTS
        self.saved_at, self.saved_time = -1, time.monotonic()
        self.given = self._given_demonstrations()

    def _given_demonstrations(self) -> Demonstrations | None:
        """Those of the file; of the run's own copy, where it has one."""
        if not self.options.demonstrations:
            return None
        own = self.path / demonstrations.FILE
        source = own if own.exists() else Path(self.options.demonstrations)
        return demonstrations.load(source, self.learner.env, self.config)

    # --- the first state ------------------------------------------------------------

    def initial(self) -> TrainState:
        """Demonstrations, cloning and the first state, compiled and run.

        While they run, the compiler goes on to what comes after.
        """
        num = self.options.num_seeds
        keys = seeds.seed_keys(self.options.seed, num)
        demos, axis = self.given, None
        collects = demos is None and bool(self.config.num_demonstrations)
        if collects:
            axis = 0
            collect = jax.jit(seeds.over_seeds(self.learner.collect, num, 0))
            demos = jax.eval_shape(collect, keys)
        init = seeds.over_seeds(self.learner.init, num, 0, None, axis)
        self.compile.begin("init", init, keys, self.hypers, demos)
        if collects:
            demos = self.compile("collect", collect, keys)(keys)
        if demos is not None:
            self._save_demonstrations(demos, axis)
        compiled = self.compile.wait("init")
        self.begin_compiling(compiled.out_info[0])
        with self.progress.ticking("cloning" if demos is not None else "starting"):
            result = compiled(keys, self.hypers, demos)
            state, cloning = jax.block_until_ready(result)
        for name, value in sorted(cloning.items()):
            self.progress.line(f"{name} {np.asarray(value).mean():.3f}")
        return state

    def _save_demonstrations(self, demos: Demonstrations, axis: int | None) -> None:
        env = self.learner.env
        if axis is None or self.options.num_seeds == 1:
            demonstrations.save(self.path / demonstrations.FILE, demos, env)
            return
        for i in range(self.options.num_seeds):
            one = jax.tree.map(lambda x, i=i: x[i], demos)
            name = f"demonstrations-seed{self.options.seed + i}.npz"
            demonstrations.save(self.path / name, one, env)

    # --- between chunks -------------------------------------------------------------

    def begin_compiling(self, like: TrainState) -> None:
        """Evaluation and updates, for states of those shapes."""
        num_seeds = self.options.num_seeds
        evaluate = seeds.over_seeds(self.learner.evaluate, num_seeds, 0)
        update = seeds.over_seeds(self.learner.update, num_seeds, 0, None)

        def chunk(state: TrainState, hypers: Any, num: jax.Array):
            return seeds.run_chunk(update, state, hypers, num)

        self.compile.begin("evaluate", evaluate, like)
        num = jnp.zeros((), jnp.int32)
        # The state is consumed: memory for one of it is enough.
        self.compile.begin("update", chunk, like, self.hypers, num, donate=(0,))

    def evaluate(self, state: TrainState, update: int) -> None:
        compiled = self.compile.wait("evaluate")
        with self.progress.ticking("evaluating", announce=False):
            metrics = jax.block_until_ready(compiled(state))
        self.journal.evaluation(metrics, update)

    def save(self, state: TrainState, update: int) -> None:
        """Checkpoint, then forget older ones."""
        if self.saved_at != update:
            checkpoint.save(self.checkpoints, update, state, self.journal.memory())
            best = self.journal.best
            protect = {best["update"]} if best else set()
            checkpoint.prune(self.checkpoints, self.options.keep_checkpoints, protect)
        self.saved_at, self.saved_time = update, time.monotonic()

    def _save_is_due(self, update: int) -> bool:
        every = self.options.checkpoint_every
        overdue = time.monotonic() - self.saved_time > self.options.checkpoint_seconds
        evaluated = update in self.config.eval_points
        return evaluated or overdue or bool(every and update % every == 0)

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
        """From `update` to the end, or to the interrupt. Returns the exit code.

        Raises:
          TrainingStopped: under `strict`, at the first fault; the state is saved.
        """
        interrupt.patient = True  # from here on there is something to save
        per_update = None
        while update < self.config.num_updates:
            run_chunk = self.compile.wait("update")
            length = self._chunk_length(update, per_update)
            start = time.monotonic()
            state, metrics = run_chunk(state, self.hypers, jnp.int32(length))
            metrics = jax.device_get(metrics)
            seconds = time.monotonic() - start
            update, per_update = update + length, seconds / length
            try:
                self.journal.updates(metrics, update - length + 1, length, seconds)
            except TrainingStopped:
                self.save(state, update)
                raise
            if update in self.config.eval_points:
                self.evaluate(state, update)
            if interrupt.asked or self._save_is_due(update):
                self.save(state, update)
            if interrupt.asked and update < self.config.num_updates:
                self.progress.line(f"saved; go on with --resume {self.path}")
                return EXIT_INTERRUPTED
        self.save(state, update)
        self.finish(state, update)
        return EXIT_OK

    def finish(self, state: TrainState, update: int) -> None:
        """The stochastic evaluation, and the summary that marks the run as finished."""

        def stochastic(state: TrainState):
            return self.learner.evaluate(state, deterministic=False)

        f = seeds.over_seeds(stochastic, self.options.num_seeds, 0)
        noisy = self.compile("evaluate_noisy", f, state)(state)
        for line in compiler.ledger_lines(self.compile.ledger):
            self.progress.line(line)
        summary = self.journal.summary(update, self.compile.ledger)
        summary["stochastic"] = {n: np.asarray(x).tolist() for n, x in noisy.items()}
        folder.write_json(self.path / _SUMMARY, summary)

    def begin(self, interrupt: Interrupt) -> int:
        """Run from the first state. Returns the exit code."""
        self.journal.open(-1)  # nothing of an earlier attempt counts
        state = self.initial()
        self.evaluate(state, 0)
        self.save(state, 0)
        return self.train(state, 0, interrupt)

    def go_on(self, interrupt: Interrupt) -> int:
        """Run from the newest checkpoint that is whole. Returns the exit code."""
        like = seeds.state_shapes(self.learner, self.options)
        state, memory = checkpoint.restore_latest(
            self.checkpoints, like, self.progress.line
        )
        update = int(np.asarray(state.update_count).ravel()[0])
        checkpoint.discard_after(self.checkpoints, update)
        self.journal.recall(memory)
        self.journal.open(update)
        self.saved_at = update
        steps = update * self.config.batch_size
        self.progress.line(f"resuming {self.path} at {steps:,} steps")
        if update < self.config.num_updates:
            self.begin_compiling(like)
        return self.train(state, update, interrupt)


def start(resolved: Resolved, options: Options, path: Path, command: list[str]) -> int:
    """A new run in `path`. Returns the exit code.

    Raises:
      PurejaxppoError: bad input, before anything compiles; a fault, under `strict`.
    """
    progress = Progress()
    runner = Runner(resolved, options, path, progress)
    folder.create(path)
    record.write(path, resolved, options, command, runner.learner.env.spec)
    progress.line(f"run {path}")
    for sentence in advice(resolved.config):
        progress.line(f"warning: {sentence}")
    return _run(runner, Runner.begin)


def resume(resolved: Resolved, options: Options, path: Path) -> int:
    """Go on with the run in `path`, to the bit. Returns the exit code.

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
    record.check_env_version(path, runner.learner.env.spec)
    if checkpoint.steps(runner.checkpoints):
        return _run(runner, Runner.go_on)
    progress.line(f"{path} was killed before its first checkpoint; starting it anew")
    return _run(runner, Runner.begin)


def _run(runner: Runner, way: Any) -> int:
    compiler.use_compilation_cache()
    with Interrupt(runner.progress.line) as interrupt:
        try:
            return way(runner, interrupt)
        finally:
            runner.journal.close()
