"""Strict numerics for every test.

Rank and dtype promotion are errors, as are warnings (pyproject.toml). Code of others
that cannot bear it is wrapped where it is called.
"""

import jax
import pytest

import purejaxppo  # noqa: F401 (prepares XLA, before any test starts it)

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
