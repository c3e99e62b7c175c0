"""What `test_mesh` measures, in a process that has four devices; prints JSON.

The devices are threads of one CPU, which XLA makes where XLA_FLAGS asks for them. A
program of four devices takes long to compile, so `test_mesh` compares the environments
of `TESTED` alone. All of them:

    XLA_FLAGS=--xla_force_host_platform_device_count=4 PYTHONPATH=.:tests \
        python tests/mesh_worker.py EMPTY_FOLDER cartpole hammer lifecycle deck
"""

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from helpers import small_config

from purejaxppo import train, trees
from purejaxppo.config import Config
from purejaxppo.errors import ConfigError
from purejaxppo.ppo.learner import make_learner, make_train
from purejaxppo.ppo.mesh import make_mesh
from purejaxppo.run import arrays, checkpoint
from purejaxppo.run.arrays import Arrays

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

NUM_UPDATES = 8
_SHAPE: dict[str, Any] = {
    "num_envs": 16,
    "num_steps": 4,
    "num_minibatches": 2,
    "total_timesteps": 64 * NUM_UPDATES,
}
CONFIGS = {
    "cartpole": small_config(
        **_SHAPE,
        env="gymnax:CartPole-v1",
        normalize_observations="running",
        normalize_rewards=True,
        num_evals=1,
        eval_episodes=3,  # 6 in all, which four devices share unequally
    ),
    "hammer": small_config(
        **_SHAPE,
        env="hammer",
        reset="fresh",
        num_demonstrations=2,
        cloning_steps=4,
        cloning_batch=8,
        normalize_observations="fixed",
        critic_warmup=1,
        anchor=True,
        kl_coef=0.1,
        num_epochs=1,
    ),
    "lifecycle": small_config(
        **_SHAPE,
        env="lifecycle",
        reset="cached",
        core="gru",
        num_epochs=1,
        accumulate_gradients=True,
    ),
    "deck": small_config(**_SHAPE, env="deck", accumulate_gradients=True),
}
TESTED = ("cartpole", "hammer", "lifecycle")


# --- agreement ----------------------------------------------------------------------


def key(seed: int = 3) -> jax.Array:
    """Return a key; made when asked for, as processes are joined before any array."""
    return jax.random.key(seed)


def trained(config: Config, num_devices: int) -> Arrays:
    """Return the last parameters, and the metrics, of a training on so many devices."""
    mesh = None if num_devices == 1 else make_mesh(num_devices)
    state, metrics = jax.jit(make_train(config, mesh=mesh))(key())
    return arrays.flatten({"params": state.params, "metrics": metrics})


def difference(one: Arrays, other: Arrays, prefix: str) -> float:
    """Return the largest difference of arrays, relative to their largest number."""
    assert one.keys() == other.keys()
    found = []
    for name in (name for name in one if name.startswith(prefix)):
        x, y = one[name], other[name]
        assert (x.shape, x.dtype) == (y.shape, y.dtype), name
        found.append(float(np.max(np.abs(x - y)) / (np.max(np.abs(x)) or 1.0)))
    return max(found)


def agreement(name: str) -> dict[str, Any]:
    """Compare trainings on several devices, and of several seeds, with one device."""
    config = CONFIGS[name]
    one = trained(config, 1)
    if name != "cartpole":
        return {"4": compared(one, trained(config, 4))}
    both = jax.make_mesh((2, 2), ("seeds", "envs"))
    seeds = {
        "all devices for each": jax.vmap(make_train(config, mesh=make_mesh(4))),
        "two devices for each": jax.vmap(
            make_train(config, mesh=both), spmd_axis_name="seeds"
        ),
    }
    keys = jnp.stack([key(), key(4)])
    found = {}
    for which, train_seeds in seeds.items():
        state, metrics = trees.take(jax.jit(train_seeds)(keys), 0)
        several = arrays.flatten({"params": state.params, "metrics": metrics})
        found[which] = compared(one, several)
    return found


def compared(one: Arrays, several: Arrays) -> dict[str, Any]:
    """Compare the results of `trained`; counts are given as they are."""

    def metric(of: Arrays, name: str) -> list[float]:
        return of[f"['metrics']['{name}']"].tolist()

    known = [name for name in COUNTS if f"['metrics']['{name}']" in one]
    return {
        "params": difference(one, several, "['params']"),
        "ratio_error": max(metric(several, "ratio/first_minibatch_error")),
        "counts": {n: [metric(one, n), metric(several, n)] for n in known},
    }


# Figures that count samples, units or episodes of all devices: they are equal.
COUNTS = (
    "train/distinct_starts",
    "train/episodes",
    "train/terminated",
    "policy/dead_units",
    "policy/saturated_units",
    "obs/spikes",
    "update/minibatches",
    "eval/mean_return",
    "eval/min_block_return",
    "eval/start",
)


# --- collectives, errors ------------------------------------------------------------


_COLLECTIVES = ("psum", "pmax", "pmin", "all_gather", "ppermute", "all_to_all")


def collectives(jaxpr: Any, depth: int = 0) -> list[tuple[int, str]]:
    """Return the calls between devices in a program, with the loops around each."""
    found = []
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name.startswith(_COLLECTIVES):
            found.append((depth, name))
        inside = depth + (name in ("scan", "while"))
        for inner in jax.core.jaxprs_in_params(equation.params):
            found += collectives(inner, inside)
    return found


def loops() -> dict[str, list[str]]:
    """Trace an update: loop depth -> the calls between devices there."""
    config = dataclasses.replace(
        CONFIGS["cartpole"], env="probe_envs:make", num_epochs=2
    )
    learner = make_learner(config, mesh=make_mesh(2))
    state = jax.eval_shape(learner.init, key())[0]
    found = collectives(jax.make_jaxpr(learner.update)(state).jaxpr)
    return {str(d): sorted(n for at, n in found if at == d) for d in range(4)}


def sentences() -> dict[str, str]:
    """Collect what is said about numbers of devices and meshes that do not fit."""
    found = {}
    meshes = {"three": make_mesh(3), "axis": make_mesh(2, "data")}
    for name, mesh in meshes.items():
        try:
            make_train(small_config(), mesh=mesh)
        except ConfigError as error:
            found[name] = str(error)
    return found


# --- runs ---------------------------------------------------------------------------

FLAGS = (
    "--env probe_envs:make --env-kwargs kind=observation continuous=True --num-envs 8 "
    "--num-steps 4 --num-minibatches 2 --num-epochs 2 --hidden-sizes 8 "
    "--critic-hidden-sizes 8 --total-timesteps 192 --num-evals 1 --eval-episodes 2 "
    "--reset pool --normalize-rewards --num-starts 8 --no-tensorboard --no-report "
    "--checkpoint-every 2 --checkpoint-seconds inf"
).split()
LAST = 6


def state_of(run: Path) -> Arrays:
    """Return the arrays after the last update of a run."""
    return checkpoint.read(run / "checkpoints", LAST)[0]


def killed(run: Path, path: Path) -> Path:
    """Copy a run as it was after two updates."""
    shutil.copytree(run, path)
    (path / "summary.json").unlink()
    checkpoint.discard_after(path / "checkpoints", 2)
    return path


def command(*flags: str) -> None:
    assert train.main(list(flags)) == 0, flags


def runs(root: Path) -> dict[str, Any]:
    """Train on two devices, and resume on two, one and four."""
    first = root / "first"
    command(*FLAGS, "--run-dir", str(first), "--num-devices", "2")
    expected, found = state_of(first), {}
    for num in (2, 1, 4):
        path = killed(first, root / f"on{num}")
        words = ("--env", "probe_envs:make", "--num-devices", str(num))
        command("--resume", str(path), *words)
        resumed = state_of(path)
        found[str(num)] = {
            "bits": all(np.array_equal(expected[n], resumed[n]) for n in expected),
            "params": difference(expected, resumed, ".params"),
        }
    return found


def seeds(root: Path, first: Arrays) -> float:
    """Train two seeds on a device each; compare the first of them with that run."""
    path = root / "seeds"
    command(*FLAGS, "--run-dir", str(path), "--num-seeds", "2", "--num-devices", "2")
    own = {n: x[0] if n.startswith(".params") else x for n, x in state_of(path).items()}
    return difference(first, own, ".params")


# --- processes ----------------------------------------------------------------------


def shared() -> str:
    """Train on two devices, of whichever processes; return a digest of the policy."""
    config = small_config(env_kwargs={"kind": "observation"}, total_timesteps=64 * 4)
    state, _ = jax.jit(make_train(config, mesh=make_mesh(2)))(key())
    return arrays.digest(jax.tree.map(lambda x: x.addressable_data(0), state.params))


def main(root: Path, names: Sequence[str]) -> dict[str, Any]:
    """Measure everything; `root` is an empty folder for runs, `names` of `CONFIGS`."""
    return {
        "devices": jax.device_count(),
        "loops": loops(),
        "sentences": sentences(),
        "shared": shared(),
        "runs": runs(root),
        "seeds": seeds(root, state_of(root / "first")),
        **{name: agreement(name) for name in names},
    }


if __name__ == "__main__":
    where, *words = sys.argv[1:]
    if words[:1] == ["process"]:  # one of two: the address of the first, its own number
        jax.distributed.initialize(where, 2, int(words[1]))
        print(shared())
    else:
        print(json.dumps(main(Path(where), words or TESTED)))
