"""Ahead-of-time compilation of the functions of a run.

An executable that is compiled ahead of time raises an error when it is called with
other shapes, so that no function is compiled twice unnoticed.
"""

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar, TypeVarTuple, cast

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purejaxppo.run.progress import Progress

Ledger = dict[str, dict[str, float]]  # function -> phase -> seconds
Args = TypeVarTuple("Args")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

_PHASES = ("trace", "lower", "compile")


class Executable(Protocol[*Args, Result_co]):
    """A compiled function, with the methods of `jax.stages.Compiled`."""

    @property
    def out_info(self) -> Result_co:
        """The result with shapes and dtypes in place of arrays."""
        ...

    def __call__(self, *args: *Args) -> Result_co: ...


class Program(NamedTuple, Generic[*Args, Result]):
    """A function whose compilation was started, and the future executable."""

    name: str
    future: Future[Executable[*Args, Result]]


def use_compilation_cache() -> None:
    """Enable JAX's persistent compilation cache, unless the user has configured it.

    Programs that call the C engine are cached too, see `envs.physics.ffi`.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(root) / "purejaxppo"
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return  # training works without the cache
    if not os.access(path, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


class Compiler:
    """Compiles functions ahead of time, and shows and records the time that it takes.

    Attributes:
      ledger: function -> phase (trace, lower, compile) -> seconds.
    """

    def __init__(self, progress: Progress, mesh: Mesh | None = None):
        """Prepare to compile.

        Args:
          progress: shows what is compiled.
          mesh: the devices of the programs; None for one device.
        """
        self.ledger = Ledger()
        self._progress, self._mesh = progress, mesh
        self._thread = ThreadPoolExecutor(1, "compiler")

    def __call__(
        self,
        name: str,
        function: Callable[[*Args], Result],
        *args: *Args,
        donate: tuple[int, ...] = (),
    ) -> Executable[*Args, Result]:
        """Compile a function and wait for the executable.

        Args:
          name: name of the function, on screen and in the ledger.
          function: a pure function of trees of arrays.
          args: arguments, or `jax.ShapeDtypeStruct`s in their place. On a mesh those
            without a sharding over it are the same on all devices.
          donate: positions of the arguments whose buffers the result may reuse.
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
        """Start to compile a function in a thread; `wait` returns the executable.

        The thread compiles one program at a time, while the main thread runs another.

        Args:
          name, function, args, donate: see `__call__`.
        """
        future = self._thread.submit(self._compile, name, function, args, donate)
        return Program(name, cast(Future[Executable[*Args, Result]], future))

    def wait(self, program: Program[*Args, Result]) -> Executable[*Args, Result]:
        """Wait for the executable of a program that `begin` started to compile."""
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
        jitted = jax.jit(function, donate_argnums=donate)
        times = [time.monotonic()]
        shapes = jax.tree.map(lambda x: _shape(x, self._mesh), args)
        traced = jitted.trace(*shapes)
        times.append(time.monotonic())
        lowered = traced.lower()
        times.append(time.monotonic())
        compiled = lowered.compile()
        times.append(time.monotonic())
        seconds = [b - a for a, b in itertools.pairwise(times)]
        self.ledger[name] = dict(zip(_PHASES, seconds, strict=True))
        return cast(Executable[*Args, Result], compiled)


def _shape(
    x: jax.Array | jax.ShapeDtypeStruct, mesh: Mesh | None
) -> jax.ShapeDtypeStruct:
    """Return shape and dtype of an array, and on a mesh how it is sharded.

    On one device its sharding is left out, because it is part of the key of the
    compilation cache: a state that was computed has one, a restored state has none, and
    a resumed run would compile all programs a second time.
    """
    weak_type = getattr(x, "weak_type", False)
    sharding = getattr(x, "sharding", None)
    if mesh is None:
        sharding = None
    elif not (isinstance(sharding, NamedSharding) and sharding.mesh == mesh):
        sharding = NamedSharding(mesh, PartitionSpec())
    return jax.ShapeDtypeStruct(
        x.shape, x.dtype, sharding=sharding, weak_type=weak_type
    )


def ledger_lines(ledger: Ledger) -> list[str]:
    """Format the ledger as a table, one line per function."""
    lines = ["compiled            trace    lower  compile   (seconds)"]
    for name, seconds in ledger.items():
        numbers = "".join(f"{seconds[phase]:9.2f}" for phase in _PHASES)
        lines.append(f"  {name:<14}{numbers}")
    return lines
