"""A few cases of the campaign of faults, and planted losses that it has to count."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import damaged_runs
import disturbed_runs
import fault_campaign
import fault_worker
import pytest
from damaged_runs import WAYS, Damage, damage, damages, try_damage
from fault_campaign import Tried, count, try_part
from fault_runs import Process, Runs, differences, prepare

from benchmarks import faults
from purejaxppo.errors import EXIT_OK, EXIT_USAGE
from purejaxppo.run import arrays, checkpoint


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Runs:
    """The runs that faults are tried on."""
    return prepare(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def copy(runs, tmp_path) -> Path:
    """A copy of the run without faults."""
    return Path(shutil.copytree(runs.whole, tmp_path / "copy"))


def request_of(kind: str, tries: int, runs: Runs) -> dict[str, object]:
    request = {"kind": kind, "tries": tries, "seed": 5, "root": str(runs.root)}
    return request | {"part": 0, "parts": 1, "skip": 0}


# --- a sample of each kind ----------------------------------------------------------


def tried_here(request: dict[str, object]) -> list[dict[str, object]]:
    """Try cases in this process: the answers that say how they went."""
    answers = []
    fault_worker.serve(request, answers.append)
    return answers[1::2]


def test_a_killed_run_loses_nothing(runs):
    """Full disks are in `test_storage`."""
    (answer,) = tried_here(request_of("kills", 1, runs))
    assert answer == {"tries": 1, "wrong": []}


def test_a_damaged_run_loses_nothing_unsaid(runs):
    tried = list(try_part(request_of("damages", 2, runs)))
    assert [(case.row, case.wrong) for case in tried] == [
        (case.row, []) for case in tried
    ]
    assert sum(case.tries for case in tried) == 2


@pytest.mark.parametrize(
    ("kind", "module", "tries"),
    [
        ("command lines", "bad_input", 8),
        ("config files", "bad_config_files", 8),
        ("demonstrations", "bad_demonstrations", 8),
    ],
)
def test_bad_input_is_refused(kind, module, tries, tmp_path):
    pytest.importorskip(module)
    answers = tried_here(request_of(kind, tries, Runs(tmp_path)))
    assert len(answers) >= tries
    assert [answer for answer in answers if answer["wrong"]] == []


# --- a planted loss is found --------------------------------------------------------


def test_equal_runs_have_no_differences(runs, copy):
    assert differences(copy, runs.whole) == []


def test_a_row_that_is_missing_is_found(runs, copy):
    rows = (copy / "metrics.csv").read_text().splitlines(keepends=True)
    (copy / "metrics.csv").write_text("".join(rows[:7] + rows[8:]))
    expected = "metrics.csv: 1 of 40 rows are missing"
    assert differences(copy, runs.whole) == [expected]


def test_a_row_that_is_there_twice_is_found(runs, copy):
    rows = (copy / "evals.csv").read_text().splitlines(keepends=True)
    (copy / "evals.csv").write_text("".join([*rows, rows[-1]]))
    (found,) = differences(copy, runs.whole)
    assert found.startswith("evals.csv: 6 rows, which are not the 5")


def plant(path: Path) -> None:
    """Change one bit of one parameter in the last checkpoint of a run."""
    step = checkpoint.steps(path / "checkpoints")[-1]
    state = path / "checkpoints" / f"{step:08d}" / "state"
    found = arrays.read(state)
    name = max(n for n in found if n.startswith(".params"))
    bits = found[name].copy().view("uint32")
    bits.flat[0] ^= 1
    shutil.rmtree(state)
    arrays.write(state, found | {name: bits.view(found[name].dtype)})


def test_a_parameter_that_differs_in_a_bit_is_found(runs, copy):
    plant(copy)
    (found,) = differences(copy, runs.whole)
    assert found.startswith("checkpoint: 1 arrays differ, the first is .params")


def test_a_clock_is_no_difference(runs, copy):
    text = (copy / "metrics.csv").read_text().splitlines(keepends=True)
    place = text[0].split(",").index("seconds")
    cells = text[3].split(",")
    cells[place] = "1234.5"
    text[3] = ",".join(cells)
    (copy / "metrics.csv").write_text("".join(text))
    assert differences(copy, runs.whole) == []


def resuming(monkeypatch, runs, said="", change=lambda path: None, keep=True):
    """Resume perfectly, but for what is said, and then changed."""
    rows = (runs.half / "metrics.csv").read_text().splitlines(keepends=True)

    def resume(path: Path) -> tuple[int, str]:
        shutil.rmtree(path)
        shutil.copytree(runs.whole, path)
        table = (path / "metrics.csv").read_text().splitlines(keepends=True)
        if keep:  # rows that were written before the fault stay
            table[: len(rows)] = rows
        (path / "metrics.csv").write_text("".join(table))
        change(path)
        return EXIT_OK, said

    monkeypatch.setattr(damaged_runs, "resume", resume)
    monkeypatch.setattr(damaged_runs, "_healthy_lines", lambda _: {"resuming"})


CASE = Damage("metrics.csv", ("metrics.csv",), "a bit flipped", 0.99)


def drop_a_row(path: Path, table: str = "metrics.csv") -> None:
    rows = (path / table).read_text().splitlines(keepends=True)
    (path / table).write_text("".join(rows[:-1]))


def drop_an_evaluation(path: Path) -> None:
    drop_a_row(path, "evals.csv")


@pytest.mark.parametrize(
    ("said", "change", "keep", "expected"),
    [
        ("", lambda path: None, True, []),
        ("", plant, True, ["silent: checkpoint"]),
        ("resuming", plant, True, ["silent: checkpoint"]),
        ("damaged", plant, True, ["lost: checkpoint"]),
        ("resuming", drop_a_row, True, ["silent: metrics.csv"]),
        ("a row is lost", drop_a_row, True, []),
        ("a row is lost", drop_an_evaluation, True, ["lost: evals.csv"]),
        ("anew", lambda path: None, False, ["lost: it was trained from the start"]),
    ],
)
def test_what_a_damage_did_is_counted(
    said, change, keep, expected, runs, tmp_path, monkeypatch
):
    resuming(monkeypatch, runs, said, change, keep)
    tries, wrong = try_damage(CASE, tmp_path, runs)
    assert tries == 1
    assert len(wrong) == len(expected)
    assert all(w.startswith(e) for w, e in zip(wrong, expected, strict=True))


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (EXIT_USAGE, "checkpoint: is damaged", []),
        (EXIT_USAGE, "", ["other: refused without a sentence"]),
        (1, "", ["other: exit code 1"]),
    ],
)
def test_a_refusal_must_be_said(code, said, expected, runs, tmp_path, monkeypatch):
    resuming(monkeypatch, runs)
    monkeypatch.setattr(damaged_runs, "resume", lambda _: (code, said))
    assert try_damage(CASE, tmp_path, runs) == (1, expected)


def test_a_traceback_is_counted(runs, tmp_path, monkeypatch):
    def resume(_):
        raise KeyError("format")

    resuming(monkeypatch, runs)
    monkeypatch.setattr(damaged_runs, "resume", resume)
    assert try_damage(CASE, tmp_path, runs)[1] == ["traceback: KeyError: 'format'"]


def test_a_run_that_lost_a_row_counts_as_lost(runs, copy, monkeypatch):
    class Ended:
        wait, said = (lambda _: EXIT_OK), (lambda _: "")

    drop_a_row(copy)
    monkeypatch.setattr(disturbed_runs, "start", lambda path, root: Ended())
    wrong = list(disturbed_runs._come_to_an_end(copy, runs))
    assert wrong == ["lost: metrics.csv: 1 of 40 rows are missing"]


def test_a_signal_that_is_ignored_counts(runs):
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    popen = subprocess.Popen(
        [sys.executable, "-c", f"{code}; print('ready', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with popen:
        assert popen.stdout.readline() == "ready\n"

        class Ignoring(Process):
            def wait(self) -> int:
                self.popen.stdin.close()  # it would go on to its end
                return self.popen.wait()

        process = Ignoring(popen, bytearray(), None)
        wrong = list(disturbed_runs._kill(process, runs.half, "SIGINT"))
    assert wrong == ["other: SIGINT was followed by exit code 0"]


# --- what is drawn ------------------------------------------------------------------


def test_a_seed_draws_every_file_and_way(runs):
    cases = damages(0, 120, runs.half)
    assert cases == damages(0, 120, runs.half) != damages(1, 120, runs.half)
    assert len(cases) == len(set(cases)) == 120
    names = {case.name for case in cases}
    assert {"config.json", "metrics.csv", "evals.csv"} < names
    for what in ("done", "meta.json", "arrays"):
        assert f"{what} of the newest" in names
    assert {case.way for case in cases} == set(WAYS)


def test_every_signal_comes_at_every_moment():
    cases = disturbed_runs.kills(0, 108)
    assert sum(len(case.shares) for case in cases) == 108
    assert len({case.name for case in cases}) == 12
    assert cases == disturbed_runs.kills(0, 108) != disturbed_runs.kills(1, 108)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_damages_a_file(way, tmp_path):
    file = tmp_path / "meta.json"
    file.write_bytes(b"12345678")
    damage(tmp_path, Damage("meta.json", ("meta.json",), way, 0.5))
    content = file.read_bytes() if file.exists() else None
    expected = [None, b"", b"1234", b"12344678"]
    assert content == dict(zip(WAYS, expected, strict=True))[way]


# --- counting -----------------------------------------------------------------------


def test_a_case_counts_once_in_its_worst_column():
    tried = [
        Tried("a", "", 3, []),
        Tried("a", "", 3, ["other: exit code 1", "lost: evals.csv"]),
        Tried("b", "", 1, ["traceback: KeyError", "silent: accepted"]),
    ]
    assert count(tried) == {
        "a": {"tries": 6, "lost": 1, "silent": 0, "traceback": 0, "other": 0},
        "b": {"tries": 1, "lost": 0, "silent": 1, "traceback": 0, "other": 0},
    }


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("accepted", "silent: accepted"),
        ("taken with other numbers", "silent: taken with other numbers"),
        ("KeyError: 'x'", "traceback: KeyError: 'x'"),
        ("traceback: KeyError: 'x'", "traceback: KeyError: 'x'"),
        ("a traceback", "traceback: a traceback"),
        ("exit code 1", "other: exit code 1"),
        ("not one line: 'a: b'", "other: not one line: 'a: b'"),
    ],
)
def test_a_bad_answer_has_a_column(sentence, expected):
    assert fault_worker.in_column(sentence) == expected


# A worker whose second case of three ends it.
DYING = """
import json, os, sys
skip = json.loads(sys.argv[1])["skip"]
for case in range(skip, 3):
    print(json.dumps({"row": "row", "what": str(case)}), flush=True)
    print("a library prints this")
    if case == 1:
        os._exit(7)
    print(json.dumps({"tries": 1, "wrong": []}), flush=True)
print(json.dumps({"end": True}))
"""


def test_a_case_that_ends_its_worker_is_a_finding(tmp_path, monkeypatch):
    (tmp_path / "worker.py").write_text(DYING)
    monkeypatch.setattr(fault_campaign, "WORKER", tmp_path / "worker.py")
    tried = list(try_part({"root": str(tmp_path)}))
    died = ["other: it ended the worker, exit code 7"]
    assert [case.wrong for case in tried] == [[], died, []]
    assert [case.what for case in tried] == ["0", "1", "2"]


FOUND = {
    "rows": count([Tried("SIGINT, saving", "", 9, ["lost: metrics.csv"])]),
    "findings": [{"what": "a case", "wrong": ["lost: metrics.csv"]}],
    "seconds": 3,
}


def test_findings_are_shown_and_end_with_an_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(faults, "running", lambda command: io.StringIO())
    monkeypatch.setattr(faults, "ask", lambda program, request, timeout: FOUND)
    assert faults.main(["--kinds", "kills", "--no-write"]) == 1
    said = capsys.readouterr().out
    assert "a case\n  lost: metrics.csv" in said
    assert "| kills: SIGINT, saving | 9 | 1 | 0 | 0 | 0 |" in " ".join(said.split())


def test_the_campaign_knows_every_kind():
    assert faults.KINDS.keys() == fault_worker.KINDS.keys()
    assert faults.KINDS["kills"] >= 100 <= faults.KINDS["damages"]
    assert faults.KINDS["demonstrations"] >= 300
