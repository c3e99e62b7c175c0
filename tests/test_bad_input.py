"""Bad command lines and config files end in one sentence and leave nothing behind.

A quarter of the cases at each run; `python tests/bad_input.py` runs all of them.
"""

import random

import pytest
from bad_config_files import config_files, run_config_file
from bad_input import command_lines, findings, run_command_line

from purejaxppo.run import memory


def quarter(cases: list) -> list:
    """Every fourth case, so that there are some of every kind."""
    return cases[random.randrange(4) :: 4]


def test_bad_command_lines_are_refused():
    assert len(command_lines()) >= 200
    assert findings(quarter(command_lines()), run_command_line) == {}


def test_bad_config_files_are_refused():
    assert len(config_files()) >= 100
    assert findings(quarter(config_files()), run_config_file) == {}


def test_what_does_not_fit_into_memory_is_said_with_its_fields(monkeypatch, tmp_path):
    from bad_input import CommandLine

    monkeypatch.setattr(memory, "_available", lambda: 4e6)
    for flags, says in (
        ("--num-steps 12800", "num_envs, num_steps: got (64, 12800); allowed is what"),
        ("--num-seeds 30", "num_seeds: got 30; allowed is what fits into 0.0 GB"),
        ("--eval-episodes 6000", "eval_episodes, eval_blocks: got (6000, 5);"),
        ("--hidden-sizes 999 999", "hidden_sizes, critic_hidden_sizes, core_size:"),
    ):
        argv = ["--env", "deck", "--num-envs", "64", "--num-steps", "16"]
        argv += ["--total-timesteps", "9999999", "--reset", "fresh", *flags.split()]
        argv += ["--eval-blocks", "5"]
        assert run_command_line(CommandLine("memory", argv, says), tmp_path) == []


@pytest.mark.parametrize("name", ["memory.max", "memory.limit_in_bytes"])
def test_the_limit_of_a_container_counts(name, monkeypatch, tmp_path):
    machine = memory._available()
    limit = tmp_path / name
    monkeypatch.setattr(memory, "_LIMITS", (str(limit),))
    limit.write_text("1000\n")
    assert memory._available() == 1000
    limit.write_text("max\n")
    assert memory._available() >= machine
