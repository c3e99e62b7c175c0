"""What the README says is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import QUICK

from benchmarks.harness import report

TEXT = report.README.read_text()


@pytest.mark.parametrize("path", report.SECTIONS, ids=lambda p: p.parent.name)
def test_results_are_those_of_the_files(path):
    text = path.read_text()
    assert report.updated(text, report.SECTIONS[path]) == text


def test_every_file_that_it_names_exists():
    root = Path(report.README).parent
    files = TEXT.split("## Where things are")[1]
    names = re.findall(r"^\| `([\w./]+)` \|", files, flags=re.MULTILINE)
    assert names
    for name in names:
        assert (root / name).exists(), name


def test_the_research_example_runs():
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (example,) = blocks
    assert len(example.strip().splitlines()) <= 12
    expected = re.search(r"print\(.*\)  # (\(.*?\))", example)
    assert expected
    # As a user's script, but compiled with less care: in a third of the time.
    flags = " ".join(f"--{n}={str(v).lower()}" for n, v in QUICK.items())
    ran = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, "XLA_FLAGS": flags},
        cwd=report.README.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == expected.group(1)


@pytest.mark.parametrize("marker", ["set-up", "test"])
def test_commands_that_ci_runs_are_marked(marker):
    assert re.search(rf"<!-- {marker} -->\n```sh\n.+\n```", TEXT)
