"""Figures in Weights & Biases, whose own offline files are read back."""

import csv
import importlib.util
import json
import math
import struct
from pathlib import Path
from unittest import mock

import pytest
import wandb
from helpers import TINY
from wandb.proto import wandb_internal_pb2

from purejaxppo import train
from purejaxppo.errors import EXIT_OK, EXIT_USAGE
from purejaxppo.run.tables import AXES
from purejaxppo.run.weights_and_biases import WandbRun

_BLOCK, _FILE_HEADER, _HEADER = 32_768, 7, 7


def records(path: Path):
    """Yield the records of an offline file, which is a log as LevelDB's are.

    Blocks of 32 kB hold pieces: checksum (4 bytes), length (2), kind (1), content. Kind
    1 is a whole record, 2 its first piece, 3 one in the middle, 4 the last.
    """
    content, position, parts = path.read_bytes(), _FILE_HEADER, b""
    while position + _HEADER <= len(content):
        if _BLOCK - position % _BLOCK < _HEADER:  # too short for a header: padding
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, position + 4)
        start = position + _HEADER
        parts += content[start : start + length]
        position = start + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def history(folder: Path) -> tuple[set[str], list[dict[str, float]]]:
    """The names of all runs in a folder of offline files, and their rows."""
    wandb.teardown()  # its own process writes them, and may still be busy
    names, rows = set(), []
    for path in sorted(folder.rglob("*.wandb"), key=lambda path: path.stat().st_mtime):
        for record in records(path):
            if record.WhichOneof("record_type") == "run":
                names.add(record.run.run_id)
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                row = {
                    i.key or i.nested_key[0]: json.loads(i.value_json) for i in items
                }
                rows.append({n: x for n, x in row.items() if n[0] != "_"})  # its own
    return names, rows


def expected(path: Path) -> list[dict[str, float]]:
    with open(path, newline="") as file:
        rows = [
            {n: float(x or "nan") for n, x in r.items()} for r in csv.DictReader(file)
        ]
    names = {name for row in rows for name in row} - set(AXES) | {"steps"}
    return [{n: row[n] for n in names if math.isfinite(row[n])} for row in rows]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    wandb.teardown()  # it keeps the variables that it saw first
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    yield tmp_path
    wandb.teardown()


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 0}')
    axes = {"update": 1, "steps": 32, "seconds": 0.5}
    return [
        {**axes, "seed": 0, "entropy": 0.5, "train/success": math.nan},
        {**axes, "seed": 1, "entropy": 0.25, "train/success": 1.0},
    ]


def test_a_run_logs_its_tables(offline):
    run = offline / "run"
    assert train.main([*TINY, "--wandb", "arms", "--run-dir", str(run)]) == EXIT_OK
    names, logged = history(offline)
    assert names == {(run / "wandb-id").read_text()}
    tables = expected(run / "metrics.csv") + expected(run / "evals.csv")
    assert len(logged) == len(tables) == 6 + 3
    for row in tables:
        assert pytest.approx(row) in logged


def test_seeds_have_names_of_their_own(offline, rows):
    writer = WandbRun(offline, "arms", 2, pytest.fail)
    writer.append(rows)
    writer.close()
    (row,) = history(offline)[1]
    own = {"entropy/seed0": 0.5, "entropy/seed1": 0.25, "train/success/seed1": 1.0}
    assert row == {"steps": 32, **own}


def test_a_resumed_run_goes_on_there(offline, rows, monkeypatch):
    for row in rows:
        # Offline files are named by the second, and the first must stay.
        wandb.teardown()
        (offline / f"part{row['seed']}").mkdir()
        monkeypatch.setenv("WANDB_DIR", str(offline / f"part{row['seed']}"))
        writer = WandbRun(offline, "arms", 1, pytest.fail)
        writer.append([row])
        writer.close()
    names, logged = history(offline)
    assert names == {(offline / "wandb-id").read_text()}
    assert [row["entropy"] for row in logged] == [0.5, 0.25]


def test_its_errors_cost_one_line(tmp_path, rows, monkeypatch):
    problem = wandb.errors.UsageError("no API key configured\nlog in")
    monkeypatch.setattr(wandb, "init", mock.Mock(side_effect=problem))
    lines = []
    writer = WandbRun(tmp_path, "arms", 1, lines.append)
    for row in rows:
        writer.append([row])
    writer.close()
    (line,) = lines
    assert "Weights & Biases gets no more figures (no API key configured)" in line


def test_without_a_project_nothing_is_logged(offline, rows):
    writer = WandbRun(offline, "", 1, pytest.fail)
    writer.append(rows)
    writer.close()
    assert [path.name for path in offline.iterdir()] == ["config.json"]


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    flags = [*TINY, "--wandb", "arms", "--run-dir", str(tmp_path / "run")]
    assert train.main(flags) == EXIT_USAGE
    sentence = "wandb: got 'arms'; allowed is none until purejaxppo[wandb] is installed"
    assert sentence in capsys.readouterr().err
