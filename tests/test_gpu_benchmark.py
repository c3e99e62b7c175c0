"""The GPU's workload: what happens to a measurement that fails, or has no time left.

Its measurements are parts of the harness, which other tests run; all are rehearsed by
`python -m benchmarks gpu --quick`.
"""

import io
import time

import pytest

from benchmarks import gpu, startup
from benchmarks.harness import part, tables
from benchmarks.harness.options import Options
from benchmarks.harness.processes import ProgramFailed
from purejaxppo.run.progress import Progress

MEASUREMENTS = [
    gpu.Measurement(name, "speed", {"n": i}) for i, name in enumerate("abc")
]
RATES = {"p": {"median": 2.0, "min": 1.0, "max": 3.0}}


@pytest.fixture
def script(monkeypatch):
    """Number of the request -> what the part answers; an exception is how it ends."""
    answers = {
        0: {"steps_per_second": RATES, "peak_memory_bytes": 2**20},
        1: ProgramFailed("gave no answer in 9 s"),
        2: {"rounds": 1},
    }
    asked = []

    def answer_of(command, seconds, variables):
        assert seconds <= gpu.SECONDS
        number = int(command[-1][len('{"n": ') : -1])
        asked.append("abc"[number])
        if isinstance(answers[number], Exception):
            raise answers[number]
        return dict(answers[number])

    monkeypatch.setattr(gpu, "answer_of", answer_of)
    return answers, asked


def options(**changes) -> Options:
    return Options(1, False, Progress(io.StringIO()), **changes)


def test_a_measurement_that_fails_says_why_and_the_next_one_runs(script):
    results = gpu.run(MEASUREMENTS, options())["gpu"]
    assert [r["status"] for r in results.values()] == ["done", "failed", "done"]
    assert results["b"]["reason"] == "gave no answer in 9 s"
    table = tables.gpu(results)
    assert table.rows[1] == ["a", "p", "2", "1", "1"]
    assert table.notes == ["b: gave no answer in 9 s."]


def test_started_again_it_does_what_is_not_done_and_failures_last(script):
    answers, asked = script
    stored = gpu.run(MEASUREMENTS[:2], options())
    asked.clear()
    answers[1] = {"rounds": 3}
    results = gpu.run(MEASUREMENTS, options(stored=stored))["gpu"]
    assert asked == ["c", "b"]
    assert results["b"]["status"] == "done"
    assert "reason" not in results["b"]


def test_every_result_is_kept_before_the_next_one(script):
    kept = []
    gpu.run(
        MEASUREMENTS, options(save=lambda figures: kept.append(len(figures["gpu"])))
    )
    assert kept == [1, 2, 3]


def test_no_measurement_begins_when_the_time_is_up(script):
    _, asked = script
    said = io.StringIO()
    late = Options(1, False, Progress(said), deadline=time.monotonic())
    assert gpu.run(MEASUREMENTS, late) == {"gpu": {}}
    assert asked == []
    assert said.getvalue().count("the time is up") == 3


def test_the_plan_has_every_measurement_once_and_known_parts():
    measurements = gpu.plan(["warp", "mjx"], rounds=5, quick=False)
    names = [measurement.name for measurement in measurements]
    assert len(set(names)) == len(names)
    assert names[0] == "8192 environments warp"
    speeds = [m.request["case"] for m in measurements if m.part == "speed"]
    assert {case["num_envs"] for case in speeds} == set(gpu.NUM_ENVS)
    assert {m.part for m in measurements if m.part} <= set(part.PARTS)
    kinds = {"learning mjx", "highest precision mjx", "default precision mjx"}
    assert kinds | {"seeds mjx"} < set(names)


def test_its_cases_are_configurations():
    (first, *_) = gpu.plan(["mujoco"], rounds=1, quick=True)
    config = part.config_of(**first.request["case"])
    assert (config.num_envs, config.env_kwargs) == (4, {"engine": "mujoco"})


def test_seconds_to_a_bar_leave_the_cloned_policy_out(monkeypatch):
    def run_once(flags, folder, cache, timeout):
        folder.mkdir()
        rows = ("1,0,1.0", "2,64,0.94", "3,128,0.949999988")
        lines = "\n".join([f"seconds,steps,{startup.WORST_BLOCK}", *rows])
        (folder / "evals.csv").write_text(lines + "\n")

    monkeypatch.setattr(startup, "run_once", run_once)
    found = startup.seconds_to_bar([], 0.95, 1.0)
    assert found["reached"] == {"seconds": 3.0, "steps": 128.0}
    with pytest.raises(ProgramFailed, match="never at 1"):
        startup.seconds_to_bar([], 1.0, 1.0)
