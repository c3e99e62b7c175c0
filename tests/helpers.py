"""What several tests share: quick compilation, small configurations, comparisons."""

import dataclasses
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from purejaxppo.config import Config, Hypers

# An update compiles three times as fast; arrays as small as ours lose nothing by it.
QUICK = {"xla_backend_optimization_level": 0}
if version("jaxlib") < "0.11":  # from there on XLA refuses the flag
    QUICK["xla_cpu_use_fusion_emitters"] = False


def quick_jit(function: Callable[..., Any], **kwargs: Any) -> Callable[..., Any]:
    """`jax.jit` for what runs once: compiled with less care, and so faster."""
    return jax.jit(function, compiler_options=QUICK, **kwargs)


def small_config(**changes: Any) -> Config:
    """A configuration that compiles and runs in seconds; Hypers by plain name."""
    hyper_names = {field.name for field in dataclasses.fields(Hypers)}
    hypers = Hypers(**{k: v for k, v in changes.items() if k in hyper_names})
    defaults = {
        "env": "probe_envs:make",
        "num_envs": 8,
        "num_steps": 8,
        "num_epochs": 2,
        "num_minibatches": 4,
        "total_timesteps": 64 * 10,
        "hidden_sizes": (8,),
        "critic_hidden_sizes": (8,),
        "core_size": 8,
        "num_starts": 8,
        "num_evals": 0,
        "eval_blocks": 2,
        "eval_episodes": 4,
    }
    plain = {k: v for k, v in changes.items() if k not in hyper_names}
    return Config(**{**defaults, "hypers": hypers, **plain})


def assert_trees_equal(left: Any, right: Any) -> None:
    """Same structure, same bits; NaN equals NaN."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(_plain(a), _plain(b))


def assert_trees_close(left: Any, right: Any, **tolerance: float) -> None:
    """Same structure, nearly the same numbers; NaN equals NaN."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(_plain(a), _plain(b), **tolerance)


def trees_differ(left: Any, right: Any) -> bool:
    """Whether any leaf differs in any bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return any(not np.array_equal(_plain(a), _plain(b)) for a, b in pairs)


def _plain(x: Any) -> np.ndarray:
    if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)
