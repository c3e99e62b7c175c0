"""Rows on disk, and the record of a run, as they are after a kill."""

import dataclasses
import math

import pytest

from purejaxppo import __version__
from purejaxppo.config import Config, Hypers, Resolved
from purejaxppo.env import Box, EnvSpec
from purejaxppo.errors import ConfigError
from purejaxppo.run import folder, record
from purejaxppo.run.options import Options
from purejaxppo.run.tables import Table

SPEC = EnvSpec("probe", {"move": Box(1)}, version=3)


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


def test_a_resumed_run_of_an_older_version_gets_the_columns_that_it_lacks(tmp_path):
    path = tmp_path / "metrics.csv"
    table_of(path, 1, 2)
    table = Table(path)
    table.truncate(1)
    newer = [row | {"new/metric": 1.0} for row in rows(2)]
    table.append(newer)
    header, *written = lines(path)
    assert header.split(",")[-1] == "new/metric"
    assert [line.split(",")[-1] for line in written] == ["", "", "1.0", "1.0"]
    assert [line.count(",") for line in written] == [5] * 4
    Table(path).truncate(2)  # an empty field is no row that was cut short
    assert lines(path) == [header, *written]
    with pytest.raises(ValueError, match="other/metric"):
        table.append([row | {"other/metric": 1.0} for row in newer])


def test_configuration_comes_back_exactly(tmp_path):
    hypers = Hypers(
        learning_rate=1 / 3,
        target_kl=math.inf,
        head_entropy_floor={"op": -math.inf, "slot": 0.5},
        head_entropy_coef={"slot": 0.1},
    )
    kwargs = {"a": (1, (2.5, "x")), "b": [1, None], "c": {"d": math.inf}, "e": True}
    config = Config(
        env="probe_envs:make", hypers=hypers, hidden_sizes=(3, 4, 5), env_kwargs=kwargs
    )
    options = Options(seed=7, checkpoint_seconds=math.inf, run_dir="somewhere")
    resolved = Resolved(config, {"gamma": "default"})
    record.write(tmp_path, resolved, options, ["python"], SPEC)
    assert record.read_config(tmp_path) == (resolved, options)
    # Strict JSON, which has neither Infinity nor NaN: others read it too.
    assert "Infinity" not in (tmp_path / "config.json").read_text()


def test_record_says_what_the_numbers_depend_on(tmp_path):
    resolved = Resolved(Config(env="probe_envs:make"), {})
    record.write(tmp_path, resolved, Options(), ["python"], SPEC)
    written = record.read(tmp_path)
    assert {"python", "jax", "jaxlib", "flax", "optax", "numpy", "mujoco"} <= set(
        written["versions"]
    )
    assert written["machine"]["cores"] > 0
    assert folder.changed_since(written) == []
    written["versions"]["jax"] = "0.0.1"
    (change,) = folder.changed_since(written)
    assert change.startswith("versions.jax: '0.0.1' then, ")


def test_a_folder_without_a_run_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"resume: got .* the folder of a run"):
        record.read_config(tmp_path)


def written_by_hand(path, **changes) -> None:
    """config.json of a run, with other entries; None takes an entry away."""
    resolved = Resolved(Config(env="probe_envs:make", num_envs=32), {})
    record.write(path, resolved, Options(seed=7), ["python"], SPEC)
    entries = {**record.read(path), **changes}
    entries = {name: entry for name, entry in entries.items() if entry is not None}
    folder.write_json(path / "config.json", entries)


def test_a_run_of_the_first_format_is_read(tmp_path):
    written_by_hand(tmp_path)
    settings = record.read(tmp_path)["options"]
    written_by_hand(
        tmp_path, format=None, env_version=None, options=None, settings=settings
    )
    resolved, options = record.read_config(tmp_path)
    assert resolved.config.num_envs == 32
    assert options == Options(seed=7)
    # What a run does not say is version 1, and SPEC is another.
    record.check_env_version(tmp_path, dataclasses.replace(SPEC, version=1))
    with pytest.raises(ConfigError, match="resume: got 'probe of version 1'"):
        record.check_env_version(tmp_path, SPEC)


def test_a_later_format_is_refused_with_the_version_that_reads_it(tmp_path):
    written_by_hand(tmp_path, format=3, versions={"purejaxppo": "9.1.0"})
    with pytest.raises(ConfigError) as error:
        record.read_config(tmp_path)
    assert str(error.value) == (
        f"resume: got {str(tmp_path)!r}; allowed is a run of format 1 to 2; this one "
        "has format 3, which purejaxppo 9.1.0 can read"
    )


def test_fields_that_a_run_lacks_have_their_defaults(tmp_path):
    written_by_hand(tmp_path)
    entries = record.read(tmp_path)
    for group, name in (("config", "reset"), ("hypers", "gamma"), ("options", "seed")):
        del entries[group][name]
    written_by_hand(tmp_path, **entries)
    resolved, options = record.read_config(tmp_path)
    assert resolved.config.reset == Config.reset
    assert resolved.config.hypers.gamma == Hypers().gamma
    assert options.seed == 0


@pytest.mark.parametrize("group", ["config", "hypers", "options"])
def test_fields_that_are_not_known_are_refused(tmp_path, group):
    written_by_hand(tmp_path)
    entries = record.read(tmp_path)
    entries[group]["unheard_of"] = 1
    written_by_hand(tmp_path, **entries)
    sentence = f"unheard_of of its {group} is not, and purejaxppo .* can read it$"
    with pytest.raises(ConfigError, match=sentence):
        record.read_config(tmp_path)


def test_the_environments_version_is_in_the_record(tmp_path):
    written_by_hand(tmp_path)
    assert record.read(tmp_path)["env_version"] == 3
    record.check_env_version(tmp_path, SPEC)
    newer = dataclasses.replace(SPEC, version=4)
    with pytest.raises(ConfigError) as error:
        record.check_env_version(tmp_path, newer, "run")
    assert str(error.value) == (
        "run: got 'probe of version 3'; allowed is a run with version 4 of probe, "
        f"whose behaviour has changed; purejaxppo {__version__} has version 3"
    )


def test_every_option_is_in_the_record(tmp_path):
    resolved = Resolved(Config(env="probe_envs:make"), {})
    record.write(tmp_path, resolved, Options(), ["python"], SPEC)
    names = {field.name for field in dataclasses.fields(Options)}
    assert set(record.read(tmp_path)["options"]) == names
