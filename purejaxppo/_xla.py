"""Settings of XLA's CPU backend that must be made before JAX starts.

They affect the CPU backend only, and never replace a value that the user has set.
"""

import os

# Two batched LAPACK calls that run at the same time (a batched Cholesky and a batched
# triangular solve, as in an MJX step) deadlock if XLA's CPU client has two threads.
# The client takes the size of its thread pool from NPROC if that variable is set.
_MIN_THREADS = 4


def prepare() -> None:
    """Give XLA's CPU client enough threads. Call this before JAX starts the client."""
    if (os.cpu_count() or 1) < _MIN_THREADS:
        os.environ.setdefault("NPROC", str(_MIN_THREADS))
