"""The compiled functions of a run: each is compiled once, ahead of its first call.

With several seeds each function is over all of them. An ahead-of-time executable cannot
compile a second time: other shapes are an error.
"""

import itertools
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.custom_batching
import jax.numpy as jnp

from purejaxppo.config import Hypers
from purejaxppo.ppo.learner import Learner, as_arrays
from purejaxppo.ppo.types import Metrics, TrainState
from purejaxppo.run import demonstrations
from purejaxppo.run.progress import Progress
from purejaxppo.run.settings import Settings

MAX_CHUNK = 64  # updates whose metrics one call can return

Ledger = dict[str, dict[str, float]]  # function -> phase -> seconds


def use_compilation_cache() -> None:
    """Keep compiled programs on disk, unless the user has a place of their own.

    Also those that call the C engine: they know it by name, see envs.physics.foreign.
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


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
    """The key of each seed: seed i of many is the run with that seed alone."""
    keys = [jax.random.key(seed + i) for i in range(num_seeds)]
    return jnp.stack(keys) if num_seeds > 1 else keys[0]


def over_seeds(f: Callable[..., Any], num_seeds: int, *axes: int | None) -> Any:
    """`f` over seeds in one program, if there are several.

    On an accelerator side by side. On a CPU one after the other: one seed keeps the
    cores busy, and vmap can be slower than no batching at all (benchmarks/seeds.py).
    And so each seed is to the bit what it is alone.

    Args:
      axes: of each argument 0 where it is of each seed, None where all share it.
    """
    if num_seeds == 1:
        return f
    if jax.default_backend() != "cpu":
        return jax.vmap(f, in_axes=axes)
    # The lambda hides defaults, which it would trace as arguments.
    one_by_one = jax.custom_batching.sequential_vmap(lambda *args: f(*args))
    return jax.vmap(one_by_one, in_axes=axes)


def run_chunk(
    update: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    hypers: Hypers,
    num: jax.Array,
) -> tuple[TrainState, Metrics]:
    """`num` updates, at most MAX_CHUNK; metrics beyond them are zeros.

    The bound is traced on purpose: XLA inlines a loop of one known trip, and could
    then fuse, and so round, otherwise than in the scan of `make_train`.
    """
    update = jax.jit(update)  # traced once, for the shapes and for the loop
    shapes = jax.eval_shape(update, state, hypers)[1]
    empty = jax.tree.map(lambda s: jnp.zeros((MAX_CHUNK, *s.shape), s.dtype), shapes)

    def body(i: jax.Array, carry: tuple[TrainState, Metrics]):
        state, metrics = carry
        state, new = update(state, hypers)
        return state, jax.tree.map(lambda m, x: m.at[i].set(x), metrics, new)

    return jax.lax.fori_loop(0, num, body, (state, empty))


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


def state_shapes(learner: Learner, settings: Settings) -> TrainState:
    """Shapes and dtypes of a run's state, for restoring it: nothing is computed."""
    keys = seed_keys(settings.seed, settings.num_seeds)
    demos = None
    if learner.config.num_demonstrations:  # any number of any length: no state has them
        demos = demonstrations.shapes(learner.env, 1, 1)
    init = over_seeds(learner.init, settings.num_seeds, 0, None, None)
    return jax.eval_shape(init, keys, as_arrays(learner.config.hypers), demos)[0]


def ledger_lines(ledger: Ledger) -> list[str]:
    """The compile ledger as a small table."""
    lines = ["compiled            trace    lower  compile   (seconds)"]
    for name, phases in ledger.items():
        numbers = "".join(f"{phases[p]:9.2f}" for p in ("trace", "lower", "compile"))
        lines.append(f"  {name:<14}{numbers}")
    return lines
