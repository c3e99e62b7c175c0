"""The harness against workers that behave and workers that do not; no JAX in them."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import races, startup, workloads
from benchmarks.harness import (
    compare,
    part,
    plot,
    processes,
    record,
    report,
    tables,
    timing,
)
from benchmarks.harness.compare import Competitor
from benchmarks.harness.processes import ProgramFailed
from purejaxppo.errors import ConfigError
from purejaxppo.run.progress import Progress

STAND_IN = str(Path(__file__).parent / "stand_in_worker.py")
TIMEOUTS = {"ready": 20, "run": 1, "train": 20, "finish": 20}


def stand_in(**changes) -> Competitor:
    return Competitor(STAND_IN, None, changes)  # an absolute path stays as it is


@pytest.fixture
def progress():
    with open(os.devnull, "w") as nowhere:
        yield Progress(nowhere)


@pytest.fixture(scope="module")
def rows():
    """One race with everything that can happen to a worker."""
    competitors = {
        "ours": stand_in(rate=300),
        "slow": stand_in(rate=100),
        "untrained": stand_in(rate=100, fault="untrained"),
        "no venv": Competitor(STAND_IN, "no-such-venv"),
        "no script": Competitor("no_such_worker.py"),
        **{f: stand_in(fault=f) for f in ("refuses", "dies", "hangs", "babbles")},
    }
    with open(os.devnull, "w") as nowhere:
        quiet = Progress(nowhere)
        return compare.race(competitors, {"seed": 0}, 3, quiet, TIMEOUTS)


def test_ratios_are_taken_within_rounds(rows):
    # Rates fall to a third over the rounds, and the ratio does not move.
    assert rows["ours"]["steps_per_second"] == {"median": 150, "min": 100, "max": 300}
    assert rows["slow"]["ours_over_it"] == {"median": 3, "min": 3, "max": 3}
    assert "ours_over_it" not in rows["ours"]
    assert rows["slow"]["return"] == 1.5
    assert rows["slow"]["versions"] == {"stand-in": "1"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no venv", "environment no-such-venv is missing"),
        ("no script", "no_such_worker.py is missing"),
        ("refuses", "nothing to work with"),
        ("dies", "ended with exit code 1: out of breath"),
        ("hangs", "gave no answer to `run` in 1 s"),
        ("babbles", "answered `run` without steps"),
    ],
)
def test_a_worker_that_fails_leaves_one_sentence(rows, name, sentence):
    assert set(rows[name]) == {"error"}
    assert sentence in rows[name]["error"]


def test_training_is_compared_by_seed(progress):
    competitors = {"ours": stand_in(), "other": stand_in(fault="untrained")}
    trained = compare.train(competitors, {"total_steps": 7}, (3, 4), progress, TIMEOUTS)
    assert trained["ours"]["returns"] == [3.0, 4.0]
    assert trained["ours"]["steps"] == 7
    assert trained["other"] == {"error": "does not train from scratch"}


def test_without_ours_nothing_is_compared(progress):
    competitors = {"ours": stand_in(fault="refuses"), "slow": stand_in()}
    rows = compare.race(competitors, {}, 1, progress, TIMEOUTS)
    assert rows["slow"]["steps_per_second"]["median"] == 100
    assert "ours_over_it" not in rows["slow"]


def test_rounds_begin_with_another_task_each():
    calls = []
    tasks = {
        name: lambda name=name: calls.append(name) or timing.Block(1, 1)
        for name in ("a", "b", "c")
    }
    timing.interleave(tasks, 3)
    assert calls == [*"abc", *"abc", *"bca", *"cab"]


def test_a_task_that_dropped_out_is_not_called_again():
    answers = iter([timing.Block(6, 2), None])
    rates = timing.interleave({"a": lambda: next(answers)}, 5, warm_up=False)
    assert rates == {"a": [3.0]}


# As the command line: it writes what marks its progress; then it ends.
MARKING = """
import json, sys, time
folder, code = {folder!r}, {code!r}
open(folder + "/config.json", "w")
time.sleep(0.2)
open(folder + "/metrics.csv", "w")
json.dump({{"compile_seconds": {{"update": 1}}}}, open(folder + "/summary.json", "w"))
sys.exit(code)
"""


@pytest.fixture
def command_line(tmp_path, monkeypatch):
    """A function: time a program that ends with this exit code."""

    def run(code, timeout=20.0):
        program = MARKING.format(folder=str(tmp_path), code=code)
        started = functools.partial(processes.running, [sys.executable, "-c", program])
        monkeypatch.setattr(startup, "running", lambda _, variables: started(variables))
        return startup.run_once([], tmp_path, tmp_path / "cache", timeout)

    return run


def test_what_a_run_writes_says_how_far_it_is(command_line):
    found = command_line(0)
    folder, first = (found[mark] for mark in startup.MARKS.values())
    assert 0 < folder < first <= found["seconds"]
    assert first - folder > 0.1
    assert found["compile_seconds"] == {"update": 1}


def test_a_run_that_fails_or_hangs_is_one_sentence(command_line):
    with pytest.raises(ProgramFailed, match="exit code 1: was tired"):
        command_line("was tired")
    with pytest.raises(ProgramFailed, match=r"did not end in 0\.01 s"):
        command_line(0, timeout=0.01)


def test_a_timed_task_counts_its_amount():
    block = timing.timed(lambda: time.sleep(0.01), 5)()
    assert block.amount == 5
    assert 0.01 <= block.seconds < 1


def test_nothing_of_a_program_is_left_behind(monkeypatch):
    monkeypatch.setattr(processes, "_PATIENCE", 0.2)
    # A child that has a child of its own, and ignores a polite request.
    code = (
        "import signal, subprocess, sys, time, json\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        "print(json.dumps({'child': child.pid}), flush=True)\n"
        "time.sleep(60)\n"
    )
    with processes.running([sys.executable, "-c", code]) as program:
        child = processes.ask(program, None, 20)["child"]
        assert alive(child)
    assert program.process.returncode == -signal.SIGKILL
    assert gone(child)


def gone(pid: int) -> bool:
    """Whether a process ends soon: one that was killed may take a moment."""
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process is there, and no zombie that waits for init."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_what_cannot_be_started_is_a_sentence():
    with pytest.raises(ProgramFailed, match="cannot be started"):
        processes.answer_of(["/no/such/program"], 1)


# A harness whose one workload waits in a program that says which process it is.
WAITING = """
import os, sys
from benchmarks import __main__ as command, workloads
from benchmarks.harness.processes import answer_of

child = "import os, time; open(os.environ['MARKER'], 'w').write(str(os.getpid()))"
wait = [sys.executable, "-c", child + "; time.sleep(60)"]
parts = (lambda options: answer_of(wait, 60),)
workloads.WORKLOADS["wait"] = workloads.Workload("Waits.", parts)
sys.exit(command.main(["wait", "--no-write"]))
"""


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_worker(sign, tmp_path):
    marker = tmp_path / "pid"
    environment = processes.environment({"MARKER": str(marker)})
    with subprocess.Popen([sys.executable, "-c", WAITING], env=environment) as harness:
        deadline = time.monotonic() + 30
        while not (marker.exists() and marker.read_text()):
            assert harness.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        harness.send_signal(sign)
        assert harness.wait(30) == 128 + sign
    assert gone(int(marker.read_text()))


def test_unknown_workloads_are_one_sentence(capsys):
    assert command.main(["hamer"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("workload: got 'hamer'; allowed is one of ")
    assert "hammer" in said
    assert len(said.splitlines()) == 1


def test_no_rounds_are_refused():
    with pytest.raises(ConfigError, match="rounds: got 0"):
        command.parse(["--rounds", "0"])


def test_a_workload_that_fails_says_so_and_the_rest_goes_on(
    tmp_path, monkeypatch, capsys
):
    def broken(_):
        raise ProgramFailed("is out of order")

    race = races.Race("", {"total_steps": 5}, {"ours": stand_in()}, (0,), stages=False)
    known = {
        "broken": workloads.Workload("Fails.", (broken,)),
        "peers": workloads.Workload(
            "Works.",
            (workloads.against(race),),
        ),
    }
    monkeypatch.setattr(command, "WORKLOADS", known)
    monkeypatch.setattr(report, "WORKLOADS", known)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    command.run(command.parse(["--quick"]))
    said = capsys.readouterr().out
    assert "Not measured: is out of order" in said
    assert "1.5 at 9 steps" in said
    assert not list(tmp_path.iterdir())  # quick figures are not kept
    assert command.parse(["peers"]).rounds == workloads.ROUNDS


FIGURES = {
    "about": "Everything at once.",
    "steps_per_second": {
        name: {"median": 1000.0 * i, "min": 1.0, "max": 9000.0}
        for i, name in enumerate(("end_to_end", "rollout", "physics"), 1)
    },
    "ratios": {
        "rollout_over_physics": {"median": 0.6, "min": 0.5, "max": 0.7},
        "end_to_end_over_physics": {"median": 0.3, "min": 0.2, "max": 0.4},
    },
    "compile_seconds": {"cold": {"trace": 1.0, "lower": 0.5, "compile": 8.0}},
    "training": {
        "steps": 4096,
        "seconds": 2.0,
        "peak_memory_bytes": 2**29,
        "eval/mean_return": 0.75,
    },
    "peers": {
        "workers": {
            "ours": {
                "versions": {},
                "compile_seconds": 2.0,
                "return": 499.0,
                "peak_memory_bytes": 2**28,
                "steps": 10_000,
                "seconds": 3.0,
                "steps_per_second": {"median": 300.0, "min": 200.0, "max": 400.0},
            },
            "sb3": {
                "versions": {"stable-baselines3": "2.9", "torch": "2"},
                "compile_seconds": None,
                "return": None,
                "peak_memory_bytes": 2**29,
                "steps": 5_000,
                "seconds": 3.0,
                "steps_per_second": {"median": 100.0, "min": 90.0, "max": 110.0},
                "ours_over_it": {"median": 3.0, "min": 2.5, "max": 3.5},
            },
            "brax": {"error": "its Python environment is missing"},
        },
        "seeds": [0, 1],
        "training": {
            "ours": {
                "returns": [490.0, 500.0],
                "steps": 50_000,
                "seconds": {"median": 1.0, "min": 1.0, "max": 1.0},
            }
        },
    },
}


def test_tables_say_what_the_figures_say():
    text = report.as_text("hammer", FIGURES)
    assert "0.30 (0.20 to 0.40)" in text
    assert "cold: trace 1.0 s, lower 0.5 s, compile 8.0 s" in text
    assert "mean return 0.75; peak memory 512 MiB" in text
    assert "3.00 (2.50 to 3.50)" in text
    assert "brax: its Python environment is missing." in text
    assert "Versions: stable-baselines3 2.9." in text
    lines = [line for t in tables.tables_of(FIGURES) for line in report.as_markdown(t)]
    markdown = [" ".join(line.split()) for line in lines]
    row = "| sb3 | 100 | 3.00 (2.50 to 3.50) | - | 512 | - at 5,000 steps |"
    assert row in markdown
    assert "| ours | 50,000 | 1.0 | 490.0 | 500.0 |" in markdown
    for row in (line for line in markdown if line.startswith("|")):
        assert row.count("|") >= 4


def test_plot_shows_ratios_stages_and_curves(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    record.write(record.file_of("hammer"), FIGURES)
    seeds = [
        {"curve": [{"steps": k, "mean": m, "worst_block": 0.5} for k in (0, 8)]}
        for m in (0.6, 0.8)
    ]
    record.write("learning_hammer", {"seeds": seeds})
    ratio = {"median": 3.0, "min": 2.5, "max": 3.5}
    assert plot.peer_bars() == {"SB3 (hammer)": ratio}
    labels = ["physics alone (C)", "rollout alone", "training, end to end"]
    assert list(plot.stage_bars()) == labels
    steps, curves = plot.learning_curves()
    assert steps.tolist() == [0, 8]
    assert curves["all episodes"].tolist() == [[0.6, 0.6], [0.8, 0.8]]
    assert plot.draw().read_bytes().startswith(b"\x89PNG")


def test_the_front_page_formats_figures_by_their_path(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    figures = {
        "a": {"8": {"median": 3.0, "min": 2.5, "max": 3.5}},
        "b": {"mean": 0.5, "std": 0.1, "min": 0.25, "max": 1.0},
    }
    record.write("x", figures)
    files = {"x": report.Figures(record.results("x"))}
    text = "{x.a.8}; {x.b}; {x.b.std:.1f}".format_map(files)
    assert text == "3.00 (2.50 to 3.50); 0.500 (0.25 to 1.00); 0.1"


def test_the_front_page_has_one_table_of_at_most_sixteen_rows():
    lines = report.front()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) - 2 <= 16
    assert lines[: len(rows)] == rows


@pytest.mark.parametrize("race", races.RACES.values(), ids=races.RACES)
def test_competitors_have_a_worker_and_an_environment(race):
    assert next(iter(race.competitors)) == compare.OURS
    for competitor in race.competitors.values():
        assert (compare.PEERS / competitor.script).exists()
        pins = compare.REQUIREMENTS / f"{competitor.venv}.txt"
        assert competitor.venv is None or pins.exists()


def test_a_configuration_builds_on_another():
    assert races.configuration("cartpole-8") == {
        **races.configuration("ppo"),
        "env": "gymnax:CartPole-v1",
        "num_envs": 8,
        "total_steps": 200_000,
    }


def test_every_workload_has_a_file_of_its_own():
    names = [record.file_of(name) for name in workloads.WORKLOADS]
    assert len(set(names)) == len(names)


def test_an_accelerator_is_measured_where_it_is_named(monkeypatch):
    asked = []

    def answer_of(command, timeout, variables):
        asked.append(json.loads(command[-1])["case"])
        return {"compile_seconds": {}}

    monkeypatch.setattr(workloads, "answer_of", answer_of)
    workload = workloads.WORKLOADS["gpu-warp-8192"]
    assert workload.by_name
    with open(os.devnull, "w") as nowhere:
        for quick in (False, True):
            options = workloads.Options(1, quick, Progress(nowhere))
            assert "errors" not in workloads.measure(workload, options)
    configs = [part.config_of(**case) for case in asked]
    sizes = [(config.num_envs, config.env_kwargs["engine"]) for config in configs]
    assert sizes == [(8192, "warp")] * 2 + [(8, "mujoco")] * 2
