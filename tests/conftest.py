"""Strict numerics for every test, the order of the files, and quick programs.

Rank and dtype promotion are errors, as are warnings (pyproject.toml). Code of others
that cannot bear it is wrapped where it is called.
"""

import gc
from collections.abc import Iterator
from importlib.util import find_spec

import jax
import pytest
from helpers import QUICK

import purejaxppo  # noqa: F401 (prepares XLA, before any test starts it)
from purejaxppo.run.compiler import Compiler

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Files that need what an ordinary machine lacks are left out, rather than skipped.
collect_ignore = []
if find_spec("warp") is None:
    collect_ignore += ["test_warp.py", "test_warp_gpu.py"]
elif jax.default_backend() != "gpu":
    collect_ignore += ["test_warp_gpu.py"]

# The slowest first: one that starts last leaves a core idle until it ends.
_SLOW_FILES = (
    *("ratio_contract", "resume", "cli", "learning", "scheduler", "custom_heads"),
    *("benchmarks", "hammer_learning", "deck", "check", "lifecycle", "train"),
    *("update", "readme", "mjx", "imitation", "engines", "distributions"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files by how long they take; within a file nothing changes."""
    rank = {f"test_{name}": place for place, name in enumerate(_SLOW_FILES)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(scope="module", autouse=True)
def _keep_the_heap_out_of_garbage_collection():
    """Traced programs stay alive: each collection would walk over all of them."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line and the benchmarks compile as `quick_jit` does."""
    monkeypatch.setattr(Compiler.__init__, "__defaults__", (QUICK,))


@pytest.fixture
def quick_programs() -> Iterator[None]:
    """Code under test that calls `jax.jit` itself compiles quickly, to slower code."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
