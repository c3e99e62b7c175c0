"""Brax's PPO as a worker (see `worker`), on Brax's environments and on ours.

Its `train` runs as it is, in a thread that waits between its training epochs: a block
is one epoch of n updates, without Brax's evaluations. The environment is that of the
keys `env` and `env_kwargs`, the same as for `ours`: of our adapter the Brax environment
inside, of any other environment of ours `AsBrax`.

A rollout has one unroll of `num_steps` from each environment, and a minibatch is whole
unrolls, num_envs / num_minibatches of them: as many samples and gradient steps as ours.
"""

import contextlib
import functools
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks.peers import worker
from purejaxppo.adapters.brax import BraxEnv
from purejaxppo.env import Env
from purejaxppo.registry import make_env

# Importing MJX prints, before `worker.main` could keep that from its answers.
with contextlib.redirect_stdout(sys.stderr):
    from brax import envs
    from brax.training import acting
    from brax.training.agents.ppo import networks as ppo_networks
    from brax.training.agents.ppo import train as ppo

EPOCHS = 100_000  # more than will be run
NUM_EVAL_ENVS = 100
ACTIVATIONS = {"tanh": linen.tanh, "relu": linen.relu, "swish": linen.swish}


def device_put_replicated(tree: Any, devices: list[Any]) -> Any:
    """What JAX 0.10 no longer has and Brax 0.14.2 calls: one copy for each device."""
    sharding = NamedSharding(Mesh(devices, ("i",)), PartitionSpec("i"))
    return jax.tree.map(
        lambda x: jax.device_put(jnp.stack([x] * len(devices)), sharding), tree
    )


class AsBrax(envs.Env):
    """One of our environments under Brax's protocol; it has one continuous head."""

    def __init__(self, env: Env):
        self.inner = env
        ((self.head, self.box),) = env.spec.heads.items()

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

    @property
    def action_size(self) -> int:
        return self.box.size

    @property
    def backend(self) -> str:
        return "ours"


class Stopped(Exception):  # noqa: N818
    """Ends a training that nobody will go on with."""


class Training:
    """`ppo.train` in a thread, epoch by epoch; an epoch is `updates` updates."""

    def __init__(self, start: Callable[..., Any], updates: int, params: Any):
        self.params = params
        self.make_policy: Any = None
        self._orders: queue.Queue[bool] = queue.Queue()
        self._done: queue.Queue[Exception | None] = queue.Queue()
        self._thread = threading.Thread(
            target=self._run, args=(start, updates), daemon=True
        )
        self._thread.start()
        self._wait()  # until it is compiled

    def epoch(self) -> None:
        """Train one epoch."""
        self._orders.put(True)
        self._wait()

    def stop(self) -> None:
        self._orders.put(False)
        self._thread.join()

    def _wait(self) -> None:
        if (error := self._done.get()) is not None:
            raise error

    def _run(self, start: Callable[..., Any], updates: int) -> None:
        callbacks = {"restore_params": self.params, "policy_params_fn": self._on_params}
        try:
            start(updates, self._pause, **callbacks)
        except Stopped:
            pass
        except Exception as error:
            traceback.print_exc()
            self._done.put(error)

    def _pause(self) -> None:
        """Say that what was ordered is done, and wait for the next order."""
        self._done.put(None)
        if not self._orders.get():
            raise Stopped

    def _on_params(self, steps: int, make_policy: Any, params: Any) -> None:
        self.params, self.make_policy = params, make_policy
        if steps:  # the first call comes before it compiles
            self._pause()


def compile_first(pause: Callable[[], None]) -> None:
    """Have the next training epoch compiled, and then pause, before it first runs."""
    pmap = jax.pmap

    def replacement(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        mapped = pmap(function, *args, **kwargs)
        if function.__name__ != "training_epoch":
            return mapped
        jax.pmap = pmap
        programs: list[Any] = []

        def run(*inputs: Any) -> Any:
            if not programs:
                programs.append(mapped.lower(*inputs).compile())
                pause()
            return programs[0](*inputs)

        return run

    jax.pmap = replacement


def options(config: worker.Json, env: Env) -> worker.Json:
    """The arguments of `ppo.train` that the JSON keys stand for."""
    sizes = tuple(config["hidden_sizes"])
    return {
        **worker.named(config, "brax"),
        "episode_length": env.spec.max_episode_steps,
        "batch_size": config["num_envs"] // config["num_minibatches"],
        # Brax halves the squared error, and we do not.
        "vf_loss_coefficient": 2 * config["value_coef"],
        "seed": config.get("seed", 0),
        "network_factory": functools.partial(
            ppo_networks.make_ppo_networks,
            policy_hidden_layer_sizes=sizes,
            value_hidden_layer_sizes=sizes,
            activation=ACTIVATIONS[config["activation"]],
        ),
        "run_evals": False,
        **config.get("brax", {}),
    }


def make(config: worker.Json) -> worker.Task:
    env = make_env(config["env"], **config.get("env_kwargs", {}))
    brax_env = env.brax if isinstance(env, BraxEnv) else AsBrax(env)
    arguments = options(config, env)
    steps = config["num_envs"] * config["num_steps"]

    def start(updates: int, pause: Callable[[], None], **callbacks: Any) -> None:
        compile_first(pause)
        ppo.train(
            brax_env,
            num_timesteps=EPOCHS * updates * steps,
            num_evals=EPOCHS + 1,
            **arguments,
            **callbacks,
        )

    training: Any = None  # a Training, once prepared

    def prepare(updates: int) -> Callable[[], None]:
        """Goes on with the parameters; the optimiser's moments start anew."""
        nonlocal training
        params = None
        if training is not None:
            params = training.params
            training.stop()
        training = Training(start, updates, params)
        return training.epoch

    def mean_return(training: Training) -> float:
        length = arguments["episode_length"]
        evaluator = acting.Evaluator(
            envs.training.wrap(brax_env, episode_length=length),
            functools.partial(training.make_policy, deterministic=True),
            num_eval_envs=NUM_EVAL_ENVS,
            episode_length=length,
            action_repeat=1,
            key=jax.random.PRNGKey(12345),
        )
        metrics = evaluator.run_evaluation(training.params, {})
        return float(metrics["eval/episode_reward"])

    def train() -> worker.Json:
        updates = config["total_steps"] // steps
        whole = Training(start, updates, None)
        answer = worker.trained(
            whole.epoch, lambda _: mean_return(whole), updates * steps
        )
        whole.stop()
        return answer

    return worker.Task(
        prepare=prepare,
        steps_per_unit=steps,
        versions=worker.versions("brax", "jax", "jaxlib", "mujoco", "mujoco-mjx"),
        evaluate=lambda: mean_return(training),
        train=train,
    )


if __name__ == "__main__":
    jax.device_put_replicated = device_put_replicated
    worker.main(make)
