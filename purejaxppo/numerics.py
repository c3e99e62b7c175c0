"""Running code of others, which was not written for how we run it."""

import contextlib
import functools
import io
from typing import Any

import jax
import jax.numpy as jnp


@contextlib.contextmanager
def permissive_numerics():
    """Their ranks and dtypes may be promoted; and TensorFloat-32 is not for physics.

    MuJoCo in JAX multiplies booleans by floats, and would be off by a millimetre.
    """
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        yield


def strongly_typed(x: Any, dtype: Any = None) -> jax.Array:
    """An array of a type of its own: a weak type would compile twice."""
    x = jnp.asarray(x, dtype)
    return jax.lax.convert_element_type(x, x.dtype)


def import_mjx() -> Any:
    """MuJoCo in JAX, with a barrier after apply_to_level level of a tree of bodies on a CPU.

    XLA's CPU backend fuses a kinematic chain into one kernel for each body, and in it
    computes all parents anew, each with its own parents: exponential in the length of
    the chain (jax-ml/jax#33761, google-deepmind/mujoco#2957). A barrier ends that
    wherever MJX is traced. The flag that others switch the fusions off with,
    xla_cpu_use_fusion_emitters, makes PPO's networks slower by a third.
    """
    # It prints that Warp is not installed, which is nobody's fault here.
    with contextlib.redirect_stdout(io.StringIO()):
        from mujoco import mjx
        from mujoco.mjx._src import scan
    if not hasattr(scan._nvmap, "__wrapped__"):
        scan._nvmap = _with_barrier(scan._nvmap)
    return mjx


def _with_barrier(apply_to_level: Any) -> Any:
    """`each`, which MJX applies to a level, with results that nothing is fused into."""

    def add_barrier(result: Any) -> Any:
        # What does not depend on a state is NumPy's, and has to stay so.
        traced = isinstance(result, jax.Array)
        return jax.lax.optimization_barrier(result) if traced else result

    @functools.wraps(apply_to_level)
    def apply_with_barrier(*args: Any) -> Any:
        results = apply_to_level(*args)
        if jax.default_backend() != "cpu":
            return results
        return jax.tree.map(add_barrier, results)

    return apply_with_barrier
