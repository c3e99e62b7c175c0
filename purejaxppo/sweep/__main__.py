"""`python -m purejaxppo.sweep --param NAME=SPACE ...`: search over hyperparameters.

The same command in another process, or on another machine with the same folder or
database, is one more worker. `--resume FOLDER` is short for the command that began the
study there.
"""

from purejaxppo.run import process

if __name__ == "__main__":  # before the imports below, which take a second
    process.end_on_signals()

import functools
import importlib.metadata
import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from purejaxppo.errors import EXIT_OK, ConfigError, first_line
from purejaxppo.run import files, folder
from purejaxppo.run.folder import Record
from purejaxppo.run.interrupt import Interrupt
from purejaxppo.run.progress import Progress
from purejaxppo.sweep import command, locks, outcome
from purejaxppo.sweep import plan as plan_lib

if TYPE_CHECKING:  # they import Optuna, which is an extra
    from purejaxppo.sweep.storage import Place
    from purejaxppo.sweep.study import Queue

_PAGE_SECONDS = 60.0  # between pages while trials go on


def check_installed() -> None:
    """Check that Optuna is there.

    Raises:
      ConfigError: it is not installed.
    """
    if importlib.util.find_spec("optuna") is None:
        allowed = 'one that is installed: pip install "purejaxppo[sweep]"'
        raise ConfigError("optuna", "no package", allowed)


def _recorded(given: command.Flags) -> Record:
    from purejaxppo.sweep import storage

    path = Path(given.resume)
    if not given.storage:
        files.refuse_links(path, "resume")
    return storage.recorded_plan(storage.Place(path, given.storage, given.study))


def _place(given: command.Flags, env: str) -> "Place":
    from purejaxppo.sweep.storage import Place

    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"runs/sweep-{env.replace(':', '.')}-{stamp}"
    return Place(Path(given.run_dir or name), given.storage, given.study)


class _Page:
    """Writes the report now and then; an error costs the page alone."""

    def __init__(self, queue: "Queue", argv: Sequence[str], progress: Progress):
        self._queue, self._argv, self._progress = queue, argv, progress
        self._next = time.monotonic() + _PAGE_SECONDS

    def write_rarely(self) -> None:
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        from purejaxppo.sweep import page
        from purejaxppo.sweep.storage import REPORT, REPORT_LOCK

        queue, path = self._queue, self._queue.place.folder
        words, storage = " ".join(self._argv), queue.place.storage
        words = words.replace(storage, queue.place.url) if storage else words
        facts = {"study": queue.place.shown, "command": f"{command.PROGRAM} {words}"}
        found = folder.provenance([])
        facts |= found["machine"] | {"optuna": importlib.metadata.version("optuna")}
        facts |= found["versions"]
        try:
            content = page.render(
                queue.plan, queue.trials(), queue.importances(), facts
            )
            with locks.held(path / REPORT_LOCK):
                files.replace(path / REPORT, content)
        except Exception as error:  # also of the library that draws
            self._progress.line(f"warning: no {REPORT} ({first_line(error)})")
        self._next = time.monotonic() + _PAGE_SECONDS


def _interrupted(queue: "Queue", progress: Progress) -> None:
    """Give back the trial that runs, and say what is kept."""
    progress.close()
    number = queue.give_back()
    lost = "" if number is None else f"; trial {number} will be trained anew"
    progress.line(
        f"{_num_ended(queue)} finished trials are kept{lost}; go on with --resume "
        f"{queue.place.folder}"
    )
    queue.close()


def _num_ended(queue: "Queue") -> int:
    return sum(trial.outcome is not None for trial in queue.trials())


def _begin(queue: "Queue", progress: Progress) -> None:
    """Say where the study is, and how far."""
    others = queue.num_other_workers()
    text = f"sweep {queue.place.shown}: {queue.num_trials} trials"
    if not queue.is_new:
        text += (
            f", of which {_num_ended(queue)} are finished; {others} other workers here"
        )
    progress.line(text)


def report_best(queue: "Queue") -> None:
    """Print the best trials, and the command line that trains each of them."""
    plan = queue.plan
    best = outcome.best(queue.trials(), plan.speed)
    if not best:
        print("no trial is complete")
    for trial in best:
        assert trial.outcome is not None
        speed = f", {trial.outcome.steps_per_second:,.0f} steps/s" * plan.speed
        print(f"best: trial {trial.number}, {plan.score} {trial.score:.4g}{speed}")
        print(plan_lib.train_command(plan, trial.drawn))


def _main(argv: list[str]) -> int:
    given, rest = command.parse(argv)
    check_installed()
    if given.resume:
        given, rest = command.resumed(given, rest, _recorded(given))
    plan = command.make_plan(given, rest)
    place = _place(given, plan.resolved.config.env)
    from purejaxppo.run import compiler
    from purejaxppo.sweep.study import Queue
    from purejaxppo.sweep.training import Trainer
    from purejaxppo.sweep.worker import work

    progress = Progress()
    compiler.use_compilation_cache()
    queue = Queue(place, plan, given.trials)
    page = _Page(queue, argv, progress)
    trainer = Trainer(plan.options, plan.metric, progress)
    after = page.write_rarely if given.report else lambda: None
    with Interrupt(progress.line, functools.partial(_interrupted, queue, progress)):
        try:
            _begin(queue, progress)
            work(queue, trainer, progress, after)
            if given.report:
                page.write()
        finally:
            progress.close()
            queue.close()
    report_best(queue)
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 0, 2 (usage), 4 (storage) or 130."""
    argv = sys.argv[1:] if argv is None else argv
    return process.exit_code(lambda: _main(argv))


if __name__ == "__main__":
    process.run(main)
