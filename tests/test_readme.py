"""What the README says is what happens."""

import re
from pathlib import Path

import pytest

from benchmarks import readme

TEXT = readme.README.read_text()


@pytest.mark.parametrize("path", readme.SECTIONS, ids=lambda p: p.parent.name)
def test_results_are_those_of_the_files(path):
    text = path.read_text()
    assert readme.updated(text, readme.SECTIONS[path]) == text


def test_every_file_that_it_names_exists():
    root = Path(readme.README).parent
    files = TEXT.split("## Where things are")[1]
    names = re.findall(r"^\| `([\w./]+)` \|", files, flags=re.MULTILINE)
    assert names
    for name in names:
        assert (root / name).exists(), name


def test_the_research_example_runs(capsys):
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    (example,) = blocks
    assert len(example.strip().splitlines()) <= 12
    exec(compile(example, "README.md", "exec"), {})
    expected = re.search(r"print\(.*\)  # (\(.*?\))", example)
    assert expected
    assert capsys.readouterr().out.strip() == expected.group(1)


@pytest.mark.parametrize("marker", ["set-up", "test"])
def test_commands_that_ci_runs_are_marked(marker):
    assert re.search(rf"<!-- {marker} -->\n```sh\n.+\n```", TEXT)
