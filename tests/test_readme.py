"""What the README says is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness import report

TEXT = report.README.read_text()
ROOT = Path(report.README).parent
RESEARCH, ENVIRONMENT = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)


def _run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A user's script."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("path", report.SECTIONS, ids=lambda p: p.parent.name)
def test_results_are_those_of_the_files(path):
    text = path.read_text()
    assert report.updated(text, report.SECTIONS[path]) == text


def test_it_is_a_front_page():
    assert len(TEXT.splitlines()) <= 150


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_research_example_runs(tmp_path):
    assert len(RESEARCH.strip().splitlines()) <= 12
    expected = re.search(r"print\(.*\)  # (\(.*?\)): rates, seeds", RESEARCH)
    assert expected
    ran = _run(["-c", RESEARCH], tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == expected.group(1)


def test_the_environment_keeps_the_contract_and_trains(tmp_path):
    assert len(ENVIRONMENT.strip().splitlines()) <= 26
    (tmp_path / "reach.py").write_text(ENVIRONMENT)
    checked = _run(["reach.py"], tmp_path)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stderr
    flags = (
        "-m purejaxppo.train --env reach:Reach --num-envs 8 --num-steps 8 "
        "--num-minibatches 2 --total-timesteps 128 --num-evals 1 --hidden-sizes 8 "
        "--critic-hidden-sizes 8 --no-tensorboard --no-report --run-dir run"
    )
    trained = _run(flags.split(), tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("marker", ["train", "test"])
def test_ci_runs_the_commands_of_the_front_page(marker):
    """From a new virtual environment, with Python alone, in one line."""
    command = re.search(rf"<!-- {marker} -->\n```sh\n(.+)\n```", TEXT)
    assert command
    assert command.group(1).startswith("python3 -m venv .venv && ")
    assert f"$(command_of {marker})" in (ROOT / ".ci" / "run").read_text()
