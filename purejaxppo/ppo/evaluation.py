"""Evaluation on fixed seed blocks, never from training episodes."""

import jax
import jax.numpy as jnp
from flax import struct

from purejaxppo.env import Env, State, executed
from purejaxppo.policy.heads import PolicyInput
from purejaxppo.policy.policy import Params, Policy
from purejaxppo.ppo import normalize
from purejaxppo.ppo.normalize import Statistics
from purejaxppo.ppo.types import Metrics, Task

# Where the environment has no time limit of its own.
_MAX_STEPS = 10_000


class Running(struct.PyTreeNode):
    """The loop's carry; E episodes."""

    state: State  # [E, ...]
    carry: dict
    alive: jax.Array  # bool [E]
    episode_return: jax.Array  # [E]
    length: jax.Array  # int32 [E]
    metrics: dict[str, jax.Array]  # [E], as of each episode's last step
    key: jax.Array
    step: jax.Array  # int32 []


def run_episodes(
    env: Env,
    policy: Policy,
    params: Params,
    obs_stats: Statistics | None,
    keys: jax.Array,
    *,
    deterministic: bool = True,
) -> Running:
    """Play one episode from each key, [E], until all have ended.

    Most episodes of a good policy are short, and the last few may be long: once a
    quarter are left, only those are stepped. `state` and `carry` of the result are of
    no use.
    """
    num = keys.shape[0]
    few = num // 4
    limit = env.spec.max_episode_steps or _MAX_STEPS
    state = jax.vmap(env.reset)(keys)
    start = Running(
        state=state,
        carry=policy.initial_carry(num),
        alive=jnp.ones((num,), bool),
        episode_return=jnp.zeros((num,), jnp.float32),
        length=jnp.zeros((num,), jnp.int32),
        metrics=state.metrics,
        key=jax.random.fold_in(keys[0], num),
        step=jnp.zeros((), jnp.int32),
    )

    def step(run: Running) -> Running:
        return _step(env, policy, params, obs_stats, run, deterministic)

    def more_than(count: int, run: Running) -> jax.Array:
        return (jnp.sum(run.alive) > count) & (run.step < limit)

    run = jax.lax.while_loop(lambda run: more_than(few, run), step, start)
    if not few:
        return run
    left = jnp.argsort(~run.alive, stable=True)[:few]
    rest = jax.tree.map(lambda x: x[left] if x.ndim else x, run)
    rest = jax.lax.while_loop(lambda run: more_than(0, run), step, rest)

    def together(name: str):
        return jax.tree.map(
            lambda all_, some: all_.at[left].set(some),
            getattr(run, name),
            getattr(rest, name),
        )

    names = ("alive", "episode_return", "length", "metrics")
    return run.replace(step=rest.step, **{name: together(name) for name in names})


def _step(
    env: Env,
    policy: Policy,
    params: Params,
    obs_stats: Statistics | None,
    run: Running,
    deterministic: bool,
) -> Running:
    """One step of every episode; those that have ended are stepped, and not counted."""
    key, key_action = jax.random.split(run.key)
    alive = run.alive
    inputs = PolicyInput(
        obs=normalize.apply(obs_stats, run.state.obs),
        start=jnp.full(alive.shape, run.step == 0),
        action_mask=run.state.action_mask,
        active=run.state.active,
    )
    if deterministic:
        action, carry = policy.mode(params, inputs, run.carry)
    else:
        noise = policy.noise(key_action, alive.shape[0])
        action, _, _, carry = policy.sample(params, inputs, run.carry, noise)
    state = jax.vmap(env.step)(run.state, executed(env.spec, action))
    return Running(
        state=state,
        carry=carry,
        alive=alive & ~(state.terminated | state.truncated),
        # where, not a product: what an ended environment pays may be anything.
        episode_return=run.episode_return + jnp.where(alive, state.reward, 0.0),
        length=run.length + alive.astype(jnp.int32),
        metrics=jax.tree.map(
            lambda new, old: jnp.where(alive, new, old), state.metrics, run.metrics
        ),
        key=key,
        step=run.step + 1,
    )


def evaluate(
    task: Task,
    params: Params,
    obs_stats: Statistics | None,
    *,
    deterministic: bool = True,
) -> Metrics:
    """Mean, worst block and each block, of return and of every metric of the env.

    The same `eval_blocks` x `eval_episodes` episodes in every call and every run.
    """
    env, policy, config = task.env, task.policy, task.config
    shape = (config.eval_blocks, config.eval_episodes)
    keys = jax.random.split(jax.random.key(config.eval_seed), shape[0] * shape[1])
    run = run_episodes(
        env, policy, params, obs_stats, keys, deterministic=deterministic
    )
    prefix = "eval" if deterministic else "eval_stochastic"
    metrics = {f"{prefix}/episode_length": jnp.mean(run.length.astype(jnp.float32))}
    figures = {"return": run.episode_return, **run.metrics}
    for name, values in figures.items():
        blocks = jnp.mean(values.reshape(shape), axis=1)
        mean_name = "mean_return" if name == "return" else f"episode_{name}"
        metrics[f"{prefix}/{mean_name}"] = jnp.mean(blocks)
        metrics[f"{prefix}/min_block_{name}"] = jnp.min(blocks)
        for index in range(config.eval_blocks):
            metrics[f"{prefix}/block{index}_{name}"] = blocks[index]
    return metrics
