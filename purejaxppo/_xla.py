"""XLA's hazards, handled before JAX starts and never by the user's shell.

Both settings only touch XLA's CPU backend. They are added to what the user set and
never replace it.
"""

import importlib.metadata
import os
import sys
import warnings

# Two batched LAPACK calls that may run at once (a batched Cholesky beside a batched
# triangular solve, as in an MJX step) wait for each other for ever when XLA's CPU
# client has two threads. It sizes its pool by NPROC if that is set.
_MIN_THREADS = 4

# XLA's fusion emitters recompute a kinematic chain once per descendant: exponential
# in its length (jax-ml/jax#33761, google-deepmind/mujoco#2957). For everything but
# MJX they are the faster choice, by a sixth on PPO's networks, so they stay on else.
# From jaxlib 0.11 on XLA has neither the fault nor the flag, and a flag that it does
# not know ends the process.
_EMITTERS = "xla_cpu_use_fusion_emitters"
_JAXLIB = tuple(int(n) for n in importlib.metadata.version("jaxlib").split(".")[:2])
MJX_COMPILER_OPTIONS = {_EMITTERS: False} if _JAXLIB < (0, 11) else {}


def prepare() -> None:
    """Give XLA's CPU client enough threads; before it starts."""
    if (os.cpu_count() or 1) < _MIN_THREADS:
        os.environ.setdefault("NPROC", str(_MIN_THREADS))


def prepare_mjx() -> None:
    """Switch fusion emitters off, as long as XLA has not read its flags.

    Afterwards only `jax.jit(..., compiler_options=MJX_COMPILER_OPTIONS)` does it; the
    command line passes that, and anyone else is warned.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _EMITTERS in flags or not MJX_COMPILER_OPTIONS:
        return
    if _backend_started():
        if sys.modules["jax"].default_backend() == "cpu":
            warnings.warn(
                "JAX had started before the mjx engine was made: pass "
                f"compiler_options={MJX_COMPILER_OPTIONS} to jax.jit, or stepping is "
                "slower by orders of magnitude",
                stacklevel=3,
            )
        return
    os.environ["XLA_FLAGS"] = f"{flags} --{_EMITTERS}=false".strip()


def _backend_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()
