"""What several tests share: XLA's options, small configurations, comparisons."""

import dataclasses
import json
import runpy
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxppo.config import Config, Hypers
from purejaxppo.run import checkpoint, files, process

# Option of XLA -> its default, and the value with which programs compile in a third of
# the time. Those of tests run once, on small arrays: slower code costs them nothing.
_OPTIONS: dict[str, tuple[int | bool, int | bool]] = {
    "xla_backend_optimization_level": (3, 0),
    "xla_cpu_parallel_codegen_split_count": (32, 1),
}
if version("jaxlib") < "0.11":  # from there on XLA refuses the flag
    _OPTIONS["xla_cpu_use_fusion_emitters"] = (True, False)
QUICK_FLAGS = " ".join(f"--{n}={str(x).lower()}" for n, (_, x) in _OPTIONS.items())

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def users_jit(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """`jax.jit` with XLA's own options, as in a user's process: for comparing bits."""
    defaults = {name: default for name, (default, _) in _OPTIONS.items()}
    return jax.jit(function, compiler_options=defaults)


def small_config(**changes: object) -> Config:
    """A configuration that compiles and runs in seconds; Hypers by plain name.

    Without statistics of observations, for which a rollout is compiled twice.
    """
    hyper_names = {field.name for field in dataclasses.fields(Hypers)}
    hyper_changes = {k: v for k, v in changes.items() if k in hyper_names}
    hypers = dataclasses.replace(Hypers(), **hyper_changes)
    defaults = {
        "env": "probe_envs:make",
        "num_envs": 8,
        "num_steps": 8,
        "num_epochs": 2,
        "num_minibatches": 4,
        "total_timesteps": 64 * 10,
        "hidden_sizes": (8,),
        "critic_hidden_sizes": (8,),
        "core_size": 8,
        "num_starts": 8,
        "normalize_observations": "off",
        "num_evals": 0,
        "eval_blocks": 2,
        "eval_episodes": 4,
    }
    plain = {k: v for k, v in changes.items() if k not in hyper_names}
    return dataclasses.replace(Config(), **{**defaults, "hypers": hypers, **plain})


def assert_trees_equal(left: object, right: object) -> None:
    """Same structure, same bits; NaN equals NaN."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(_to_numpy(a), _to_numpy(b))


def assert_trees_close(
    left: object, right: object, *, rtol: float = 1e-7, atol: float = 0.0
) -> None:
    """Same structure, nearly the same numbers; NaN equals NaN.

    Args:
      left: a tree.
      right: a tree.
      rtol: relative tolerance.
      atol: absolute tolerance.
    """
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(_to_numpy(a), _to_numpy(b), rtol, atol)


def trees_differ(left: object, right: object) -> bool:
    """Whether any leaf differs in any bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return any(not np.array_equal(_to_numpy(a), _to_numpy(b)) for a, b in pairs)


def _to_numpy(x: object) -> np.ndarray:
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x)


# A run of 6 updates, a checkpoint every 2: see the fixture `tiny_run`.
TINY = (
    "--env probe_envs:make --env-kwargs kind=observation continuous=True "
    "--num-envs 4 --num-steps 8 --num-minibatches 2 --num-epochs 2 "
    "--total-timesteps 192 --hidden-sizes 8 --critic-hidden-sizes 8 --reset fresh "
    "--num-evals 2 --eval-episodes 4 --no-tensorboard --no-report --checkpoint-every 2 "
    "--chunk-updates 1"
).split()


def forget_checksum(run: Path) -> None:
    """The run as versions wrote it that recorded no checksum of config.json."""
    for step in checkpoint.steps(run / "checkpoints"):
        path = run / "checkpoints" / f"{step:08d}"
        meta = json.loads((path / "meta.json").read_text())
        meta["metadata"].pop("config", None)
        content = json.dumps(meta).encode()
        (path / "meta.json").write_bytes(content)
        (path / "done").write_text(files.checksum(content))


def run_command(module: str, *arguments: str) -> int:
    """Run a command as `python -m` does, but in this process; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *arguments])
        # They handle signals for the whole process, and end it.
        patch.setattr(process, "end_on_signals", lambda: None)
        patch.setattr(process, "run", lambda main: sys.exit(main()))
        with pytest.raises(SystemExit) as info:
            runpy.run_module(module, run_name="__main__")
    assert isinstance(info.value.code, int)
    return info.value.code
