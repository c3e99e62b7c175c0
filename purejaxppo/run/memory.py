"""A lower bound of the memory that a configuration needs, compared with the machine's.

Only arrays that exist in any case are counted, so that no configuration is refused that
would fit. Nothing is computed: sizes are those of `jax.eval_shape`.
"""

import math
import os
from pathlib import Path
from typing import Any

import jax

from purejaxppo.config import value_of
from purejaxppo.env import State
from purejaxppo.errors import ConfigError
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Policy
from purejaxppo.ppo.learner import Learner
from purejaxppo.run.options import Options

# The limits of a container, of control groups of version 2 and 1.
_LIMITS = (
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_ADAM = 3  # copies of the parameters: themselves and two moments


def check_memory(learner: Learner, options: Options, num_devices: int = 1) -> None:
    """Compare the memory that a run needs at least with the memory of its devices.

    Args:
      learner: the learner of the run.
      options: the number of seeds.
      num_devices: the number of devices that share the arrays.

    Raises:
      ConfigError: it does not fit; the error names the fields of the largest part.
    """
    config = learner.task.config
    # Devices have memory of their own, unless they are threads of one processor.
    several = 1 if jax.default_backend() == "cpu" else num_devices
    needed, available = _needed(learner, options), several * _available()
    total = sum(needed.values())
    if total <= available:
        return
    fields = max(needed, key=lambda name: needed[name])
    if options.num_seeds > 1 and total <= available * options.num_seeds:
        fields = "num_seeds"
    values = [
        options.num_seeds if name == "num_seeds" else value_of(config, name)
        for name in fields.split(", ")
    ]
    raise ConfigError(
        fields,
        values[0] if len(values) == 1 else tuple(values),
        f"what fits into {_gigabytes(available)} of memory; this configuration needs "
        f"at least {_gigabytes(total)}",
    )


def _needed(learner: Learner, options: Options) -> dict[str, int]:
    """Return fields -> bytes of the arrays whose sizes they determine."""
    config, env = learner.task.config, learner.task.env
    state = jax.eval_shape(env.reset, jax.random.key(0))
    stored = (state.obs, state.action_mask, state.active, state.reward)
    sample = _bytes((*stored, state.terminated, state.truncated))
    episode = env.spec.max_episode_steps or 1
    seeds = options.num_seeds
    # Seeds run one after the other on a CPU, see `seeds.map_over_seeds`.
    parallel = 1 if jax.default_backend() == "cpu" else seeds
    copies = _ADAM + config.anchor
    networks = "hidden_sizes, critic_hidden_sizes, core_size"
    needed = {
        "num_envs": seeds * config.num_envs * _bytes(state),
        "num_envs, num_steps": parallel * config.batch_size * sample,
        networks: seeds * copies * _parameter_bytes(learner.task.policy, state),
        "eval_episodes, eval_blocks": (
            config.eval_episodes * config.eval_blocks * _bytes(state)
        ),
    }
    if config.reset == "pool":
        needed["num_starts"] = parallel * config.num_starts * _bytes(state)
    if config.num_demonstrations:
        demonstrations = config.num_demonstrations * episode * sample
        needed["num_demonstrations"] = seeds * demonstrations
        needed["cloning_batch"] = parallel * config.cloning_batch * sample
    return needed


def _parameter_bytes(policy: Policy, state: State) -> int:
    """Return the bytes of the networks, from the shapes of one environment's state."""

    def batched(tree: object) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), tree
        )

    inputs = PolicyInput(
        obs=batched(state.obs),
        start=batched(state.terminated),
        action_mask=batched(state.action_mask),
        active=batched(state.active),
    )
    return _bytes(jax.eval_shape(policy.init, jax.random.key(0), inputs))


def _bytes(tree: object) -> int:
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)
    )


def _available() -> float:
    """Return the memory of the device in bytes; infinite if it is unknown."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit", math.inf)
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMITS:
        try:
            known.append(int(Path(name).read_text()))
        except (OSError, ValueError):  # not in a container, or "max"
            continue
    return min(known)


def _gigabytes(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
