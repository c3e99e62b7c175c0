"""XLA's hazards, handled before JAX starts and never by the user's shell.

What is set here touches XLA's CPU backend alone, and never replaces what the user set.
"""

import os

# Two batched LAPACK calls that may run at once (a batched Cholesky beside a batched
# triangular solve, as in an MJX step) wait for each other for ever when XLA's CPU
# client has two threads. It sizes its pool by NPROC if that is set.
_MIN_THREADS = 4


def prepare() -> None:
    """Give XLA's CPU client enough threads; before it starts."""
    if (os.cpu_count() or 1) < _MIN_THREADS:
        os.environ.setdefault("NPROC", str(_MIN_THREADS))
