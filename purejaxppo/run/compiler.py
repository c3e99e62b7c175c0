"""The compiled functions of a run: each is compiled once, ahead of its first call.

An ahead-of-time executable cannot compile a second time: other shapes are an error.
"""

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax

from purejaxppo.run.progress import Progress

Ledger = dict[str, dict[str, float]]  # function -> phase -> seconds


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, unless the user has a place of their own.

    Also those that call the C engine: they know it by name, see envs.physics.ffi.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(root) / "purejaxppo"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a convenience: training goes without
    if not os.access(path, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


class Compiler:
    """Compiles ahead of time, shows that it does, and keeps the ledger."""

    def __init__(self, progress: Progress, options: dict[str, Any] | None = None):
        self.progress, self.options, self.ledger = progress, options, Ledger()
        self._thread = ThreadPoolExecutor(1, "compiler")
        self._begun: dict[str, Future[Callable[..., Any]]] = {}

    def __call__(
        self, name: str, f: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()
    ) -> Callable[..., Any]:
        """The executable of `f` for arguments like these."""
        with self.progress.ticking(f"compiling {name}"):
            return self._compile(name, f, args, donate)

    def begin(
        self, name: str, f: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()
    ) -> None:
        """Compile in another thread, one program after the other, for `wait`.

        Programs of the first minute differ and follow one another: while one runs,
        there is a core to compile the next.
        """
        self._begun[name] = self._thread.submit(self._compile, name, f, args, donate)

    def wait(self, name: str) -> Callable[..., Any]:
        """The executable that was begun under that name."""
        begun = self._begun[name]
        if begun.done():
            return begun.result()
        with self.progress.ticking(f"compiling {name}"):
            return begun.result()

    def _compile(
        self, name: str, f: Callable[..., Any], args: Any, donate: tuple[int, ...]
    ) -> Callable[..., Any]:
        jitted = jax.jit(f, donate_argnums=donate, compiler_options=self.options)
        marks = [time.monotonic()]
        traced = jitted.trace(*args)
        marks.append(time.monotonic())
        lowered = traced.lower()
        marks.append(time.monotonic())
        compiled = lowered.compile()
        marks.append(time.monotonic())
        phases = ("trace", "lower", "compile")
        seconds = [b - a for a, b in itertools.pairwise(marks)]
        self.ledger[name] = dict(zip(phases, seconds, strict=True))
        return compiled


def ledger_lines(ledger: Ledger) -> list[str]:
    """The compile ledger as a small table."""
    lines = ["compiled            trace    lower  compile   (seconds)"]
    for name, phases in ledger.items():
        numbers = "".join(f"{phases[p]:9.2f}" for p in ("trace", "lower", "compile"))
        lines.append(f"  {name:<14}{numbers}")
    return lines
