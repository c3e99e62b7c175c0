"""Sweeps: what they refuse, what their trials share, and that no trial is lost."""

import collections
import dataclasses
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from helpers import TINY
from sweep_worker import waiting

from purejaxppo import train
from purejaxppo.config import Config
from purejaxppo.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, ConfigError
from purejaxppo.run import compiler
from purejaxppo.run.progress import Progress
from purejaxppo.sweep import __main__ as sweep
from purejaxppo.sweep import command, outcome, space, storage, study, training
from purejaxppo.sweep.outcome import Outcome, Trial
from purejaxppo.sweep.storage import Place
from purejaxppo.sweep.study import Queue
from purejaxppo.sweep.training import Diverged, Trainer

RATE = "--param=learning_rate=log:1e-4,1e-2"
# Without what is for runs alone.
TRAINING = TINY[: TINY.index("--no-tensorboard")]
FLAGS = [RATE, *TRAINING]


def plan_of(*flags: str):
    return command.make_plan(*command.parse([*FLAGS, *flags]))


def ended(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials of a study that have ended well."""
    return [x for x in trials_of(folder) if x.state.name == "COMPLETE"]


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    opened = storage.open_storage(Place(folder, "", "sweep"))
    return optuna.load_study(study_name="sweep", storage=opened).trials


@pytest.fixture
def quick(monkeypatch):
    """Trials that train nothing: their score is their learning rate."""
    monkeypatch.setattr(Trainer, "train", waiting(0.0))


# --- the space ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("learning_rate", "param: got 'learning_rate'; allowed is NAME=LOW,HIGH"),
        ("learning_rate=1", "allowed is NAME=LOW,HIGH"),
        ("learning_rate=ln:1,2", "allowed is NAME=LOW,HIGH"),
        ("learning_rate=1e-3,1e-4", "the smaller one first"),
        ("learning_rate=0,inf", "two finite numbers"),
        ("learning_rate=log:0,1", "log: with numbers above 0"),
        ("num_envs=1.5,4", "whole numbers for num_envs"),
        ("activation=tanh|", "choices that differ and are not empty"),
        ("learning=1,2", "a field of Config or Hypers"),
        ("env=hammer|deck", "which all trials share"),
        ("num_evals=1,4", "which all trials share"),
        ("env_kwargs=a|b", "env_kwargs.NAME, one entry of it"),
        ("gamma.x=0,1", "param: got 'gamma.x'; allowed is gamma"),
    ],
)
def test_what_is_no_parameter_is_refused(word, sentence):
    with pytest.raises(ConfigError) as info:
        space.parse([word])
    assert sentence in str(info.value)


def test_a_parameter_is_given_once_and_at_least_one():
    with pytest.raises(ConfigError, match="each name once"):
        space.parse(["gamma=0,1", "gamma=0.9,1"])
    with pytest.raises(ConfigError, match="at least one"):
        space.parse([])


def test_values_have_the_types_of_their_fields():
    words = {
        "num_envs": "log:4,64",
        "gamma": "0.9,0.99",
        "hidden_sizes": "64|64,32",
        "anchor": "True|False",
        "target_kl": "0.01|inf",
        "core": "none|lstm",
        "env_kwargs.delay": "int:1,9",
        "head_entropy_coef.op": "0.0,0.1",
    }
    parameters = space.parse([f"{name}={text}" for name, text in words.items()])
    assert parameters[0].corners == (4, 64)
    drawn = {"num_envs": 8, "gamma": 0.95, "hidden_sizes": "64", "anchor": "True"}
    drawn |= {"target_kl": "inf", "core": "lstm"}
    drawn |= {"env_kwargs.delay": 3, "head_entropy_coef.op": 0.05}
    config = space.apply(Config(env_kwargs={"kind": "cue"}), parameters, drawn)
    assert (config.num_envs, config.hidden_sizes, config.anchor) == (8, (64,), True)
    assert (config.core, config.hypers.target_kl) == ("lstm", math.inf)
    assert config.env_kwargs == {"kind": "cue", "delay": 3}
    assert config.hypers.head_entropy_coef == {"op": 0.05}


def test_a_value_that_fits_no_other_is_refused_and_one_that_fits_some_is_not():
    base = Config(num_envs=4, num_steps=8, total_timesteps=4096)
    with pytest.raises(ConfigError, match="num_minibatches: got 3; allowed is a"):
        space.check(base, space.parse(["num_minibatches=2|3"]))
    with pytest.raises(ConfigError, match=r"gamma: got 1.5; allowed is a number"):
        space.check(base, space.parse(["gamma=0.5,1.5"]))
    both = space.parse(["num_envs=4|6", "num_minibatches=2|3"])
    assert space.check(base, both).num_minibatches == 2


# --- the command line -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--checkpoint-every", "2"], "checkpoint_every: got 2; allowed is 0 in a swe"),
        (["--num-seeds", "2"], "num_seeds: got 2; allowed is none in a sweep"),
        (["--num-evals", "0"], "num_evals: got 0; allowed is at least 1 in a sweep"),
        (["--seeds", "0"], "seeds: got 0; allowed is a whole number of at least 1"),
        (["--num-minibatches", "5"], "num_minibatches: got 5; allowed is a divisor"),
        (["--storage", "no://where"], "storage: got 'sweep of no://where'"),
        (["--resume", "nowhere"], "run_dir: got"),
        (["--init-from", "nowhere"], "init_from: got 'nowhere'; allowed is the folder"),
    ],
)
def test_bad_flags_are_one_sentence(flags, sentence, tmp_path, capsys):
    code = sweep.main([*FLAGS, "--run-dir", str(tmp_path / "x"), *flags])
    assert code == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert len(said.splitlines()) == 1


def test_without_optuna_the_sentence_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(sweep.importlib.util, "find_spec", lambda _: None)
    assert sweep.main(FLAGS) == EXIT_USAGE
    assert 'pip install "purejaxppo[sweep]"' in capsys.readouterr().err


def test_the_command_of_a_trial_trains_what_it_trained():
    plan = plan_of(
        *("--param=hidden_sizes=8|8,8", "--param=anchor=True|False"),
        *("--param=entropy_coef=-1.0,1.0", "--param=env_kwargs.limit=int:3,9"),
        *("--num-demonstrations", "1", "--seeds", "2", "--seed", "7"),
    )
    drawn = {"learning_rate": 1.23456789e-4, "hidden_sizes": "8,8", "anchor": "True"}
    drawn |= {"entropy_coef": -0.25, "env_kwargs.limit": 4}
    words = shlex.split(outcome_command(plan, drawn))
    assert words[:3] == ["python", "-m", "purejaxppo.train"]
    resolved, options = train.parse(words[3:])
    assert resolved.config == plan.config(drawn)
    assert (options.seed, options.num_seeds) == (7, 2)


def outcome_command(plan, drawn):
    return sweep.plan_lib.train_command(plan, drawn)


# --- training -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of three trials with two seeds, and the names of compiled programs."""
    folder = tmp_path_factory.mktemp("sweep") / "study"
    compiled, trainers = [], []

    class Counting(compiler.Compiler):
        def _compile(self, name, *arguments):
            compiled.append(name)
            return super()._compile(name, *arguments)

    class Kept(Trainer):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            trainers.append(self)

    flags = [*FLAGS, "--trials", "3", "--seeds", "2", "--run-dir", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "Compiler", Counting)
        patch.setattr(training, "Trainer", Kept)
        assert sweep.main(flags) == EXIT_OK
    return folder, compiled, trainers[0]


def test_trials_that_differ_in_traced_values_share_their_programs(finished):
    folder, compiled, _ = finished
    assert sorted(compiled) == ["evaluate", "init", "update"]
    found = [outcome.from_json(x.user_attrs["outcome"]) for x in trials_of(folder)]
    assert [bool(x.compile_seconds) for x in found] == [True, False, False]
    for trial in found:
        assert trial.steps == (96, 192)
        assert [len(scores) for scores in trial.scores] == [2, 2]
        assert trial.steps_per_second > 0


def test_a_trial_trains_as_the_command_line_does(finished, tmp_path):
    """To the bit: the last evaluation of each seed is that of the run."""
    folder, _, _ = finished
    plan = plan_of("--seeds", "2")
    trial = ended(folder)[0]
    words = shlex.split(outcome_command(plan, trial.params))[3:]
    flags = ["--run-dir", str(tmp_path / "run"), "--no-tensorboard", "--no-report"]
    assert train.main([*words, *flags]) == EXIT_OK
    lines = (tmp_path / "run" / "evals.csv").read_text().splitlines()
    column = lines[0].split(",").index(plan.metric)
    scores = [float(line.split(",")[column]) for line in lines[-2:]]
    recorded = outcome.from_json(trial.user_attrs["outcome"])
    assert scores == list(recorded.scores[-1])


def test_a_trial_that_diverges_says_so(finished):
    _, _, trainer = finished
    plan = plan_of("--seeds", "2")
    config = plan.config({"learning_rate": 1e-3})
    programs = trainer.programs(config)
    hypers = dataclasses.replace(config.hypers, learning_rate=math.nan)
    broken = dataclasses.replace(config, hypers=hypers)
    trial = training._Training(programs, broken, plan.options, plan.metric)
    with pytest.raises(Diverged, match="no loss was finite in the updates until"):
        trial.run(lambda number, score: True)


def test_a_trial_ends_where_it_is_pruned(finished):
    _, _, trainer = finished
    plan = plan_of("--seeds", "2")
    found = trainer.train(plan.config({"learning_rate": 1e-3}), lambda *_: False)
    assert (found.state, found.reason) == ("pruned", "pruned at 96 steps")
    assert found.steps == (96,)


def test_the_page_shows_every_trial(finished):
    folder, _, _ = finished
    page = (folder / "report.html").read_text()
    assert "probe_envs:make: 3 trials" in page
    assert "importance (PED-ANOVA)" in page
    plan = plan_of("--seeds", "2")
    commands = [outcome_command(plan, x.params) for x in ended(folder)]
    assert sum(f"<code>{command}</code>" in page for command in commands) == 1
    for trial in trials_of(folder):
        assert f"<td>{trial.params['learning_rate']:.4g}</td>" in page
    data = page.split('<script type="application/json" id="data">')[1]
    drawn = json.loads(data.split("</script>")[0])
    titles = [chart["title"] for chart in drawn["charts"]]
    assert titles == [
        "Score (success) of each trial",
        "Learning curves",
        "Score over learning_rate",
    ]
    assert set(drawn["specs"]) == {"trial", "learning_rate"}


# --- the queue ------------------------------------------------------------------------


def flags_of(folder: Path, *flags: str) -> list[str]:
    return [*FLAGS, "--run-dir", str(folder), "--no-report", *flags]


@pytest.fixture
def worker():
    """Start a worker as a process of its own; none outlives the test."""
    here, started = Path(__file__).parent, []
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}

    def start(seconds: float, *flags: str) -> subprocess.Popen[str]:
        words = [sys.executable, str(here / "sweep_worker.py"), str(seconds), *flags]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            words, env=environment, stdout=pipe, stderr=pipe, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_for_trial_of(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait until a worker has taken a trial."""

    def has_trial() -> bool:
        assert process.poll() is None, process.communicate()[1]
        if not list(folder.glob("workers/*")):
            return False
        names = [x.user_attrs.get("worker", "") for x in trials_of(folder)]
        return any(f"-{process.pid}-" in name for name in names)

    wait_until(has_trial)


def check_every_trial_is_trained_once(folder: Path, num: int) -> None:
    trials, good = trials_of(folder), ended(folder)
    assert len(good) == num
    rates = [trial.params["learning_rate"] for trial in trials]
    counts = collections.Counter(x.params["learning_rate"] for x in good)
    assert set(counts) == set(rates)
    assert set(counts.values()) == {1}
    assert {x.state.name for x in trials} <= {"COMPLETE", "FAIL"}


def test_two_workers_share_the_trials_also_when_one_is_killed(tmp_path, worker):
    folder = tmp_path / "study"
    flags = flags_of(folder, "--trials", "6")
    killed = worker(60.0, *flags)
    wait_for_trial_of(killed, folder)
    survivor = worker(0.01, *flags)
    wait_for_trial_of(survivor, folder)
    wait_until(lambda: len(ended(folder)) == 5)
    killed.kill()
    _, said = survivor.communicate(timeout=60)
    assert survivor.returncode == EXIT_OK, said
    assert "waiting for the trials of other workers: 0" in said
    check_every_trial_is_trained_once(folder, 6)
    assert trials_of(folder)[0].state.name == "FAIL"
    repeats = [x.user_attrs.get("repeats") for x in ended(folder)]
    assert repeats == [None] * 5 + [0]
    assert len({x.user_attrs["worker"] for x in trials_of(folder)}) == 2


def test_an_interrupt_keeps_what_is_finished_and_a_resume_goes_on(
    tmp_path, quick, worker, capsys
):
    folder = tmp_path / "study"
    assert sweep.main(flags_of(folder, "--trials", "2")) == EXIT_OK
    process = worker(60.0, *flags_of(folder, "--trials", "4"))
    wait_for_trial_of(process, folder)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED
    assert "4 trials, of which 2 are finished; 0 other workers here" in said
    assert "2 finished trials are kept; trial 2 will be trained anew" in said
    assert [x.state.name for x in trials_of(folder)][2:] == ["FAIL", "WAITING"]
    resume = ["--resume", str(folder), "--no-report"]
    assert sweep.main(resume) == EXIT_USAGE
    assert "repeat --env probe_envs:make" in capsys.readouterr().err
    assert sweep.main([*resume, "--env", "probe_envs:make"]) == EXIT_OK
    check_every_trial_is_trained_once(folder, 4)
    assert "best: trial" in capsys.readouterr().out


def test_a_study_with_another_space_or_training_is_refused(tmp_path, quick, capsys):
    folder = tmp_path / "study"
    assert sweep.main(flags_of(folder, "--trials", "1")) == EXIT_OK
    for flags, sentence in {
        ("--param=gamma=0.9,0.99",): "gamma: got '0.9,0.99'; allowed is none, as in",
        ("--num-envs", "8"): "num_envs: got 8; allowed is 4, as in the study of",
        ("--seeds", "2"): "num_seeds: got 2; allowed is 1, as in the study of",
        ("--speed",): "speed: got True; allowed is False, as in the study of",
    }.items():
        capsys.readouterr()
        assert sweep.main(flags_of(folder, *flags)) == EXIT_USAGE
        assert capsys.readouterr().err.startswith(sentence)
    for flags in (["--pruner", "none"], ["--param=gamma=0.9,0.99"]):
        resume = ["--resume", str(folder), "--trust-env", *flags]
        assert sweep.main(resume) == EXIT_USAGE
        assert "with --resume" in capsys.readouterr().err
    assert len(trials_of(folder)) == 1


def test_a_folder_with_something_else_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert sweep.main(flags_of(tmp_path)) == EXIT_USAGE
    assert "a new or empty folder, or that of a sweep" in capsys.readouterr().err


def test_a_trial_that_cannot_train_fails_with_its_sentence(
    tmp_path, monkeypatch, capsys
):
    def refuse(trainer, config, go_on):
        raise ConfigError("num_minibatches", 3, "a divisor")

    monkeypatch.setattr(Trainer, "train", refuse)
    folder = tmp_path / "study"
    assert sweep.main(flags_of(folder, "--trials", "2")) == EXIT_OK
    said = capsys.readouterr()
    assert "trial 1: failed (num_minibatches: got 3; allowed is a divisor)" in said.err
    assert said.out == "no trial is complete\n"
    assert [x.user_attrs["reason"] for x in trials_of(folder)] == [
        "num_minibatches: got 3; allowed is a divisor"
    ] * 2


def test_a_line_that_was_torn_by_a_kill_is_removed(tmp_path, quick):
    folder = tmp_path / "study"
    assert sweep.main(flags_of(folder, "--trials", "1")) == EXIT_OK
    with open(folder / "journal.log", "a") as journal:
        journal.write('{"op_code":4,"wor')
    assert sweep.main(flags_of(folder, "--trials", "2")) == EXIT_OK
    check_every_trial_is_trained_once(folder, 2)


def test_a_trial_that_ends_worker_after_worker_is_given_up(tmp_path, monkeypatch):
    plan = plan_of()
    monkeypatch.setattr(study.locks, "is_alive", lambda *_: False)
    queue = Queue(Place(tmp_path / "study", "", "sweep"), plan, 2)
    rates = [queue.claim().params["learning_rate"] for _ in range(4)]
    assert len(set(rates[:3])) == 1
    assert rates[3] not in rates[:3]
    queue.close()


def test_a_database_is_a_queue_whose_workers_need_no_folder_in_common(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(storage, "GRACE_SECONDS", 1)
    plan = plan_of()
    url = f"sqlite:///{tmp_path}/study.db"
    places = [Place(tmp_path / name, url, "sweep") for name in ("one", "two")]
    queues = [Queue(place, plan, 2) for place in places]
    dead = queues[0].claim()
    queues[0]._current = None  # so that its heart does not beat
    other = queues[1].claim()
    assert dead is not None
    assert other is not None
    assert queues[1].finish(other, Outcome((192,), ((1.0,),), 1.0))
    assert queues[1].claim() is None  # the first worker may be alive
    time.sleep(2.5)
    again = queues[1].claim()
    assert again is not None
    assert again.params == dead.params
    assert not queues[0].finish(dead, Outcome((192,), ((1.0,),), 1.0))
    assert queues[1].finish(again, Outcome((192,), ((1.0,),), 1.0))
    assert queues[0].claim() is None
    states = [trial.state for trial in queues[1].trials()]
    assert states == ["lost", "complete", "complete"]
    for queue in queues:
        queue.close()


def test_a_password_is_shown_nowhere(tmp_path):
    url = "postgresql://me:secret@host/db"
    shown = Place(tmp_path, url, "sweep").shown
    assert shown == "sweep of postgresql://me:***@host/db"
    assert "secret" not in Place(tmp_path, "secret", "sweep").shown


def test_the_later_of_two_workers_leaves_the_last_trial(tmp_path, monkeypatch):
    """As without a common lock: both have seen that one trial is to be taken."""
    plan = plan_of()
    url = f"sqlite:///{tmp_path}/study.db"
    queues = [Queue(Place(tmp_path / n, url, "s"), plan, 1) for n in ("one", "two")]
    assert queues[0].claim() is not None
    count, seen = study._num_counted, iter([0])
    monkeypatch.setattr(study, "_num_counted", lambda x: next(seen, count(x)))
    assert queues[1].claim() is None
    assert [trial.state for trial in queues[1].trials()] == ["running"]
    for queue in queues:
        queue.close()


def test_two_objectives_have_a_front(tmp_path, quick, capsys):
    folder = tmp_path / "study"
    assert sweep.main(flags_of(folder, "--trials", "3", "--speed")) == EXIT_OK
    assert "steps/s" in capsys.readouterr().out
    found = [
        Trial(i, "complete", {}, Outcome((1,), ((score,),), speed))
        for i, (score, speed) in enumerate([(1, 9), (3, 5), (2, 4), (3, 6), (0, 9)])
    ]
    assert [trial.number for trial in outcome.best(found, True)] == [3, 0]
    assert [trial.number for trial in outcome.best(found, False)] == [1]


def test_diverged_trials_are_told_from_complete_ones(tmp_path):
    queue = Queue(Place(tmp_path / "study", "", "sweep"), plan_of(), 2)
    bad = Outcome((96,), ((0.5,),), 1.0, state="diverged", reason="no loss was finite")
    assert queue.finish(queue.claim(), bad)
    (trial,) = queue.trials()
    assert (trial.state, trial.outcome) == ("diverged", bad)
    (frozen,) = trials_of(queue.place.folder)
    assert frozen.state.name == "PRUNED"
    assert math.isnan(frozen.intermediate_values[2])
    assert queue.importances() == {}
    Progress().close()
    queue.close()
