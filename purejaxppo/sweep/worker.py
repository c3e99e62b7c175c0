"""A worker: takes trials from the queue and trains them, until there are enough."""

import time
from collections.abc import Callable

import jax
import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

from purejaxppo.errors import PurejaxppoError, StorageError, first_line, summary
from purejaxppo.run.progress import Progress
from purejaxppo.sweep import outcome as outcome_lib
from purejaxppo.sweep.outcome import Outcome, show
from purejaxppo.sweep.study import Queue
from purejaxppo.sweep.training import Trainer

_POLL_SECONDS = 1.0  # between looks whether another worker has died


def work(
    queue: Queue, trainer: Trainer, progress: Progress, after: Callable[[], None]
) -> None:
    """Train trials until all of the study are finished.

    A worker that finds none left waits for those of others, as they may die.

    Args:
      queue: the trials.
      trainer: trains them.
      progress: shows messages.
      after: is called after each trial.

    Raises:
      StorageError: the journal or the database cannot be written.
    """
    is_waiting = False
    try:
        while True:
            if trial := queue.claim():
                is_waiting = False
                _run(queue, trainer, trial, progress)
                after()
                continue
            running = [x for x in queue.trials() if x.state == "running"]
            if not running:
                return
            if not is_waiting:
                numbers = ", ".join(str(trial.number) for trial in running)
                progress.line(f"waiting for the trials of other workers: {numbers}")
            is_waiting = True
            time.sleep(_POLL_SECONDS)
    except OSError as error:
        raise StorageError(queue.place.shown, error) from None
    except StorageInternalError as error:  # of a database
        reason = OSError(first_line(error))
        raise StorageError(queue.place.shown, reason) from None


def _run(
    queue: Queue, trainer: Trainer, trial: optuna.Trial, progress: Progress
) -> None:
    """Train one trial, and record how it ended."""
    plan = queue.plan

    def go_on(number: int, score: float) -> bool:
        if plan.speed:
            return True
        trial.report(score, number)
        return not trial.should_prune()

    try:
        outcome = trainer.train(plan.config(trial.params), go_on)
    except UpdateFinishedTrialError:
        outcome = Outcome()  # which is not recorded
    except (PurejaxppoError, jax.errors.JaxRuntimeError) as error:
        outcome = outcome_lib.failed(first_line(error))
    except Exception as error:
        queue.finish(trial, outcome_lib.failed(summary(error)))
        raise
    if queue.finish(trial, outcome):
        progress.line(sentence(trial.number, trial.params, outcome, plan.score))
    else:
        progress.line(f"trial {trial.number} was taken over by another worker")


def sentence(
    number: int, drawn: dict[str, float | int | str], outcome: Outcome, score: str
) -> str:
    """Say in one line how a trial ended.

    Args:
      number: of the trial.
      drawn: the values of its parameters.
      outcome: what it left.
      score: what the score is.
    """
    values = ", ".join(f"{name} {show(value)}" for name, value in drawn.items())
    if outcome.state in ("diverged", "failed"):
        return f"trial {number}: {outcome.state} ({outcome.reason}); {values}"
    ended = "" if outcome.state == "complete" else f", {outcome.reason}"
    compiling = f" ({outcome.compile_seconds:.1f} s compiling)"
    compiling = compiling if outcome.compile_seconds else ""
    return (
        f"trial {number}: {score} {outcome.score:.4g}{ended}, "
        f"{outcome.steps_per_second:,.0f} steps/s, {outcome.seconds:.1f} s{compiling}; "
        f"{values}"
    )
