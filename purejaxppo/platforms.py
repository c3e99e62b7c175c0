"""The platform that a program is traced for: JAX's own, or one that is not here.

Some choices are made during tracing, such as the engine of the physics or the size of a
group. They ask this module, so that JAX can also lower a program for an accelerator
that this machine does not have.
"""

import contextlib
from collections.abc import Iterator

import jax

PLATFORMS = ("cpu", "cuda", "tpu")

_target: str | None = None


def backend() -> str:
    """Return "cpu", "gpu" or "tpu", the backend that programs are traced for."""
    return jax.default_backend() if _target is None else _target


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """Trace programs for a platform, whether or not it is here.

    Lower them with `jax.jit(f).trace(...).lower(lowering_platforms=(platform,))`. JAX
    keeps traces of inner functions, so all that it keeps is dropped before and after.

    Args:
      platform: one of `PLATFORMS`.
    """
    global _target
    jax.clear_caches()
    before, _target = _target, "gpu" if platform == "cuda" else platform
    try:
        yield
    finally:
        _target = before
        jax.clear_caches()
