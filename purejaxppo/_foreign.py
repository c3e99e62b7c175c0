"""Running code of others, which was not written for strict numerics."""

import contextlib

import jax


@contextlib.contextmanager
def foreign_numerics():
    """Their ranks and dtypes may be promoted; and TensorFloat-32 is not for physics.

    MuJoCo in JAX multiplies booleans by floats, and would be off by a millimetre.
    """
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.default_matmul_precision("highest"),
    ):
        yield
