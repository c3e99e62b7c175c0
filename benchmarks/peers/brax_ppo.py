"""Brax's PPO as a worker (see `worker`), on Brax's environments and on ours.

Its `train` runs as it is up to its first training epoch, which is compiled and called
from here: a block is one epoch of n updates. The environment is that of the keys `env`
and `env_kwargs`, the same as for `ours`: of our adapter the Brax environment inside, of
any other environment of ours `AsBrax`.

A rollout has one unroll of `num_steps` from each environment, and a minibatch is whole
unrolls, num_envs / num_minibatches of them: as many samples and gradient steps as ours.
The key "brax" holds arguments of Brax's `train` that replace any of these, so that a
configuration which Brax publishes can be taken as it is.
"""

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, NoReturn
from unittest import mock

import jax
import jax.numpy as jnp
from flax import linen
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.peers import worker
from purejaxppo.adapters.brax import BraxEnv
from purejaxppo.env import Box, Env
from purejaxppo.registry import make_env

# Importing MJX prints, before `worker.main` could keep that from its answers.
with contextlib.redirect_stdout(sys.stderr):
    from brax import envs
    from brax.training import acting
    from brax.training.agents.ppo import networks as ppo_networks
    from brax.training.agents.ppo import train as ppo

NUM_EVAL_ENVS = 100
ACTIVATIONS = {"tanh": linen.tanh, "relu": linen.relu}  # of `hidden_sizes`


def device_put_replicated(tree: Any, devices: list[Any]) -> Any:
    """Copy a tree to each device: Brax 0.14.2 calls this, and JAX 0.10 lacks it."""
    sharding = NamedSharding(Mesh(devices, ("i",)), PartitionSpec("i"))
    return jax.tree.map(
        lambda x: jax.device_put(jnp.stack([x] * len(devices)), sharding), tree
    )


class AsBrax(envs.Env):
    """One of our environments under Brax's protocol; it has one continuous head."""

    def __init__(self, env: Env):
        self.inner = env
        ((self.head, box),) = env.spec.heads.items()
        assert isinstance(box, Box), "Brax has continuous actions"
        self.size = box.size

    def reset(self, rng: jax.Array) -> envs.State:
        return self._state(self.inner.reset(jax.random.wrap_key_data(rng)))

    def step(self, state: Any, action: jax.Array) -> envs.State:
        inner = self.inner.step(state.pipeline_state, {self.head: action})
        # What Brax's wrappers added stays.
        after = self._state(inner)
        return state.replace(
            pipeline_state=inner, obs=after.obs, reward=after.reward, done=after.done
        )

    def _state(self, inner: Any) -> envs.State:
        done = (inner.terminated | inner.truncated).astype(jnp.float32)
        return envs.State(inner, inner.obs, inner.reward, done)

    @property
    def observation_size(self) -> int:
        return jax.eval_shape(self.inner.reset, jax.random.key(0)).obs.shape[-1]

    action_size = property(lambda self: self.size)
    backend = property(lambda self: "ours")


class Training(NamedTuple):
    """Brax's training epoch, and the state that the next one begins with.

    Attributes:
      epoch: the three of `state` -> (training state, environments, metrics).
      state: training state, environments and keys, each with an axis of devices.
      make_policy: (parameters, deterministic) -> policy.
    """

    epoch: Callable[..., tuple[Any, Any, Any]]
    state: tuple[Any, Any, jax.Array]
    make_policy: Callable[..., Any]

    @property
    def params(self) -> tuple[Any, Any, Any]:
        """What `make_policy` takes: normaliser, policy and critic."""
        state, params = self.state[0], self.state[0].params
        trees = state.normalizer_params, params.policy, params.value
        return jax.tree.map(lambda x: x[0], trees)


class FirstEpoch(Exception):  # noqa: N818
    """Leaves Brax's `train` with its training epoch and the arguments of the call."""


def compile_epoch(train: Callable[..., Any]) -> Training:
    """Run Brax's `train` up to its first training epoch, and compile that.

    The epoch is local to `train`: it is caught where JAX maps it over the devices.

    Args:
      train: takes `policy_params_fn`, which Brax calls with its policy.
    """
    pmap, policies = jax.pmap, []

    def keep_policy(_: int, make_policy: Callable[..., Any], params: Any) -> None:
        policies.append(make_policy)

    def catching_pmap(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        mapped = pmap(function, *args, **kwargs)

        def leave(*inputs: Any) -> NoReturn:
            raise FirstEpoch(mapped, inputs)

        return leave if function.__name__ == "training_epoch" else mapped

    try:
        with mock.patch.object(jax, "pmap", catching_pmap):
            train(policy_params_fn=keep_policy)
    except FirstEpoch as first:
        mapped, inputs = first.args
        return Training(mapped.lower(*inputs).compile(), inputs, policies[0])
    raise RuntimeError("Brax's `train` has no training epoch")


def train_epoch(training: Training) -> Training:
    """Train one epoch more."""
    _, _, keys = training.state
    trained, environments, _ = jax.block_until_ready(training.epoch(*training.state))
    keys = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    return training._replace(state=(trained, environments, keys))


def options(config: worker.Json, env: Env) -> worker.Json:
    """Translate the JSON keys into arguments of `ppo.train`."""
    arguments: worker.Json = {}
    if "hidden_sizes" in config:  # otherwise the networks of Brax's defaults
        sizes = tuple(config["hidden_sizes"])
        arguments["network_factory"] = partial(
            ppo_networks.make_ppo_networks,
            policy_hidden_layer_sizes=sizes,
            value_hidden_layer_sizes=sizes,
            activation=ACTIVATIONS[config["activation"]],
        )
    if "value_coef" in config:  # Brax halves the squared error, and we do not
        arguments["vf_loss_coefficient"] = 2 * config["value_coef"]
    return {
        **worker.named(config, "brax"),
        "episode_length": env.spec.max_episode_steps,
        "batch_size": config["num_envs"] // config["num_minibatches"],
        "seed": config.get("seed", 0),
        "run_evals": False,
        **arguments,
        **config.get("brax", {}),
    }


def make(config: worker.Json) -> worker.Task:
    env = make_env(config["env"], **config.get("env_kwargs", {}))
    brax_env = env.brax if isinstance(env, BraxEnv) else AsBrax(env)
    arguments = options(config, env)
    unrolls = arguments["batch_size"] * arguments["num_minibatches"]
    steps = unrolls * arguments["unroll_length"]  # of an update

    def prepared(updates: int) -> Training:
        sizes = {"num_timesteps": updates * steps, "num_evals": 2}  # one epoch
        return compile_epoch(partial(ppo.train, brax_env, **sizes, **arguments))

    latest: list[Training] = []  # one: the training as far as it has come

    def prepare(updates: int) -> Callable[[], None]:
        compiled = prepared(updates)
        latest[:] = [compiled._replace(state=x.state) for x in latest] or [compiled]

        def block() -> None:
            latest[0] = train_epoch(latest[0])

        return block

    def mean_return(training: Training) -> float:
        length = arguments["episode_length"]
        evaluator = acting.Evaluator(
            envs.training.wrap(brax_env, episode_length=length),
            partial(training.make_policy, deterministic=True),
            num_eval_envs=NUM_EVAL_ENVS,
            episode_length=length,
            action_repeat=1,
            key=jax.random.PRNGKey(12345),
        )
        metrics = evaluator.run_evaluation(training.params, {})
        return float(metrics["eval/episode_reward"])

    def train() -> worker.Json:
        updates = config["total_steps"] // steps
        fresh = prepared(updates)
        return worker.trained(lambda: train_epoch(fresh), mean_return, updates * steps)

    return worker.Task(
        prepare=prepare,
        steps_per_unit=steps,
        versions=worker.versions("brax", "jax", "jaxlib", "mujoco", "mujoco-mjx"),
        evaluate=lambda: mean_return(latest[0]) if latest else None,
        train=train,
    )


if __name__ == "__main__":
    jax.device_put_replicated = device_put_replicated
    worker.main(make)
