"""Strict numerics for every test, the order of the files, and quick programs.

Rank and dtype promotion are errors, as are warnings (pyproject.toml). Code of others
that cannot bear it is wrapped where it is called.
"""

import atexit
import gc
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import browser
import jax
import pytest
from helpers import QUICK_FLAGS, TINY

import purejaxppo  # noqa: F401 (prepares XLA, before any test starts it)
from purejaxppo import train

# Before XLA reads it, which is when the first program compiles. The commands that tests
# start have it too.
os.environ.setdefault("XLA_FLAGS", QUICK_FLAGS)
# What several tests, workers and commands compile is compiled once. A command that runs
# in a process of its own finds the folder by the variable: see
# `purejaxppo.run.compiler.use_compilation_cache`.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the variable
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="purejaxppo_tests_")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
_CACHE = Path(os.environ["XDG_CACHE_HOME"]) / "purejaxppo"
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
# Tracing makes many objects that live long, and every collection walks through them:
# with Python's own thresholds a twentieth of the time, and more late in a long process.
gc.set_threshold(50_000, 20, 10)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Files that need what an ordinary machine lacks are left out, rather than skipped.
collect_ignore = []
if browser.find() is None:
    collect_ignore += ["test_report_page.py"]
if find_spec("envelope") is None or find_spec("jumanji") is None:
    collect_ignore += ["test_adapters_envelope.py"]
if find_spec("stable_baselines3") is None:
    collect_ignore += ["test_to_stable_baselines3.py"]
if find_spec("libtpu") is None:
    collect_ignore += ["test_aot.py"]
if find_spec("warp") is None:
    collect_ignore += ["test_warp.py", "test_warp_gpu.py"]
elif jax.default_backend() != "gpu":
    collect_ignore += ["test_warp_gpu.py"]

# The slowest first: one that starts last leaves a core idle until it ends.
_SLOW_FILES = (
    *(
        "mesh",
        "ratio_contract",
        "resume",
        "benchmarks",
        "faults",
        "train",
        "hammer_learning",
    ),
    *("custom_heads", "update", "imitation", "cli", "check", "learning", "deck"),
    *("lifecycle", "scheduler", "interrupted_start", "mjx", "storage", "quarantine"),
    *("hammer", "sweep", "distributions", "readme", "strict", "adapters_gymnasium"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files by how long they take; within a file nothing changes."""
    rank = {f"test_{name}": place for place, name in enumerate(_SLOW_FILES)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests an ordinary machine could run, but this one cannot."""
    if browser.find() is None:
        terminalreporter.write_line(
            "LEFT OUT: test_report_page.py, which opens reports in a browser: there is "
            "no Chromium; `apt-get install chromium` brings it",
            red=True,
        )


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture(scope="session")
def demonstration():
    """States and actions of the hammer, the same for the tests of all engines."""
    from hammer_worlds import worlds  # only where it is used: it imports MuJoCo

    return worlds().demonstration


@pytest.fixture(scope="session")
def c_step():
    """The step of the C engine that other engines are compared with."""
    from hammer_worlds import worlds

    return worlds().c_step


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 6 updates. Do not change it; copy it with `killed`."""
    path = tmp_path_factory.mktemp("tiny") / "run"
    assert train.main([*TINY, "--run-dir", str(path)]) == 0
    return path


@pytest.fixture
def killed(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of the tiny run, as if it had been killed at its end."""
    path = tmp_path / "run"
    shutil.copytree(tiny_run, path)
    (path / "summary.json").unlink()
    return path
