"""The compiled functions of a run: each is compiled once, ahead of its first call.

An ahead-of-time executable cannot compile a second time: other shapes are an error.
"""

import itertools
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar, TypeVarTuple, cast

import jax

from purejaxppo.run.progress import Progress

Ledger = dict[str, dict[str, float]]  # function -> phase -> seconds
Args = TypeVarTuple("Args")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

_PHASES = ("trace", "lower", "compile")


class Executable(Protocol[*Args, Result_co]):
    """A compiled function, as `jax.stages.Compiled` has it."""

    @property
    def out_info(self) -> Result_co:
        """Its result with shapes and dtypes in place of arrays."""
        ...

    def __call__(self, *args: *Args) -> Result_co: ...


class Program(NamedTuple, Generic[*Args, Result]):
    """A function that is being compiled, or has been."""

    name: str
    future: Future[Executable[*Args, Result]]


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
    """Compiles ahead of time, shows that it does, and records what it took.

    Attributes:
      ledger: function -> phase (trace, lower, compile) -> seconds.
    """

    def __init__(
        self, progress: Progress, options: Mapping[str, bool | int] | None = None
    ):
        self.ledger = Ledger()
        self._progress, self._options = progress, dict(options) if options else None
        self._thread = ThreadPoolExecutor(1, "compiler")

    def __call__(
        self,
        name: str,
        function: Callable[[*Args], Result],
        *args: *Args,
        donate: tuple[int, ...] = (),
    ) -> Executable[*Args, Result]:
        """Compile and wait for it.

        Args:
          name: of the function, on screen and in the ledger.
          function: pure, of arrays and trees of them.
          args: arguments, or `jax.ShapeDtypeStruct`s in their place.
          donate: positions of the arguments whose memory the result may take over.
        """
        with self._progress.phase(f"compiling {name}"):
            return self._compile(name, function, args, donate)

    def begin(
        self,
        name: str,
        function: Callable[[*Args], Result],
        *args: *Args,
        donate: tuple[int, ...] = (),
    ) -> Program[*Args, Result]:
        """Compile in another thread, one program after the other, for `wait`.

        The programs of the first minute differ and run one after the other: while one
        runs, there is a core to compile the next.

        Args:
          name, function, args, donate: see `__call__`.
        """
        work = self._thread.submit(self._compile, name, function, args, donate)
        return Program(name, cast(Future[Executable[*Args, Result]], work))

    def wait(self, program: Program[*Args, Result]) -> Executable[*Args, Result]:
        """The executable of a program that was begun."""
        if program.future.done():
            return program.future.result()
        with self._progress.phase(f"compiling {program.name}"):
            return program.future.result()

    def _compile(
        self,
        name: str,
        function: Callable[[*Args], Result],
        args: tuple[*Args],
        donate: tuple[int, ...],
    ) -> Executable[*Args, Result]:
        jitted = jax.jit(
            function, donate_argnums=donate, compiler_options=self._options
        )
        times = [time.monotonic()]
        traced = jitted.trace(*args)
        times.append(time.monotonic())
        lowered = traced.lower()
        times.append(time.monotonic())
        compiled = lowered.compile()
        times.append(time.monotonic())
        seconds = [b - a for a, b in itertools.pairwise(times)]
        self.ledger[name] = dict(zip(_PHASES, seconds, strict=True))
        return cast(Executable[*Args, Result], compiled)


def ledger_lines(ledger: Ledger) -> list[str]:
    """The compile ledger as a small table."""
    lines = ["compiled            trace    lower  compile   (seconds)"]
    for name, seconds in ledger.items():
        numbers = "".join(f"{seconds[phase]:9.2f}" for phase in _PHASES)
        lines.append(f"  {name:<14}{numbers}")
    return lines
