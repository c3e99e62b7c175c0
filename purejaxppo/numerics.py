"""Numeric settings for code of other libraries, such as MuJoCo's, distrax and Brax."""

import contextlib
import functools
import io
from typing import Any

import jax
import jax.numpy as jnp

from purejaxppo import platforms


@contextlib.contextmanager
def permissive_numerics():
    """Allow dtype and rank promotion, and multiply matrices in full float32.

    MuJoCo in JAX multiplies booleans by floats, for example. With TensorFloat-32 its
    positions would be wrong by up to a millimetre.
    """
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        yield


def strongly_typed(x: Any, dtype: Any = None) -> jax.Array:
    """Convert to an array without weak type, which would cause a second compilation."""
    x = jnp.asarray(x, dtype)
    return jax.lax.convert_element_type(x, x.dtype)


def import_mjx() -> Any:
    """Import MuJoCo's MJX, patched to compile in reasonable time on a CPU.

    XLA's CPU backend fuses a kinematic chain into one kernel per body, in which it
    computes all parents again. The cost is exponential in the length of the chain
    (jax-ml/jax#33761, google-deepmind/mujoco#2957). The patch puts an optimisation
    barrier after each level of the tree of bodies, which prevents the fusion. The
    alternative, disabling xla_cpu_use_fusion_emitters, makes PPO's networks slower by a
    third.
    """
    # The import prints a message if Warp is not installed, which is not an error.
    with contextlib.redirect_stdout(io.StringIO()):
        from mujoco import mjx
        from mujoco.mjx._src import scan
    if not hasattr(scan._nvmap, "__wrapped__"):
        scan._nvmap = _with_barrier(scan._nvmap)
    return mjx


def _with_barrier(apply_to_level: Any) -> Any:
    """Wrap MJX's function for one level of bodies in an optimisation barrier."""

    def add_barrier(result: Any) -> Any:
        # Results that do not depend on the state are NumPy arrays and must stay so.
        traced = isinstance(result, jax.Array)
        return jax.lax.optimization_barrier(result) if traced else result

    @functools.wraps(apply_to_level)
    def apply_with_barrier(*args: Any) -> Any:
        results = apply_to_level(*args)
        if platforms.backend() != "cpu":
            return results
        return jax.tree.map(add_barrier, results)

    return apply_with_barrier
