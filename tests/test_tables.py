"""Rows on disk, and the record of a run, as they are after a kill."""

import dataclasses
import io
import json
import math

import jax.numpy as jnp
import pytest
from helpers import small_config

from purejaxppo.config import Config, Hypers
from purejaxppo.errors import ConfigError
from purejaxppo.ppo.learner import make_learner
from purejaxppo.run import folder
from purejaxppo.run.journal import Best, Journal
from purejaxppo.run.layers import Layered
from purejaxppo.run.options import Options
from purejaxppo.run.progress import Progress
from purejaxppo.run.tables import Table


def rows(*updates: int) -> list[dict]:
    return [
        {"update": i, "steps": 8 * i, "seconds": 0.5, "seed": s, "loss/value": i + 0.1}
        for i in updates
        for s in (0, 1)
    ]


def lines(path) -> list[str]:
    return path.read_text().splitlines()


def table_of(path, *updates: int) -> Table:
    table = Table(path)
    table.append(rows(*updates))
    return table


def test_rows_after_the_checkpoint_are_dropped_and_written_once(tmp_path):
    path = tmp_path / "metrics.csv"
    table_of(path, 1, 2, 3)
    expected = lines(path)
    resumed = Table(path)
    resumed.truncate(2)
    assert lines(path) == expected[:5]
    resumed.append(rows(3))
    assert lines(path) == expected


@pytest.mark.parametrize("missing", [1, 5, 12])
def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path, missing):
    path = tmp_path / "metrics.csv"
    table_of(path, 1, 2)
    expected = lines(path)
    path.write_text(path.read_text() + "3,24,0.5,0,3.1"[:-missing])
    Table(path).truncate(2)
    assert lines(path) == expected


def test_a_header_that_a_kill_cut_short_is_written_anew(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("upda")
    table = Table(path)
    table.truncate(0)
    table.append(rows(1))
    table_of(tmp_path / "other.csv", 1)
    assert lines(path) == lines(tmp_path / "other.csv")


def test_a_metric_that_the_header_lacks_is_an_error(tmp_path):
    table = table_of(tmp_path / "metrics.csv", 1)
    with pytest.raises(ValueError, match="new/metric"):
        table.append([row | {"new/metric": 1.0} for row in rows(2)])


def test_configuration_comes_back_exactly(tmp_path):
    hypers = Hypers(learning_rate=1 / 3, target_kl=math.inf, entropy_floor=-math.inf)
    kwargs = {"a": (1, (2.5, "x")), "b": [1, None], "c": {"d": math.inf}, "e": True}
    config = Config(
        env="probe_envs:make", hypers=hypers, hidden_sizes=(3, 4, 5), env_kwargs=kwargs
    )
    options = Options(seed=7, checkpoint_seconds=math.inf, run_dir="somewhere")
    layered = Layered(config, {"gamma": "default"})
    folder.write_config(tmp_path, layered, options, ["python"])
    assert folder.read_config(tmp_path) == (layered, options)
    # Strict JSON, which has neither Infinity nor NaN: others read it too.
    assert "Infinity" not in (tmp_path / "config.json").read_text()


def test_record_says_what_the_numbers_depend_on(tmp_path):
    layered = Layered(Config(env="probe_envs:make"), {})
    folder.write_config(tmp_path, layered, Options(), ["python"])
    record = folder.read_record(tmp_path)
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy", "mujoco"} <= set(
        record["versions"]
    )
    assert record["machine"]["cores"] > 0
    assert folder.changed_since(record) == []
    record["versions"]["jax"] = "0.0.1"
    (change,) = folder.changed_since(record)
    assert change.startswith("versions.jax: '0.0.1' then, ")


def test_a_folder_without_a_run_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"resume: got .* the folder of a run"):
        folder.read_config(tmp_path)


def test_every_setting_is_in_the_record(tmp_path):
    layered = Layered(Config(env="probe_envs:make"), {})
    folder.write_config(tmp_path, layered, Options(), ["python"])
    names = {field.name for field in dataclasses.fields(Options)}
    assert set(folder.read_record(tmp_path)["options"]) == names


def journal(path) -> Journal:
    learner = make_learner(small_config(env_kwargs={"kind": "observation"}))
    progress = Progress(io.StringIO())
    return Journal(learner, Options(tensorboard=False), path, progress)


def evaluated(success: float, worst: float) -> dict:
    figures = {"episode_success": success, "min_block_success": worst, "mean_return": 1}
    return {f"eval/{name}": jnp.float32(x) for name, x in figures.items()}


def test_a_checkpoint_gives_the_journal_back(tmp_path):
    first = journal(tmp_path)
    first.open(-1)
    first.log_evaluation(evaluated(1.0, 1.0), 0)  # what was only cloned
    assert first.best is None
    assert first.metadata()["best"] == {}
    first.log_evaluation(evaluated(0.75, 0.5), 3)
    first.log_evaluation(evaluated(0.5, 0.5), 6)
    first.faults.append("a fault")
    first.training_seconds, first.trained_steps = 1.5, 192
    record = json.loads(json.dumps(first.metadata()))
    # Checkpoints of earlier versions are read: these names are a file format.
    names = "best last_eval faults training_seconds trained_steps seconds"
    assert set(record) == set(names.split())
    assert record["best"] == {"update": 3, "worst": 0.5, "mean": 0.75}
    second = journal(tmp_path)
    second.restore(record)
    assert second.best == Best(3, 0.5, 0.75)
    assert second.seconds >= record["seconds"]
    assert second.metadata() | {"seconds": 0} == first.metadata() | {"seconds": 0}
