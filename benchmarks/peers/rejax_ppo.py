"""Rejax's PPO as a worker (see `worker`): its training iteration, scanned in one jit.

Evaluation plays the mode of its policy, which Rejax itself only samples from: the
others are evaluated so.
"""
# pyright: reportMissingImports=false

from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import in_jax, worker

EVAL_EPISODES = 100


def make_algorithm(config: worker.Json) -> Any:
    # Here, so that where it is missing the worker can say so.
    from rejax import PPO

    return PPO.create(
        env=config["env"].rpartition(":")[2],
        agent_kwargs={
            "hidden_layer_sizes": tuple(config["hidden_sizes"]),
            "activation": config["activation"],
        },
        **worker.named(config, "rejax"),
        skip_initial_evaluation=True,
    )


def mean_return(algorithm: Any, state: Any, key: jax.Array) -> jax.Array:
    """Average the return over episodes played with the mode of the policy.

    Args:
      algorithm: rejax's PPO, with its environment.
      state: its training state.
      key: the random key of the episodes.
    """
    from rejax.evaluate import evaluate

    def act(obs: jax.Array, _: jax.Array) -> jax.Array:
        actor = algorithm.actor
        params = state.actor_ts.params
        if algorithm.normalize_observations:
            obs = algorithm.normalize_obs(state.obs_rms_state, obs)
        mode = actor.apply(params, obs[None], method="_action_dist").mode()[0]
        return mode if algorithm.discrete else jnp.clip(mode, *actor.action_range)

    env, params = algorithm.env, algorithm.env_params
    _, returns = evaluate(act, key, env, params, EVAL_EPISODES)
    return jnp.mean(returns)


def make(config: worker.Json) -> worker.Task:
    algorithm = make_algorithm(config)
    batch_size = config["num_envs"] * config["num_steps"]
    num_updates = config["total_steps"] // batch_size
    key = jax.random.PRNGKey(config.get("seed", 0))
    key_init, key_evaluation = jax.random.split(key)

    def run(state: Any, num: int) -> Any:
        def body(state: Any, _: None):
            return algorithm.train_iteration(state), None

        return jax.lax.scan(body, state, length=num)

    def run_all(key: jax.Array) -> Any:
        return run(algorithm.init_state(key), num_updates)

    prepare, latest = in_jax.in_blocks(run, jax.jit(algorithm.init_state)(key_init))
    evaluation = jax.jit(lambda state: mean_return(algorithm, state, key_evaluation))
    score = lambda state: float(evaluation(state))  # noqa: E731
    steps = num_updates * batch_size
    return worker.Task(
        prepare=prepare,
        steps_per_unit=batch_size,
        versions=worker.versions("rejax", "jax", "jaxlib", "flax", "gymnax"),
        evaluate=lambda: score(latest()),
        train=lambda: in_jax.train(run_all, key_init, score, steps),
    )


if __name__ == "__main__":
    worker.main(make)
