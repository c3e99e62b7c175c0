"""The queue of a study's trials: Optuna's journal in a folder, or a database.

A worker takes a trial while it holds the lock of the folder. There it first gives back
the trials of workers that have died: such a trial becomes FAIL, and another one with
the same values is put into the queue. So each of the values is trained to its end once.

Workers on machines that share a database but no folder cannot hold a common lock. For
them Optuna's heartbeat tells which workers have died, and of two workers that take the
last trial the later one leaves it.
"""

import contextlib
import math
import threading
import warnings
import zlib
from collections.abc import Mapping
from datetime import datetime, timedelta

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import UpdateFinishedTrialError
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from purejaxppo.errors import ConfigError
from purejaxppo.sweep import locks
from purejaxppo.sweep import outcome as outcome_lib
from purejaxppo.sweep import plan as plan_lib
from purejaxppo.sweep.outcome import Outcome, State, Trial
from purejaxppo.sweep.plan import Plan
from purejaxppo.sweep.space import Choice, Parameter
from purejaxppo.sweep.storage import (
    GRACE_SECONDS,
    HEARTBEAT_SECONDS,
    PLAN,
    QUEUE_LOCK,
    Place,
    create_folder,
    open_storage,
    quietly,
)

DEFAULT_TRIALS = 50
# A configuration that has ended so many workers, by taking all memory for example.
_MOST_KILLS = 3
# Attributes of the study, and of trials.
_TRIALS = "trials"
_WORKER, _OUTCOME, _REASON = "worker", "outcome", "reason"
_REPEATS, _KILLS, _SURPLUS = "repeats", "kills", "surplus"


def _distribution(parameter: Parameter) -> BaseDistribution:
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.corners)
    low, high, log = parameter.low, parameter.high, parameter.log
    if parameter.whole:
        return IntDistribution(int(low), int(high), log=log)
    return FloatDistribution(low, high, log=log)


class Queue:
    """The trials of a study, of which this worker takes one after the other.

    Attributes:
      plan: what all workers agree on.
      place: where the study is.
      is_new: whether this worker began the study.
    """

    def __init__(self, place: Place, plan: Plan, num_trials: int | None):
        """Begin a study, or join one.

        Args:
          place: where the study is.
          plan: what all its trials have in common.
          num_trials: of the whole study, for all workers from now on; None for as many
            as there were to be.

        Raises:
          ConfigError: the study has another plan, or the place cannot be used.
          StorageError: the folder cannot be written.
        """
        self.plan, self.place = plan, place
        create_folder(place.folder)
        self._distributions = {p.name: _distribution(p) for p in plan.space}
        self._current: optuna.Trial | None = None
        with locks.held(place.folder / QUEUE_LOCK):
            self._storage = open_storage(place, _repeat_killed)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=place.name,
                pruner=_pruner(plan),
                directions=[StudyDirection.MAXIMIZE] * (2 if plan.speed else 1),
                load_if_exists=True,
            )
            recorded = self._study.user_attrs.get(PLAN)
            self.is_new = recorded is None
            if recorded is None:
                if self._study.get_trials(deepcopy=False):
                    allowed = "a new name, because another program has this study"
                    raise ConfigError("study", place.name, allowed)
                self._study.set_user_attr(PLAN, plan_lib.to_json(plan))
                num_trials = num_trials or DEFAULT_TRIALS
            else:
                plan_lib.check_same(plan, recorded, place.shown)
            if num_trials is not None:
                self._study.set_user_attr(_TRIALS, num_trials)
            # Where no other worker can take it for one that has died.
            self._worker = locks.Worker(place.folder)
        if isinstance(self._storage, RDBStorage):
            threading.Thread(target=self._beat, daemon=True).start()

    def close(self) -> None:
        """Leave the study."""
        self._worker.close()

    # --- taking trials --------------------------------------------------------------

    def claim(self) -> optuna.Trial | None:
        """Take the next trial; None if all are finished or taken."""
        with locks.held(self.place.folder / QUEUE_LOCK):
            self._recover()
            before = self._study.get_trials(deepcopy=False)
            if _num_counted(before) >= self.num_trials:
                return None
            self._study.sampler = self._sampler(len(before))
            with quietly():
                trial = self._study.ask(self._distributions)
            if isinstance(self._storage, RDBStorage):
                self._storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr(_WORKER, self._worker.name)
        after = self._study.get_trials(deepcopy=False)
        if _num_counted(after[: trial.number]) >= self.num_trials:
            # Only where workers share no folder, and so no lock.
            trial.set_user_attr(_SURPLUS, True)
            self._study.tell(trial, state=TrialState.FAIL)
            return None
        self._current = trial
        return trial

    @property
    def num_trials(self) -> int:
        """The number of trials of the whole study."""
        return self._study.user_attrs[_TRIALS]

    def _sampler(self, num: int) -> TPESampler:
        """Return the sampler of the next trial, which depends on the trials before it.

        In a database another worker may ask at the same time, and would draw the same.

        Args:
          num: the number of trials so far.
        """
        worker = self._worker.name if self.place.storage else ""
        text = f"{self.plan.options.seed} {num} {worker}"
        return TPESampler(seed=zlib.crc32(text.encode()))

    def _recover(self) -> None:
        """Give back the trials of workers that have died."""
        if isinstance(self._storage, RDBStorage):
            with quietly():
                fail_stale_trials(self._study)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state == TrialState.RUNNING and self._is_dead(trial):
                if _REASON not in trial.user_attrs:  # else it had just ended
                    _repeat(self._study, trial, is_killed=True)
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a trial that runs has died."""
        name = trial.user_attrs.get(_WORKER)
        if not isinstance(self._storage, RDBStorage):
            # It is named while the lock is held, and that is held by us.
            return name is None or not locks.is_alive(self.place.folder, name)
        # One that is named has a heartbeat, too.
        age = datetime.now() - (trial.datetime_start or datetime.now())
        return name is None and age > timedelta(seconds=GRACE_SECONDS)

    def _beat(self) -> None:
        assert isinstance(self._storage, RDBStorage)
        pause = threading.Event()
        while not pause.wait(HEARTBEAT_SECONDS):
            trial = self._current
            if trial is not None:
                with contextlib.suppress(Exception):  # it will beat again
                    self._storage.record_heartbeat(trial._trial_id)

    # --- finishing trials -----------------------------------------------------------

    def finish(self, trial: optuna.Trial, outcome: Outcome) -> bool:
        """Record how a trial ended.

        Args:
          trial: from `claim`.
          outcome: what it left.

        Returns:
          False if another worker took it over, because this one seemed to have died.
        """
        self._current = None  # an interrupt does not give it back any more
        state, values = TrialState.FAIL, None
        if outcome.state == "complete":
            state, values = TrialState.COMPLETE, [outcome.score]
            values += [outcome.steps_per_second] * self.plan.speed
        elif outcome.state in ("pruned", "diverged") and not self.plan.speed:
            state = TrialState.PRUNED
        try:
            if outcome.state == "diverged" and not self.plan.speed:
                # So that the sampler takes it for the worst of its length.
                trial.report(math.nan, len(outcome.steps) + 1)
            trial.set_user_attr(_OUTCOME, outcome_lib.to_json(outcome))
            if outcome.reason:
                trial.set_user_attr(_REASON, outcome.reason)
            self._study.tell(trial, values, state)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True

    def give_back(self) -> int | None:
        """Put the trial that runs back into the queue; return its number, if any."""
        trial, self._current = self._current, None
        if trial is None:
            return None
        with locks.held(self.place.folder / QUEUE_LOCK):
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            if frozen.state == TrialState.RUNNING:
                _repeat(self._study, frozen, is_killed=False)
                self._study.tell(trial, state=TrialState.FAIL)
        return trial.number

    # --- reading --------------------------------------------------------------------

    def trials(self) -> list[Trial]:
        """Return all trials, without those that were never to be."""
        found = self._study.get_trials(deepcopy=False)
        return [_plain(x) for x in found if _SURPLUS not in x.user_attrs]

    def num_other_workers(self) -> int:
        """Return how many other workers hold a file in this folder."""
        with locks.held(self.place.folder / QUEUE_LOCK):
            return locks.count_alive(self.place.folder) - 1

    def importances(self) -> dict[str, float]:
        """Return the share of each parameter in the score; empty with few trials."""
        target = (lambda trial: -trial.values[0]) if self.plan.speed else None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = get_param_importances(
                    self._study, evaluator=PedAnovaImportanceEvaluator(), target=target
                )
        except (ValueError, RuntimeError):
            return {}
        return {name: x for name, x in found.items() if math.isfinite(x)}


def _pruner(plan: Plan) -> BasePruner:
    if plan.pruner == "none" or plan.speed:  # Optuna prunes by one objective alone
        return NopPruner()
    return HyperbandPruner(1, max(len(plan.resolved.config.eval_points), 1))


def _num_counted(trials: list[FrozenTrial]) -> int:
    """Count the trials that are finished or run; those that were lost do not count."""
    taken = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
    return sum(t.state in taken or _has_failed(t) for t in trials)


def _has_failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and _REASON in trial.user_attrs


def _repeat(study: optuna.Study, trial: FrozenTrial, *, is_killed: bool) -> None:
    """Put a trial into the queue that repeats another one, unless there is one."""
    trials = study.get_trials(deepcopy=False)
    kills = trial.user_attrs.get(_KILLS, 0) + is_killed
    is_known = any(x.user_attrs.get(_REPEATS) == trial.number for x in trials)
    if trial.params and not is_known and kills < _MOST_KILLS:
        attributes = {_REPEATS: trial.number, _KILLS: kills}
        study.enqueue_trial(trial.params, attributes)


def _repeat_killed(study: optuna.Study, trial: FrozenTrial) -> None:
    """Repeat a trial whose heartbeat has stopped; one worker alone is called."""
    _repeat(study, trial, is_killed=True)


_STATES: Mapping[TrialState, State] = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "lost",
}


def _plain(trial: FrozenTrial) -> Trial:
    recorded = trial.user_attrs.get(_OUTCOME)
    is_finished = trial.state.is_finished() and (
        trial.state != TrialState.FAIL or _has_failed(trial)
    )
    outcome = outcome_lib.from_json(recorded) if recorded and is_finished else None
    state = outcome.state if outcome else _STATES[trial.state]
    return Trial(trial.number, state, trial.params, outcome)
