"""What a trial leaves, as data: its learning curve, its speed, or why there is none."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from purejaxppo.run.folder import Record

State = Literal[
    "complete", "pruned", "diverged", "failed", "running", "waiting", "lost"
]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of one trial.

    Attributes:
      steps: environment steps of each seed at each of K evaluations.
      scores: the score of each seed at each evaluation, [K][S].
      steps_per_second: environment steps of all seeds per second of training, without
        compilation and evaluation; NaN if there was no training.
      seconds: of the whole trial.
      compile_seconds: of them; 0 if all programs were those of an earlier trial.
      state: how it ended.
      reason: why it did not complete, in words; "" if it did.
    """

    steps: tuple[int, ...] = ()
    scores: tuple[tuple[float, ...], ...] = ()
    steps_per_second: float = math.nan
    seconds: float = 0.0
    compile_seconds: float = 0.0
    state: State = "complete"
    reason: str = ""

    @property
    def score(self) -> float:
        """The mean over seeds of the last evaluation; NaN without one."""
        return float(np.mean(self.scores[-1])) if self.scores else math.nan


def to_json(outcome: Outcome) -> Record:
    """Return an outcome as a dictionary that JSON can express."""
    return dataclasses.asdict(outcome)


def from_json(recorded: Record) -> Outcome:
    """Read an outcome; JSON has lists where it has tuples."""
    steps, scores = tuple(recorded["steps"]), tuple(map(tuple, recorded["scores"]))
    return Outcome(**recorded | {"steps": steps, "scores": scores})


def failed(reason: str) -> Outcome:
    """Return the outcome of a trial that could not train."""
    return Outcome(state="failed", reason=reason)


class Trial(NamedTuple):
    """A trial of a study.

    Attributes:
      number: counts the trials of the study from 0.
      state: how far it is, or how it ended; "lost" if its worker ended before it did.
      drawn: name of a parameter -> its value.
      outcome: what it left; None while it runs, and of one that was lost.
    """

    number: int
    state: State
    drawn: Mapping[str, float | int | str]
    outcome: Outcome | None

    @property
    def score(self) -> float:
        """The score of its last evaluation; NaN without one."""
        return self.outcome.score if self.outcome else math.nan


def best(trials: list[Trial], with_speed: bool) -> list[Trial]:
    """Return the best of the complete trials, the highest score first.

    Args:
      trials: of a study.
      with_speed: whether steps per second is an objective as well. Then these are all
        trials to which no other is better in both; otherwise there is one.
    """
    complete = [trial for trial in trials if trial.state == "complete"]
    if not with_speed:
        return sorted(complete, key=lambda trial: -trial.score)[:1]
    ordered = sorted(complete, key=_objectives, reverse=True)
    front: list[Trial] = []
    for trial in ordered:
        if not front or _objectives(trial)[1] > _objectives(front[-1])[1]:
            front.append(trial)
    return front


def _objectives(trial: Trial) -> tuple[float, float]:
    assert trial.outcome is not None
    return trial.score, trial.outcome.steps_per_second


def show(value: object) -> str:
    """Format the value of a parameter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
