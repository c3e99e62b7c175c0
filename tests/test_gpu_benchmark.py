"""The GPU's benchmark: what happens to a part that fails, and to one that is cut short.

Its measurements need a machine of their own; they are rehearsed by
`python -m benchmarks.gpu --quick`.
"""

import json

import pytest

from benchmarks import gpu, record
from benchmarks.processes import ProgramFailed

PARTS = [gpu.Part(name, "speed", {"n": i}, 9.0) for i, name in enumerate("abc")]


@pytest.fixture
def said(monkeypatch):
    """Name -> what the part says; an exception is how it ends."""
    script = {
        "a": [{"machine": {"cpu": "x"}}, {"steps_per_second": {"p": {"median": 2.0}}}],
        "b": [{"rounds": 1}, {"rounds": 2}, ProgramFailed("gave no answer in 9 s")],
        "c": [{"rounds": 1}],
    }
    asked = []

    def answers(part, seconds):
        assert seconds <= part.seconds
        asked.append(part.name)
        for answer in script[part.name]:
            if isinstance(answer, Exception):
                raise answer
            yield answer

    monkeypatch.setattr(gpu, "answers", answers)
    return script, asked


def results_of(folder):
    return json.loads((folder / "gpu.json").read_text())["results"]


def test_a_part_that_fails_keeps_what_it_said_and_the_next_one_runs(said, tmp_path):
    gpu.run(PARTS, tmp_path, limit=60.0)
    results = results_of(tmp_path)
    assert [r["status"] for r in results.values()] == ["done", "failed", "done"]
    assert results["b"]["rounds"] == 2
    assert results["b"]["reason"] == "gave no answer in 9 s"
    assert json.loads((tmp_path / "gpu.json").read_text())["machine"] == {"cpu": "x"}


def test_started_again_it_does_what_is_not_done_and_failures_last(said, tmp_path):
    script, asked = said
    gpu.run(PARTS[:2], tmp_path, limit=60.0)
    asked.clear()
    script["b"] = [{"rounds": 3}]
    gpu.run(PARTS, tmp_path, limit=60.0)
    assert asked == ["c", "b"]
    assert results_of(tmp_path)["b"]["status"] == "done"
    assert "reason" not in results_of(tmp_path)["b"]


def test_every_answer_is_on_disk_before_the_next_one(said, tmp_path, monkeypatch):
    seen = []
    write = record.write

    def spy(name, results, *rest):
        path = write(name, results, *rest)
        seen.append(results_of(tmp_path)["b"].get("rounds"))
        return path

    monkeypatch.setattr(record, "write", spy)
    gpu.run(PARTS[1:2], tmp_path, limit=60.0)
    assert seen == [1, 2, 2]


def test_no_part_begins_when_the_time_is_up(said, tmp_path, capsys):
    _, asked = said
    gpu.run(PARTS, tmp_path, limit=0.0)
    assert asked == []
    assert capsys.readouterr().out.count("the time is up") == 3


def test_the_plan_has_every_measurement_once_and_both_engines_first():
    parts = gpu.plan(["warp", "mjx"], gpu.FULL)
    names = [part.name for part in parts]
    assert len(set(names)) == len(names)
    assert parts[0].values == {
        "engines": ["warp", "mjx"],
        "num_envs": 8192,
        "num_steps": gpu.FULL.num_steps,
        "rounds": gpu.FULL.rounds,
    }
    sizes = {p.values["num_envs"] for p in parts if p.part == "speed"}
    assert sizes == {1024, 2048, 4096, 8192, 16384, 32768}
    kinds = {p.part for p in parts}
    assert {"learning", "graphs", "precision", "physics_precision", "seeds"} < kinds


def test_a_row_that_is_being_written_is_not_read(tmp_path):
    path = tmp_path / "evals.csv"
    assert gpu.evaluations(path) == []
    path.write_text("steps,worst\n0,0.5\n64,0.")
    assert gpu.evaluations(path) == [{"steps": "0", "worst": "0.5"}]
