"""Runs whose folder is locked, damaged, full, or gone while they train."""

import contextlib
import csv
import errno
import fcntl
import json
import math
import os
import resource
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers import TINY, forget_checksum
from test_untrusted_runs import ENV, rewrite

from purejaxppo import load_policy, train
from purejaxppo.errors import EXIT_OK, EXIT_STORAGE, EXIT_USAGE, ConfigError
from purejaxppo.run import checkpoint, files, folder, runner, saving
from purejaxppo.run.events import Events
from purejaxppo.run.tables import Table


def resume(run: Path, *flags: str) -> int:
    return train.main(["--resume", str(run), *ENV, *flags])


def updates(run: Path, table: str = "metrics.csv") -> list[int]:
    with (run / table).open(newline="") as file:
        return [int(row["update"]) for row in csv.DictReader(file)]


# --- the lock -----------------------------------------------------------------------


def test_a_run_that_trains_is_not_resumed(killed, capsys):
    with (killed / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert resume(killed) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said == (
        f"resume: got {str(killed)!r}; allowed is a run that no other process trains\n"
    )
    assert resume(killed) == EXIT_OK  # the lock went with its holder


def test_training_holds_the_lock(tmp_path, monkeypatch, capsys):
    codes = []

    def resume_too(self, *_, **__):
        codes.append(resume(tmp_path / "run"))
        return EXIT_OK

    monkeypatch.setattr(runner.Runner, "run_from_start", resume_too)
    assert train.main([*TINY, "--run-dir", str(tmp_path / "run")]) == EXIT_OK
    assert codes == [EXIT_USAGE]


def test_a_filesystem_without_locks_is_said_once(killed, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert resume(killed) == EXIT_OK
    assert capsys.readouterr().err.count("cannot be locked (No locks available)") == 1


# --- what is missing ----------------------------------------------------------------


@pytest.mark.parametrize("gone", ["done", "checkpoints"])
def test_hours_of_training_are_not_overwritten(killed, gone, capsys):
    if gone == "checkpoints":
        shutil.rmtree(killed / "checkpoints")
    for path in killed.glob("checkpoints/*/done"):
        path.unlink()
    before = (killed / "metrics.csv").read_bytes()
    assert resume(killed) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no finished checkpoint" in said
    assert "--overwrite" in said
    assert (killed / "metrics.csv").read_bytes() == before


def test_overwriting_is_a_flag(killed, capsys):
    for path in killed.glob("checkpoints/*/done"):
        path.unlink()
    assert resume(killed, "--overwrite") == EXIT_OK
    assert "starting it anew" in capsys.readouterr().err
    assert updates(killed) == [1, 2, 3, 4, 5, 6]


def test_a_run_cannot_ask_to_be_overwritten(killed):
    rewrite(killed, "options", overwrite=True)
    shutil.rmtree(killed / "checkpoints")
    assert resume(killed) == EXIT_USAGE


@pytest.mark.parametrize("flag", ["resume", "run-dir", "demonstrations"])
def test_an_empty_path_is_a_sentence(flag, capsys, tmp_path, monkeypatch):
    """As of a shell variable that is not set."""
    monkeypatch.chdir(tmp_path)
    assert train.main([*TINY, f"--{flag}", ""]) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.startswith(f"{flag.replace('-', '_')}: got ''; allowed is ")
    assert "variable" in said
    assert list(tmp_path.iterdir()) == []


def test_overwrite_without_resume_is_refused(capsys):
    assert train.main([*TINY, "--overwrite"]) == EXIT_USAGE
    assert "overwrite: got True; allowed is" in capsys.readouterr().err


# --- what has changed ---------------------------------------------------------------


def test_a_changed_configuration_is_refused(killed, capsys):
    rewrite(killed, "hypers", gamma=0.98)
    assert resume(killed) == EXIT_USAGE
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "config.json" in said
    assert "00000006" in said
    with pytest.raises(ConfigError, match=r"config\.json .* 00000006"):
        load_policy(killed, env=ENV[1])


def test_a_run_without_the_new_records_resumes(killed, capsys):
    forget_checksum(killed)
    for path in killed.glob("checkpoints/*"):
        meta = json.loads((path / "meta.json").read_text())
        del meta["metadata"]["tables"]
        content = json.dumps(meta).encode()
        (path / "meta.json").write_bytes(content)
        (path / "done").write_text(files.checksum(content))
    rewrite(killed, "hypers")  # other spaces
    assert resume(killed) == EXIT_OK
    assert updates(killed) == [1, 2, 3, 4, 5, 6]


def test_changed_flags_of_xla_are_said(killed, monkeypatch, capsys):
    then, now = os.environ["XLA_FLAGS"], "--xla_cpu_enable_fast_math=true"
    monkeypatch.setenv("XLA_FLAGS", now)
    assert resume(killed) == EXIT_OK
    said = capsys.readouterr().err
    assert f"xla_flags: {then!r} then, {now!r} now" in said


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def with_line(number: int, change):
    """A damage that changes one line."""

    def damage(path: Path) -> None:
        lines = lines_of(path)
        lines[number] = change(lines[number])
        path.write_bytes(b"".join(lines))

    return damage


DAMAGES = {
    "deleted": (lambda path: path.unlink(), []),
    "emptied": (lambda path: path.write_bytes(b""), []),
    "cut": (
        lambda path: path.write_bytes(path.read_bytes()[:-400]),
        [1, 2, 3, 4, 5],
    ),
    "byte": (with_line(3, lambda x: b"\xff" + x[1:]), [1, 2, 4, 5, 6]),
    "zero": (with_line(3, lambda x: x[:9] + b"\0" + x[10:]), [1, 2, 4, 5, 6]),
    "no number": (with_line(6, lambda x: b"6,x" + x[3:]), [1, 2, 3, 4, 5]),
    "a line gone": (with_line(1, lambda x: b""), [2, 3, 4, 5, 6]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_rows_are_said_and_training_goes_on(killed, damage, capsys):
    change, left = DAMAGES[damage]
    # 400 bytes are less than a row of metrics.csv, so that "cut" costs one row.
    assert len(lines_of(killed / "metrics.csv")[-1]) > 400
    change(killed / "metrics.csv")
    assert resume(killed) == EXIT_OK
    said = capsys.readouterr().err
    lost = 6 - len(left)
    assert f"metrics.csv: {lost} of its 6 rows" in said
    assert said.count("metrics.csv:") == 1
    assert "evals.csv:" not in said
    assert (updates(killed) if left else []) == left


@pytest.mark.parametrize("change", [lambda x: x[20:], lambda x: b"\xff" + x[1:]])
def test_a_damaged_header_is_restored(killed, change, capsys):
    before = (killed / "metrics.csv").read_bytes()
    with_line(0, change)(killed / "metrics.csv")
    assert resume(killed) == EXIT_OK
    assert "metrics.csv: its header is damaged" in capsys.readouterr().err
    assert (killed / "metrics.csv").read_bytes() == before


def test_figures_of_rows_that_were_changed_are_said(killed, capsys):
    with_line(2, lambda x: x.replace(b"2,64", b"2,65", 1))(killed / "metrics.csv")
    assert resume(killed) == EXIT_OK
    assert "metrics.csv: not as it was written" in capsys.readouterr().err


# --- a full disk --------------------------------------------------------------------


@contextlib.contextmanager
def file_size_limit(size: int):
    """No file can grow beyond it: a write fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def row(update: int) -> dict[str, float]:
    return {"update": update, "steps": update, "seconds": 0.5, "seed": 0, "x": 1.5}


def test_rows_that_the_disk_refuses_are_written_later(tmp_path):
    path = tmp_path / "metrics.csv"
    table = Table(path)
    table.append([row(1)])
    size = path.stat().st_size
    for limit in (size, size + 5):  # nothing of the row, and a part of it
        with file_size_limit(limit):
            table.append([row(2)])
            with pytest.raises(OSError, match="too large"):
                table.sync()
    table.append([row(3)])
    table.sync()
    assert [int(x) for x in np.loadtxt(path, delimiter=",", skiprows=1)[:, 0]] == [
        *(1, 2, 2, 3)
    ]


def test_a_row_after_the_saved_update_is_not_missed(tmp_path):
    """`--strict` logs the update with the fault and saves the state before it."""
    path = tmp_path / "metrics.csv"
    table = Table(path)
    table.append([row(1), row(2), row(3)])
    table.sync()
    record = table.record(2)
    assert record["rows"] == 2
    assert Table(path).truncate(2, record) == ""


def test_a_failed_save_leaves_what_was_there(tmp_path):
    state = {"x": jax.numpy.arange(10_000)}
    checkpoint.save(tmp_path, 1, state, {})
    with file_size_limit(2_000), pytest.raises(OSError, match="too large"):
        checkpoint.save(tmp_path, 2, state, {})
    assert checkpoint.steps(tmp_path) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]


def at_update(monkeypatch, number: int, action) -> None:
    """Have something happen to the disk right after that update was logged."""
    log = runner.Journal.log_updates

    def log_and_act(self, metrics, first, num, seconds):
        fault = log(self, metrics, first, num, seconds)
        if first == number:
            action(self.path)
        return fault

    monkeypatch.setattr(runner.Journal, "log_updates", log_and_act)
    monkeypatch.setattr(saving, "LAST_TRIES_SECONDS", (0.0, 0.0))


def limit_size(_path=None, size: int = 1_000) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


@pytest.fixture
def limits_restored(tiny_run):
    """Nothing is written to JAX's cache, whose files the limit concerns too.

    What `tiny_run` compiled is read from there.
    """
    name = "jax_persistent_cache_min_compile_time_secs"
    seconds = jax.config.values[name]
    jax.config.update(name, math.inf)
    with file_size_limit(resource.getrlimit(resource.RLIMIT_FSIZE)[0]):
        yield
    jax.config.update(name, seconds)


@pytest.mark.usefixtures("limits_restored")
def test_training_goes_on_while_the_disk_is_full(
    tmp_path, tiny_run, monkeypatch, capsys
):
    """It is full from update 3 on; after the first refusal there is space again."""
    at_update(monkeypatch, 3, limit_size)
    said = []
    line = runner.Progress.line

    def make_space(self, text):
        said.append(text)
        if "could not be saved" in text:
            limit_size(size=resource.RLIM_INFINITY)
        line(self, text)

    monkeypatch.setattr(runner.Progress, "line", make_space)
    path = tmp_path / "run"
    assert train.main([*TINY, "--run-dir", str(path)]) == EXIT_OK
    assert sum("update 3 could not be saved (File too large)" in x for x in said) == 1
    assert checkpoint.steps(path / "checkpoints")[-2:] == [4, 6]
    assert updates(path) == [1, 2, 3, 4, 5, 6]
    tables = (path / "metrics.csv", tiny_run / "metrics.csv")
    figures = [np.genfromtxt(table, delimiter=",") for table in tables]
    np.testing.assert_array_equal(figures[0][1:, 3:5], figures[1][1:, 3:5])


@pytest.mark.usefixtures("limits_restored")
def test_a_disk_that_stays_full_is_an_exit_code_and_resumable(
    tmp_path, monkeypatch, capsys
):
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        at_update(patch, 3, limit_size)
        assert train.main([*TINY, "--run-dir", str(path)]) == EXIT_STORAGE
    limit_size(size=resource.RLIM_INFINITY)
    said = capsys.readouterr().err
    assert "Traceback" not in said
    last = said.splitlines()[-1]
    assert last.startswith(f"storage: {path}")
    assert "(File too large)" in last
    assert "--resume" in last
    assert checkpoint.steps(path / "checkpoints")[-1] == 2
    assert resume(path) == EXIT_OK
    assert updates(path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("back", [False, True])
def test_a_folder_that_goes_away(tmp_path, monkeypatch, back, capsys):
    path, away = tmp_path / "run", tmp_path / "away"

    def lose(_):
        path.rename(away)

    at_update(monkeypatch, 3, lose)
    save = saving.Saver.save_last

    def save_last(self, *arguments):
        if back and away.exists():
            away.rename(path)
        return save(self, *arguments)

    monkeypatch.setattr(saving.Saver, "save_last", save_last)
    code = train.main([*TINY, "--run-dir", str(path)])
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "update 3 could not be saved (No such file or directory)" in said
    if back:
        assert code == EXIT_OK
        assert updates(path) == [1, 2, 3, 4, 5, 6]
        assert (path / "summary.json").exists()
    else:
        assert code == EXIT_STORAGE
        assert not path.exists()
        assert updates(away) == [1, 2, 3]


@pytest.mark.usefixtures("limits_restored")
def test_a_full_disk_at_the_start_is_a_sentence(tmp_path, capsys):
    limit_size(size=10)
    code = train.main([*TINY, "--run-dir", str(tmp_path / "run")])
    limit_size(size=resource.RLIM_INFINITY)
    assert code == EXIT_STORAGE
    said = capsys.readouterr().err
    assert said.startswith("storage: ")
    assert said.count("\n") == 1


def test_tensorboard_events_do_not_end_a_run(tmp_path, capsys):
    said = []
    events = Events(tmp_path / "run", True, None, said.append)
    with file_size_limit(60):
        for i in range(200):
            events.append([row(i)])
    events.append([row(300)])
    events.close()
    assert len(said) == 1
    assert "TensorBoard" in said[0]


def test_write_json_leaves_no_temporary_where_it_fails(tmp_path):
    with file_size_limit(10), pytest.raises(OSError, match="too large"):
        folder.write_json(tmp_path / "a.json", {"x": "y" * 100})
    assert list(tmp_path.iterdir()) == []
