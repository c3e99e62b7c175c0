"""A trained policy as plain arrays and metadata; numpy_policy.py has the format."""

import io
import json
from typing import NamedTuple, cast

import jax
import numpy as np
from flax.typing import Collection

from purejaxppo import __version__
from purejaxppo.config import DISTRIBUTIONS, TRUNKS, Config
from purejaxppo.env import Box, Choice, Custom, Discrete, EnvSpec, Head, Obs, State
from purejaxppo.errors import ConfigError
from purejaxppo.export.numpy_policy import FORMAT
from purejaxppo.policy.networks import head_parameters, part_of
from purejaxppo.ppo import normalize
from purejaxppo.run.trained import TrainedPolicy

Arrays = dict[str, np.ndarray]
Metadata = dict[str, object]

_GRU_GATES = (("ir", "hr"), ("iz", "hz"), ("in", "hn"))
_NORM_EPSILON = 1e-6  # of flax's LayerNorm


class Exported(NamedTuple):
    """A policy to write: metadata and float32 arrays, as in the file."""

    metadata: Metadata
    arrays: Arrays


def refuse_factories(config: Config) -> None:
    """Check that a configuration's hidden layers and continuous heads can be exported.

    Raises:
      ConfigError: hidden layers or distribution are a user's.
    """
    for field, own in (("distribution", DISTRIBUTIONS), ("trunk", TRUNKS)):
        if (value := getattr(config, field)) not in own:
            allowed = f"one of {', '.join(own)} in a run that is exported"
            raise ConfigError(field, value, allowed)


def _refuse_custom_heads(spec: EnvSpec) -> None:
    for name, head in spec.heads.items():
        if isinstance(head, Custom):
            allowed = "a Box, Discrete or Choice head in a run that is exported"
            raise ConfigError(f"heads.{name}", head.distribution, allowed)


def export(policy: TrainedPolicy, origin: Metadata) -> Exported:
    """Collect what it takes to run a policy without JAX.

    Args:
      policy: the policy.
      origin: where it is from, for the metadata.

    Raises:
      ConfigError: a head or a distribution has no form outside of JAX.
    """
    task = policy.learner.task
    config, spec = task.config, task.env.spec
    refuse_factories(config)
    _refuse_custom_heads(spec)
    parameters = jax.device_get(policy.state.params.policy)
    arrays = _normaliser(policy) | _trunk(parameters["actor"], config)
    for name, head in spec.heads.items():
        output = head_parameters(parameters, name)
        layer = output["mean" if isinstance(head, Box) else "logits"]
        arrays |= _named(f"heads/{name}", layer)
    start = jax.eval_shape(task.env.reset, jax.random.key(0))
    metadata: Metadata = {
        "format": FORMAT,
        **_origin(policy),
        **origin,
        **_network(config),
        "obs_size": part_of(start.obs, "actor").shape[-1],
        "heads": [_describe(n, head, start, config) for n, head in spec.heads.items()],
    }
    return Exported(metadata, {n: np.asarray(x, np.float32) for n, x in arrays.items()})


def _origin(policy: TrainedPolicy) -> Metadata:
    config, spec = policy.learner.task.config, policy.learner.task.env.spec
    return {
        "purejaxppo": __version__,
        "env": config.env,
        "env_kwargs": config.env_kwargs,
        "env_version": spec.version,
        "action_repeat": spec.action_repeat,
        "max_episode_steps": spec.max_episode_steps,
        "update": policy.update,
        "steps": policy.update * config.batch_size,
    }


def _network(config: Config) -> Metadata:
    return {
        "obs_clip": normalize.MAX_NORMALIZED,
        "activation": config.activation,
        "num_hidden": len(config.hidden_sizes),
        "core": config.core,
        "core_size": config.core_size,
        "norm_epsilon": _NORM_EPSILON,
    }


def _describe(name: str, head: Head, start: State, config: Config) -> Metadata:
    """Describe a head; `start` holds the shapes of a state's masks."""
    mask = start.action_mask.get(name)
    if isinstance(head, Box):
        squash = "none" if config.distribution == "normal" else "tanh"
        own: Metadata = {"kind": "box", "size": head.size, "squash": squash}
    elif isinstance(head, Choice):
        own = {"kind": "choice", "n": head.n, "k": head.k}
    else:
        assert isinstance(head, Discrete)
        when = None if head.active_when is None else [*head.active_when]
        own = {"kind": "discrete", "n": head.n, "parent": head.parent}
        own["active_when"] = when
    own["mask"] = None if mask is None or isinstance(head, Box) else [*mask.shape]
    return {"name": name, **own, "active": name in start.active}


def _normaliser(policy: TrainedPolicy) -> Arrays:
    stats = policy.state.obs_stats
    if stats is None:
        return {}
    mean, std = cast(Obs, stats.mean), cast(Obs, normalize.std(stats))
    return {"obs/mean": _actors(mean), "obs/std": _actors(std)}


def _actors(obs: Obs) -> np.ndarray:
    return np.asarray(part_of(obs, "actor"))


def _named(name: str, layer: Collection) -> Arrays:
    return {f"{name}/{part}": layer[part] for part in layer}


def _trunk(actor: Collection, config: Config) -> Arrays:
    """Name the arrays of hidden layers and core."""
    arrays: Arrays = {}
    for index in range(len(config.hidden_sizes)):
        arrays |= _named(f"hidden/{index}", actor[f"Dense_{index}"])
    if config.core == "none":
        return arrays
    core = actor["core"]
    gates = _lstm(core["_Lstm_0"]) if config.core == "lstm" else _gru(core["GRUCell_0"])
    return arrays | gates | _named("core/norm", core["LayerNorm_0"])


def _lstm(cell: Collection) -> Arrays:
    """Name the arrays of an LSTM; its forget bias becomes part of the gates' bias."""
    size = cell["forget_bias"].shape[0]
    bias = np.array(cell["input"]["bias"])
    bias[size : 2 * size] += cell["forget_bias"]
    return {
        "core/input/kernel": cell["input"]["kernel"],
        "core/input/bias": bias,
        "core/hidden/kernel": cell["hidden"]["kernel"],
        "core/hidden/bias": np.zeros_like(bias),
    }


def _gru(cell: Collection) -> Arrays:
    """Name the arrays of a GRU, the layers of its three gates side by side."""
    zeros = np.zeros_like(cell["hn"]["bias"])
    inputs = [cell[name] for name, _ in _GRU_GATES]
    hidden = [cell[name] for _, name in _GRU_GATES]
    return {
        "core/input/kernel": np.concatenate([x["kernel"] for x in inputs], axis=1),
        "core/input/bias": np.concatenate([x["bias"] for x in inputs]),
        "core/hidden/kernel": np.concatenate([x["kernel"] for x in hidden], axis=1),
        "core/hidden/bias": np.concatenate([x.get("bias", zeros) for x in hidden]),
    }


def to_npz(exported: Exported) -> bytes:
    """Return the content of the .npz file."""
    stream = io.BytesIO()
    metadata = np.array(json.dumps(exported.metadata))
    # Neither pickles: strings and float32 are plain arrays.
    np.savez(stream, allow_pickle=False, metadata=metadata, **exported.arrays)
    return stream.getvalue()
