"""The faults, each with the verdicts that name it."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp

from faults.tasks import TASKS, wrapped
from purejaxppo.policy import networks
from purejaxppo.policy.policy import make_policy
from purejaxppo.ppo import batch as batch_lib
from purejaxppo.ppo import epochs, evaluation, learner, minibatch, optim, rollout
from purejaxppo.ppo import update as update_lib
from purejaxppo.ppo.gae import gae

Patch = contextlib.AbstractContextManager


@dataclasses.dataclass(frozen=True)
class Plant:
    """A fault that is planted into a healthy run.

    Attributes:
      flags: the command line.
      verdicts: the names of findings that name the cause.
      patch: changes our own code while the run lasts.
      kills: whether the policy cannot learn with it; None if that is to be measured
        by the returns.
      source: who published it.
      task: the healthy task to compare returns with, where `kills` is None.
    """

    flags: str
    verdicts: tuple[str, ...]
    patch: Callable[[], Patch] = contextlib.nullcontext
    kills: bool | None = True
    source: str = "ours"
    task: str = ""


def _on(task: str, more: str = "") -> str:
    return f"{TASKS[task]} {more}"


def _replace(module: object, name: str, function: object) -> Callable[[], Patch]:
    return lambda: mock.patch.object(module, name, function)


# --- the ratio ----------------------------------------


def _same_on_both_sides(params, task, batch, *rest):
    terms = task.policy.log_prob(params, batch.stored)
    return minibatch.minibatch_loss(
        params, task, batch.replace(log_prob=terms.log_prob), *rest
    )


def _policy_with(**functions: Callable) -> Callable[[], Patch]:
    """Replace functions of the policy; each takes the sound policy."""

    def faulty(heads, config):
        policy = make_policy(heads, config)
        return policy._replace(**{n: f(policy) for n, f in functions.items()})

    return _replace(learner, "make_policy", faulty)


def _without_gradient(policy):
    return lambda params, stored: policy.log_prob(jax.lax.stop_gradient(params), stored)


def _choice_as_a_set(policy):
    def sample(*arguments):
        action, stored, terms, carry = policy.sample(*arguments)
        own = terms.log_prob["pick"] + math.log(2.0)
        own = jnp.where(terms.active["pick"], own, 0.0)
        terms = terms.replace(log_prob={**terms.log_prob, "pick": own})
        return action, stored, terms, carry

    return sample


def _clipped(policy):
    def sample(*arguments):
        action, stored, terms, carry = policy.sample(*arguments)
        action = {name: jnp.clip(x, -0.5, 0.5) for name, x in action.items()}
        return action, stored.replace(action=action), terms, carry

    return sample


def _stored_mask_is_stale(task, state, transitions, *rest):
    stored = transitions.stored
    mask = jax.tree.map(lambda x: jnp.roll(x, 1, axis=0), stored.inputs.action_mask)
    stored = stored.replace(inputs=stored.inputs.replace(action_mask=mask))
    return batch_lib.make_batch(task, state, transitions.replace(stored=stored), *rest)


# --- the batch ----------------------------------------


def _shuffled_advantages(task, *rest):
    batch, state, metrics = batch_lib.make_batch(task, *rest)
    mixed = jax.random.permutation(jax.random.key(1), batch.advantages.ravel())
    advantages = mixed.reshape(batch.advantages.shape)
    return batch.replace(advantages=advantages), state, metrics


def _negated_advantages(task, *rest):
    batch, state, metrics = batch_lib.make_batch(task, *rest)
    return batch.replace(advantages=-batch.advantages), state, metrics


def _constant_advantages(task, *rest):
    batch, state, metrics = batch_lib.make_batch(task, *rest)
    return batch.replace(advantages=jnp.ones_like(batch.advantages)), state, metrics


_scaled_rewards = batch_lib.scaled_rewards


def _rewards_of_the_neighbour(*arguments):
    reward, state = _scaled_rewards(*arguments)
    return jnp.roll(reward, 1, axis=1), state


def _rewards_a_step_late(*arguments):
    reward, state = _scaled_rewards(*arguments)
    return jnp.roll(reward, 1, axis=0), state


def _negated_rewards(*arguments):
    reward, state = _scaled_rewards(*arguments)
    return -reward, state


_step = rollout.autoreset.step


def _negated_in_training(*arguments):
    episode, step = _step(*arguments)
    return episode, step.replace(reward=-step.reward)


def _without_rewards(*arguments):
    episode, step = _step(*arguments)
    return episode, step.replace(reward=jnp.zeros_like(step.reward))


def _truncated_as_terminated(reward, value, next_value, terminated, truncated, **rest):
    ends = terminated | truncated
    return gae(reward, value, next_value, ends, jnp.zeros_like(ends), **rest)


def _endless(reward, value, next_value, terminated, truncated, **rest):
    never = jnp.zeros_like(terminated)
    return gae(reward, value, next_value, never, never, **rest)


def _undiscounted(*arguments, gamma, gae_lambda):
    return gae(*arguments, gamma=jnp.ones_like(gamma), gae_lambda=gae_lambda)


def _myopic(*arguments, gamma, gae_lambda):
    return gae(*arguments, gamma=jnp.zeros_like(gamma), gae_lambda=gae_lambda)


def _forwards(reward, value, next_value, terminated, truncated, *, gamma, gae_lambda):
    done = terminated | truncated
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value

    def forward(advantage, xs):
        delta, done = xs
        advantage = delta + gamma * gae_lambda * jnp.where(done, 0.0, advantage)
        return advantage, advantage

    _, advantages = jax.lax.scan(forward, jnp.zeros_like(delta[0]), (delta, done))
    return jax.lax.stop_gradient((advantages, advantages + value))


# --- loss, optimiser, networks ----------------------------------------

_policy_loss = minibatch.losses.policy_loss
_value_loss = minibatch.losses.value_loss
_apply = optim.apply


def _descent(*arguments):
    return -_policy_loss(*arguments)


def _negated_value_loss(*arguments):
    return -_value_loss(*arguments)


def _ascent(transformation, params, grads, opt_state):
    return _apply(transformation, params, jax.tree.map(jnp.negative, grads), opt_state)


def _fast_critic(transformation, params, grads, opt_state):
    after, opt_state = _apply(transformation, params, grads, opt_state)
    critic = jax.tree.map(lambda a, b: b + 100.0 * (a - b), after.critic, params.critic)
    return after.replace(critic=critic), opt_state


def _plain_descent(transformation, params, grads, opt_state):
    """Stochastic gradient descent at Adam's learning rate."""
    _, opt_state = _apply(transformation, params, grads, opt_state)
    return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), opt_state


def _no_step(transformation, params, grads, opt_state):
    _, opt_state = _apply(transformation, params, grads, opt_state)
    return params, opt_state


@contextlib.contextmanager
def _sigmoid() -> Iterator[None]:
    with mock.patch.dict(networks._ACTIVATIONS, tanh=nn.sigmoid):
        yield


# --- observations and evaluation ----------------------------------------


def _frozen(state, of_rollout, axis_name):
    del of_rollout, axis_name
    return state.obs_stats


_policy_input = rollout.policy_input
_evaluate = evaluation.evaluate
_key = jax.random.key


def _never_updated(episodes, obs_stats):
    """All environments show the observation of their first state for ever."""
    inputs = _policy_input(episodes, obs_stats)
    return inputs.replace(obs=jax.tree.map(jnp.zeros_like, inputs.obs))


def _other_seeds(task, params, obs_stats, **rest):
    number = jnp.abs(1e6 * jax.tree.leaves(params.policy)[0].ravel()[0])
    seed = number.astype(jnp.uint32)

    def key(number):
        return jax.random.fold_in(_key(number), seed)

    with mock.patch.object(evaluation.jax.random, "key", key):
        return _evaluate(task, params, obs_stats, **rest)


_RLMUTATION = "RLMutation, Tambon et al. 2023"

PLANTS: dict[str, Plant] = {
    "learning rate x 30": Plant(
        _on("cartpole", "--learning-rate 0.03"), ("overshoot",)
    ),
    "learning rate x 100": Plant(_on("acrobot", "--learning-rate 0.1"), ("overshoot",)),
    "learning rate 0": Plant(
        _on("cartpole"), ("learning_rate_zero",), _replace(optim, "apply", _no_step)
    ),
    "learning rate / 1000": Plant(
        _on("cartpole", "--learning-rate 1e-6"), ("too_slow",)
    ),
    "both sides of the ratio the same": Plant(
        _on("cartpole"),
        ("degenerate_ratio",),
        _replace(epochs, "minibatch_loss", _same_on_both_sides),
    ),
    "policy without gradient": Plant(
        _on("cartpole"),
        ("degenerate_ratio", "learning_rate_zero"),
        _policy_with(log_prob=_without_gradient),
    ),
    "choice that cannot be re-evaluated": Plant(
        _on("deck"), ("log_prob",), _policy_with(sample=_choice_as_a_set)
    ),
    "action clipped after sampling": Plant(
        _on("pendulum"), ("log_prob",), _policy_with(sample=_clipped)
    ),
    "stored mask is stale": Plant(
        _on("scheduler"),
        ("log_prob",),
        _replace(update_lib, "make_batch", _stored_mask_is_stale),
    ),
    "environment's mask is stale": Plant(
        wrapped("scheduler", "stale_mask"), ("invalid_actions",)
    ),
    "truncation as termination": Plant(
        _on("pendulum"),
        ("truncation", "advantage_estimation"),
        _replace(batch_lib, "gae", _truncated_as_terminated),
        kills=False,
    ),
    "time limit as termination": Plant(
        wrapped("cartpole", "limit_as_end", limit=50), ("truncation",), kills=False
    ),
    "rewards negated in the returns": Plant(
        _on("cartpole"),
        ("reward_sign",),
        _replace(batch_lib, "scaled_rewards", _negated_rewards),
    ),
    "rewards negated in training": Plant(
        _on("cartpole"),
        ("reward_sign", "opposite_rewards"),
        _replace(rollout.autoreset, "step", _negated_in_training),
    ),
    "entropy coefficient 10": Plant(
        _on("cartpole", "--entropy-coef 10"), ("entropy_bonus",)
    ),
    "entropy coefficient 1": Plant(
        _on("acrobot", "--entropy-coef 1"), ("entropy_bonus",)
    ),
    "value coefficient 0": Plant(
        _on("cartpole", "--value-coef 0"), ("critic_untrained",), kills=False
    ),
    "one environment": Plant(
        _on("cartpole", "--num-envs 1 --num-steps 16 --total-timesteps 20000"),
        ("small_batch",),
    ),
    "normaliser frozen at the start": Plant(
        _on("cartpole"),
        ("normaliser",),
        _replace(rollout, "_merged_statistics", _frozen),
        kills=False,
    ),
    "gamma 0": Plant(_on("cartpole", "--gamma 0"), ("short_horizon",)),
    "gamma 0 in the returns": Plant(
        _on("acrobot"), ("advantage_estimation",), _replace(batch_lib, "gae", _myopic)
    ),
    "advantages not normalised, rewards x 1000": Plant(
        wrapped("cartpole", "scaled", factor=1000.0).replace("--normalize-rewards", "")
        + " --normalize-advantages off",
        ("advantage_scale",),
    ),
    "critic's learning rate x 100": Plant(
        _on("cartpole"), ("critic_overshoot",), _replace(optim, "apply", _fast_critic)
    ),
    "evaluation seeds that change": Plant(
        _on("cartpole"),
        ("evaluation_seeds",),
        _replace(evaluation, "evaluate", _other_seeds),
        kills=False,
    ),
    "NaN in an observation": Plant(
        wrapped("cartpole", "nan", limit=0.5), ("unusable_numbers",), kills=False
    ),
    "advantages shuffled": Plant(
        _on("cartpole"),
        ("advantages_changed",),
        _replace(update_lib, "make_batch", _shuffled_advantages),
    ),
    "advantages negated": Plant(
        _on("acrobot"),
        ("advantages_changed", "policy_loss_sign"),
        _replace(update_lib, "make_batch", _negated_advantages),
    ),
    "rewards of the next environment": Plant(
        _on("pendulum"),
        ("advantage_estimation",),
        _replace(batch_lib, "scaled_rewards", _rewards_of_the_neighbour),
    ),
    "rewards a step late": Plant(
        _on("pendulum"),
        ("advantage_estimation",),
        _replace(batch_lib, "scaled_rewards", _rewards_a_step_late),
        kills=False,
    ),
    "advantages all 1": Plant(
        _on("cartpole"),
        ("advantages_changed",),
        _replace(update_lib, "make_batch", _constant_advantages),
    ),
    "value loss negated": Plant(
        _on("cartpole"),
        ("critic_diverges",),
        _replace(minibatch.losses, "value_loss", _negated_value_loss),
    ),
    "all gradients negated": Plant(
        _on("cartpole"),
        ("policy_loss_sign", "critic_diverges"),
        _replace(optim, "apply", _ascent),
    ),
    "rewards lost in training": Plant(
        _on("cartpole"),
        ("no_reward",),
        _replace(rollout.autoreset, "step", _without_rewards),
    ),
}


def _mutants(task: str) -> dict[str, Plant]:
    """Return the operators that RLMutation has for PPO, on a task."""

    def operator(verdicts, patch=contextlib.nullcontext, flags=""):
        flags = flags or _on(task)
        return Plant(flags, verdicts, patch, kills=None, source=_RLMUTATION, task=task)

    def mangled(kind: str, probability: float, *verdicts: str) -> Plant:
        fault = wrapped(task, "mangled", kind=kind, probability=probability)
        return operator(verdicts, flags=fault)

    estimation = ("advantage_estimation",)
    noisy = "noisy_observations"
    operators = {
        "ILF": operator(
            ("policy_loss_sign",), _replace(minibatch.losses, "policy_loss", _descent)
        ),
        "NR": operator(estimation, _replace(batch_lib, "gae", _forwards)),
        "NDF": operator(estimation, _replace(batch_lib, "gae", _undiscounted)),
        "MTS": operator(estimation, _replace(batch_lib, "gae", _endless)),
        "MSU": operator(
            ("still_observations",), _replace(rollout, "policy_input", _never_updated)
        ),
        "POC": operator(("too_slow",), _replace(optim, "apply", _plain_descent)),
        "M .1": mangled("mangled", 0.1, noisy),
        "M .2": mangled("mangled", 0.2, noisy),
        "Ra .1": mangled("random", 0.1, noisy),
        "Ra .2": mangled("random", 0.2, noisy),
        "PAC sigmoid": operator((), _sigmoid),
        "PAC relu": operator((), flags=_on(task, "--activation relu")),
        "RN": operator((), flags=wrapped(task, "reward_noise")),
        "R .1": mangled("repeat", 0.1),
    }
    return {f"{name}, {task}": plant for name, plant in operators.items()}


PLANTS |= _mutants("cartpole") | _mutants("lander")
