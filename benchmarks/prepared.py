"""A configuration made ready to be measured: environment, learner and first state."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from benchmarks.harness.timing import Work
from purejaxppo.config import Config, Hypers
from purejaxppo.env import Env
from purejaxppo.ppo.learner import Learner, make_learner
from purejaxppo.ppo.types import Metrics, TrainState
from purejaxppo.ppo.update import as_arrays
from purejaxppo.run.compiler import Compiler
from purejaxppo.run.progress import Progress


def run_to_end(f: Callable[..., Any], *args: Any) -> Any:
    """Call `f`, and return its results when they are computed."""
    return jax.block_until_ready(f(*args))


def with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """Replace lists, which data files have, by the tuples that `Config` has."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


class Prepared(NamedTuple):
    """A learner, its compiled update, and the state to measure from.

    Attributes:
      compile: keeps the seconds of all that is compiled with it.
      update: (state, hypers) -> (state, metrics).
    """

    learner: Learner
    hypers: Hypers
    compile: Compiler
    update: Callable[..., tuple[TrainState, Metrics]]
    state: TrainState

    task = property(lambda self: self.learner.task)
    env = property(lambda self: self.task.env)
    config = property(lambda self: self.task.config)

    @property
    def has_c_engine(self) -> bool:
        """Whether the environment steps C MuJoCo."""
        return getattr(getattr(self.env, "engine", None), "name", None) == "mujoco"

    def work(self, name: str, f: Callable[..., Any], *args: Any) -> Work:
        """Compile `f`: a call of it that returns when its results are computed."""
        return functools.partial(run_to_end, self.compile(name, f, *args), *args)


def prepare(config: Config, env: Env | None = None) -> Prepared:
    """Compile the update, and make the state that training begins with."""
    learner, hypers = make_learner(config, env), as_arrays(config.hypers)
    key, compile = jax.random.key(0), Compiler(Progress())
    state, _ = compile("init", learner.init, key, hypers)(key, hypers)
    update = compile("update", learner.update, state, hypers)
    return Prepared(learner, hypers, compile, update, state)
