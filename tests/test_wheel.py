"""The installed package, imported from elsewhere: environments come with it."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder as site-packages would be after installing the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("purejaxppo", "envs"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignore)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    result = subprocess.run(
        [*build, "--outdir", str(folder), str(source)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return folder / "site"


def test_wheel_holds_environments_under_the_package_alone(installed):
    assert not (installed / "envs").exists()
    assert (installed / "purejaxppo" / "envs" / "hammer" / "scene.xml").exists()
    assert (installed / "purejaxppo" / "py.typed").exists()
    assert (installed / "purejaxppo" / "report" / "page.html").exists()


def test_installed_package_makes_the_hammer_from_another_directory(installed, tmp_path):
    program = (
        "import purejaxppo, jax; from purejaxppo import make_env; "
        f"assert purejaxppo.__file__.startswith({str(installed)!r}); "
        "print(make_env('hammer').reset(jax.random.key(0)).obs.shape)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert result.stdout.strip() == "(39,)", result.stderr
