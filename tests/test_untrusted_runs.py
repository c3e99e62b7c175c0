"""A run of somebody else: nothing that it names is imported, no link is followed."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from helpers import forget_checksum, run_command
from probe_envs import make

from purejaxppo import evaluate, load_policy, registry, train
from purejaxppo.errors import EXIT_OK, EXIT_USAGE, ConfigError, PurejaxppoError
from purejaxppo.run import checkpoint, folder
from purejaxppo.run.tables import Table

ENV = ("--env", "probe_envs:make")


def rewrite(run: Path, group: str, **values: object) -> None:
    record = json.loads((run / "config.json").read_text())
    record[group] |= values
    (run / "config.json").write_text(json.dumps(record))


DOORS = {
    "resume": lambda run: train.main(["--resume", str(run)]),
    "evaluate": lambda run: run_command("purejaxppo.evaluate", str(run)),
    "load_policy": load_policy,
    "evaluate()": evaluate,
}


def refusal(door: str, run: Path, capsys) -> str:
    """What a door says that stays shut."""
    try:
        assert DOORS[door](run) == EXIT_USAGE
    except PurejaxppoError as error:
        return str(error)
    return capsys.readouterr().err.rstrip("\n")


@pytest.fixture
def trap(tmp_path, monkeypatch) -> Path:
    """A module that leaves a file behind when it is imported."""
    sprung = tmp_path / "sprung"
    (tmp_path / "trap_module.py").write_text(f"open({str(sprung)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    yield sprung
    sys.modules.pop("trap_module", None)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("field", ["env", "distribution", "trunk"])
def test_no_door_imports_what_a_run_names(killed, trap, door, field, capsys):
    values = {"env": "hammer", "env_kwargs": {}, field: "trap_module:make"}
    rewrite(killed, "config", **values)
    rewrite(killed, "options", **{"trust_env": True} if field == "env" else {})
    forget_checksum(killed)
    said = refusal(door, killed, capsys)
    assert not trap.exists()
    assert said.count("\n") == 0
    assert f"{field}: got 'trap_module:make'" in said
    assert "import trap_module" in said
    assert f"--{field} trap_module:make" in said
    assert "--trust-env" in said


def test_a_command_as_the_environment_is_not_run(killed, tmp_path, capsys):
    command = {"command": f"touch {tmp_path}/sprung"}
    rewrite(killed, "config", env="os:system", env_kwargs=command)
    assert "import os" in refusal("resume", killed, capsys)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("flags", [ENV, ("--trust-env",)])
def test_the_user_may_repeat_or_trust_the_factory(killed, flags, capsys):
    assert train.main(["--resume", str(killed), *flags]) == EXIT_OK
    assert "resuming" in capsys.readouterr().err
    words = [str(killed), *flags, "--episodes", "1"]
    assert run_command("purejaxppo.evaluate", *words) == EXIT_OK


def test_load_policy_takes_an_environment_its_name_or_trust(tiny_run):
    env = make("observation", continuous=True)
    for trust in ({"env": ENV[1]}, {"env": env}, {"trust_env": True}):
        assert load_policy(tiny_run, **trust).update == 6
    assert evaluate(tiny_run, episodes=1, env=env)
    with pytest.raises(ConfigError, match="env: got 'scheduler'; allowed is the run's"):
        load_policy(tiny_run, env="scheduler")


def test_a_distribution_may_be_repeated(tiny_run, killed):
    rewrite(killed, "config", distribution="no.such:thing")
    forget_checksum(killed)
    with pytest.raises(ConfigError, match="can be imported"):  # so it was tried
        load_policy(killed, env=ENV[1], distribution="no.such:thing")


@pytest.mark.parametrize(
    ("name", "trusted"),
    [
        *(("hammer", True), ("gymnax:CartPole-v1", True), ("brax:ant", True)),
        *(("gymnax:os:system", True), ("os:system", False), ("gymnax:", False)),
        *(("gymnax.x:make", False), ("", False), (["hammer"], False), (None, False)),
        ("purejaxppo.envs.hammer:make", False),
        *(("gymnasium:Pendulum-v1", True), ("gymnasium:os:Pendulum-v1", False)),
    ],
)
def test_names_that_are_ours(name, trusted):
    assert registry.is_registered(name) == trusted


@pytest.mark.parametrize("library", ["gymnax", "brax"])
def test_an_adapter_imports_nothing_that_its_name_says(library, trap):
    pytest.importorskip(library)
    for name in ("trap_module:make", "trap_module", "../trap_module"):
        with pytest.raises(ConfigError):
            registry.make_env(f"{library}:{name}")
    assert not trap.exists()


# --- links ------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path) -> Path:
    path = tmp_path / "elsewhere"
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    return path


def test_a_temporary_is_never_written_through_a_link(tmp_path, victim):
    link = victim / "thesis.txt"
    (tmp_path / "config.tmp").symlink_to(link)
    folder.write_json(tmp_path / "config.json", {"a": 1})
    table = Table(tmp_path / "metrics.csv")
    table.append([{"update": i, "steps": i, "seconds": 0, "seed": 0} for i in (1, 2)])
    (tmp_path / "metrics.tmp").symlink_to(link)
    Table(tmp_path / "metrics.csv").truncate(1)
    assert link.read_text() == "years of work"
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": 1}
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", ["metrics.csv", "checkpoints", "evaluation.json"])
def test_links_in_a_run_are_refused(killed, victim, door, name, capsys):
    path = killed / name
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    path.symlink_to(victim if name == "checkpoints" else victim / "thesis.txt")
    rewrite(killed, "config", env="hammer", env_kwargs={})
    said = refusal(door, killed, capsys)
    assert f"{path}" in said
    assert "symbolic link" in said
    assert said.count("\n") == 0
    assert (victim / "thesis.txt").read_text() == "years of work"


def test_special_files_in_a_run_are_refused(killed):
    os.mkfifo(killed / "evals.fifo")
    with pytest.raises(ConfigError, match="no symbolic link and no special file"):
        load_policy(killed, env=ENV[1])


def test_a_run_may_be_reached_by_a_link(tiny_run, tmp_path):
    (tmp_path / "link").symlink_to(tiny_run)
    assert load_policy(tmp_path / "link", env=ENV[1]).update == 6


def test_only_checkpoints_of_ours_are_pruned(tmp_path, victim):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, step, {"x": 1.0 * step}, {})
    for name in ("00000000", "7", "²", "x.unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").touch()
    (tmp_path / "²" / "done").touch()
    (tmp_path / "00000009").symlink_to(victim)
    (tmp_path / "00000010").write_text("a file")
    (victim / "done").touch()
    (victim / "meta.json").touch()
    assert checkpoint.steps(tmp_path) == [1, 2, 3]
    checkpoint.prune(tmp_path, keep=1, protect=set())
    checkpoint.discard_after(tmp_path, 3)
    left = {path.name for path in tmp_path.iterdir()}
    foreign = {"00000000", "7", "²", "x.unfinished", "00000009", "00000010"}
    assert left == {"00000003", *foreign, victim.name}
    assert (victim / "thesis.txt").exists()
