"""Starts and resumes runs: the folder, its lock and record, and how a run ends."""

import functools
from collections.abc import Callable
from pathlib import Path

from purejaxppo.config import Resolved
from purejaxppo.env import EnvSpec
from purejaxppo.errors import EXIT_OK, ConfigError, StorageError
from purejaxppo.presets import FLAG, INIT_FROM
from purejaxppo.run import checkpoint, compiler, files, folder, init_from, record
from purejaxppo.run.interrupt import Interrupt
from purejaxppo.run.journal import METRICS
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress
from purejaxppo.run.runner import NO_RESUME, SUMMARY, Runner
from purejaxppo.run.tables import Table
from purejaxppo.run.trust import Trust, check_imports
from purejaxppo.validation import advice


def start(resolved: Resolved, options: Options, path: Path, command: list[str]) -> int:
    """Train in a new folder.

    Args:
      resolved: the configuration.
      options: the options of the run.
      path: the run's folder, new or empty.
      command: the command line, which is recorded.

    Returns:
      the exit code.

    Raises:
      PurejaxppoError: an invalid input, before anything compiles; or with `strict` a
        fault.
    """
    progress = Progress()
    runner = Runner(resolved, options, path, progress)
    spec = runner.learner.task.env.spec
    first = init_from.load(runner.learner, options, progress.line)
    folder.create(path)
    with files.lock(path, "run_dir", progress.line):
        try:
            init_from.save_copy(path, first.initial)
            record.write(path, resolved, options, command, spec, first.origin)
        except OSError as error:
            folder.remove_unused(path)
            raise StorageError(path, error) from None
        progress.line(f"run {path}")
        for sentence in (*first.sentences, *_replaced(resolved)):
            progress.line(sentence)
        given = [name for name, source in resolved.sources.items() if source == FLAG]
        for sentence in advice(resolved.config, spec, given):
            progress.line(f"warning: {sentence}")
        train = functools.partial(runner.run_from_start, initial=first.initial)
        return _run(runner, train)


def _replaced(resolved: Resolved) -> list[str]:
    """Say what is left out because the parameters of another run replace it."""
    told = {
        "num_demonstrations": "that policy replaces cloning: num_demonstrations is 0",
        "critic_warmup": "that critic needs no warm-up: critic_warmup is 0",
    }
    return [text for name, text in told.items() if resolved.sources[name] == INIT_FROM]


def resume(resolved: Resolved, options: Options, path: Path, trust: Trust) -> int:
    """Continue a run; its results are bit for bit those of an uninterrupted run.

    Args:
      resolved: the run's configuration.
      options: the run's options, of which `RESUMABLE` may have been changed.
      path: the run's folder.
      trust: what the user allows the run to import.

    Returns:
      the exit code.

    Raises:
      PurejaxppoError: no usable checkpoint; or with `strict` a fault.
    """
    progress = Progress()
    if (path / SUMMARY).exists():
        progress.line(f"{path} is finished; nothing to resume")
        return EXIT_OK
    check_imports(resolved.config, trust, path)
    with files.lock(path, "resume", progress.line):
        return _resume(resolved, options, path, progress)


def _resume(
    resolved: Resolved, options: Options, path: Path, progress: Progress
) -> int:
    """Continue a run whose lock is held."""
    record.check_unchanged(path)
    changes = folder.changed_since(record.read(path))
    if changes:
        progress.line(
            "resuming with another machine, other versions or other flags, so the last "
            "bits of all numbers may differ: " + "; ".join(changes)
        )
    runner = Runner(resolved, options, path, progress)
    spec = runner.learner.task.env.spec
    record.check_env_version(path, spec)
    if checkpoint.steps(runner.saver.checkpoints):
        _check_resumable(spec, path)
        return _run(runner, runner.run_from_checkpoint)
    num_rows = Table(path / METRICS).rows
    if num_rows and not options.overwrite:
        raise ConfigError(
            "resume",
            str(path),
            f"a run with a finished checkpoint: this one has {num_rows} rows in "
            f"{METRICS}, but no finished checkpoint; --overwrite starts it anew",
        )
    reason = "has lost its checkpoints" if num_rows else "was killed before its first"
    reason += "" if num_rows else " checkpoint"
    initial = init_from.load_copy(path, runner.learner, options)
    progress.line(f"{path} {reason}; starting it anew")
    return _run(runner, functools.partial(runner.run_from_start, initial=initial))


def _check_resumable(spec: EnvSpec, path: Path) -> None:
    """Check that a checkpoint holds all of the environments.

    Raises:
      ConfigError: their state is elsewhere, and is lost.
    """
    if not spec.can_resume:
        allowed = (
            f"a run whose environments can be saved, unlike those of {spec.name}; "
            f"{NO_RESUME.format(path)}"
        )
        raise ConfigError("resume", str(path), allowed)


def _run(runner: Runner, train: Callable[[Interrupt], int]) -> int:
    compiler.use_compilation_cache()
    progress = runner.progress
    with Interrupt(progress.line, progress.close) as interrupt:
        try:
            return train(interrupt)
        except OSError as error:  # of the journal or the demonstrations
            raise StorageError(runner.path, error) from None
        finally:
            progress.close()
            runner.journal.close()
