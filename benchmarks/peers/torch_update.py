"""PPO's update alone in eager torch as a worker (see `worker`), against `ours_update`.

The same sizes, layers, distribution and loss on a batch of noise; amounts are sample
passes. Nothing is logged, which is in its favour. Adam is torch's fused one: on a CPU
it is faster than foreach, and both are faster than the loop.
"""
# pyright: reportMissingImports=false

import itertools
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from benchmarks.peers import worker

OBS_SIZE, ACTION_SIZE = 39, 4
_LOG_SQRT_TWO_PI = 0.5 * math.log(2.0 * math.pi)
_ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


class Samples(NamedTuple):
    """A batch, or a minibatch of it; M samples."""

    obs: Any  # [M, OBS_SIZE]
    action: Any  # [M, ACTION_SIZE]
    log_prob: Any  # [M], of the policy that acted
    advantages: Any  # [M]
    returns: Any  # [M]


def network(sizes: list[int], activation: type) -> nn.Sequential:
    """Make layers of these sizes, the last one without activation."""
    layers: list[nn.Module] = []
    for num_inputs, size in itertools.pairwise(sizes):
        layers += [nn.Linear(num_inputs, size), activation()]
    return nn.Sequential(*layers[:-1])


class ActorCritic(nn.Module):
    """Two networks, and a log standard deviation that is free."""

    def __init__(self, hidden_sizes: list[int], activation: type):
        super().__init__()
        inputs = [OBS_SIZE, *hidden_sizes]
        self.actor = network([*inputs, ACTION_SIZE], activation)
        self.critic = network([*inputs, 1], activation)
        self.log_std = nn.Parameter(torch.full((ACTION_SIZE,), math.log(0.5)))

    def log_prob(self, obs: Any, action: Any) -> Any:
        # By hand: torch.distributions checks its arguments every time.
        error = (action - self.actor(obs)) * torch.exp(-self.log_std)
        return (-0.5 * error**2 - self.log_std - _LOG_SQRT_TWO_PI).sum(-1)

    def entropy(self) -> Any:
        return (self.log_std + 0.5 + _LOG_SQRT_TWO_PI).sum()


def sample_batch(model: ActorCritic, num: int) -> Samples:
    """Draw noise, and actions that the model could have taken."""
    obs = torch.randn(num, OBS_SIZE)
    with torch.no_grad():
        noise = torch.randn(num, ACTION_SIZE)
        action = model.actor(obs) + noise * torch.exp(model.log_std)
        log_prob = model.log_prob(obs, action)
    return Samples(obs, action, log_prob, torch.randn(num), torch.randn(num))


def loss_of(model: ActorCritic, samples: Samples, config: worker.Json) -> Any:
    """Compute the loss: clipped objective, squared value error, and entropy.

    Args:
      model: policy and critic.
      samples: a minibatch, [B, ...].
      config: clip range and coefficients.
    """
    advantages = samples.advantages
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    log_prob = model.log_prob(samples.obs, samples.action)
    ratio = torch.exp(log_prob - samples.log_prob)
    clip = config["clip_range"]
    clipped = torch.clamp(ratio, 1.0 - clip, 1.0 + clip)
    policy_loss = -torch.min(ratio * advantages, clipped * advantages).mean()
    value = model.critic(samples.obs).squeeze(-1)
    value_loss = ((value - samples.returns) ** 2).mean()
    entropy_bonus = config["entropy_coef"] * model.entropy()
    return policy_loss + config["value_coef"] * value_loss - entropy_bonus


def train(
    model: ActorCritic, optimiser: Any, batch: Samples, config: worker.Json, epochs: int
) -> None:
    """Train for several epochs on a batch, in a new random order each.

    Args:
      model: policy and critic, which are changed.
      optimiser: of their parameters.
      batch: the samples of a rollout, [B, ...].
      config: minibatches, clip range, norm limit and coefficients.
      epochs: how many.
    """
    size = len(batch.obs) // config["num_minibatches"]
    for _ in range(epochs):
        for index in torch.randperm(len(batch.obs)).split(size):
            minibatch = Samples(*(x[index] for x in batch))
            optimiser.zero_grad(set_to_none=True)
            loss_of(model, minibatch, config).backward()
            nn.utils.clip_grad_norm_(model.parameters(), config["max_grad_norm"])
            optimiser.step()


def make(config: worker.Json) -> worker.Task:
    torch.manual_seed(config.get("seed", 0))
    torch.set_num_threads(os.cpu_count() or 1)
    model = ActorCritic(config["hidden_sizes"], _ACTIVATIONS[config["activation"]])
    rate = config["learning_rate"]
    optimiser = torch.optim.Adam(model.parameters(), lr=rate, eps=1e-5, fused=True)
    batch = sample_batch(model, config["num_envs"] * config["num_steps"])
    epochs = config["num_epochs"]

    def prepare(num: int) -> Callable[[], None]:
        return lambda: train(model, optimiser, batch, config, num * epochs)

    return worker.Task(
        prepare=prepare,
        steps_per_unit=len(batch.obs) * epochs,
        versions=worker.versions("torch", "numpy"),
        compiles=False,
    )


if __name__ == "__main__":
    worker.main(make)
