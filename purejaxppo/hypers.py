"""The traced numbers of PPO: `Hypers`, a pytree of which any leaf can be `vmap`ped.

A field's range stands beside it (see `ranges`), and the sentence under it is what
`--help` prints.
"""

import dataclasses
import math
from typing import Annotated

from flax import struct

from purejaxppo.ranges import PerHead, Traced

_FRACTION = Traced(0.0, 1.0)
_WEIGHT = Traced(0.0, 1e6)
_SIGNED_WEIGHT = Traced(-1e6, 1e6)
_LIMIT = Traced(1e-9, 1e9, off=math.inf)
_FLOOR = Traced(-1e6, 1e6, off=-math.inf)


@dataclasses.dataclass(frozen=True)
class UpdateHypers:
    """The first numbers of the update."""

    learning_rate: Annotated[float, _FRACTION] = 3e-4
    """Adam's step size at the start of training."""
    gamma: Annotated[float, _FRACTION] = 0.99
    """Discount per step."""
    gae_lambda: Annotated[float, _FRACTION] = 0.95
    """Lambda of generalised advantage estimation."""
    clip_eps: Annotated[float, Traced(1e-9, 1e6)] = 0.2
    """Clip range of the probability ratio."""
    target_kl: Annotated[float, _LIMIT] = math.inf
    """Epochs stop, before the step, once approx_kl exceeds 1.5 times this."""


@dataclasses.dataclass(frozen=True)
class OptimiserHypers:
    """The finer numbers of the loss and of the optimiser."""

    max_grad_norm: Annotated[float, _LIMIT] = 0.5
    """Global norm to which gradients are clipped."""
    value_coef: Annotated[float, _WEIGHT] = 0.5
    """Weight of the value loss."""
    value_clip: Annotated[float, _LIMIT] = math.inf
    """Largest change of a value in one update, in units of return."""
    reward_clip: Annotated[float, _LIMIT] = 10.0
    """Largest size of a reward once normalize_rewards has divided it."""
    dual_clip: Annotated[float, Traced(1.0, 1e9, off=math.inf)] = math.inf
    """Lower bound of the objective for negative advantages, as a multiple (> 1)."""
    learning_rate_final: Annotated[float, _WEIGHT] = 0.1
    """Learning rate at the end, as a fraction of the first (scheduled rates only)."""
    adam_eps: Annotated[float, _FRACTION] = 1e-5
    """Adam's epsilon."""
    critic_weight_decay: Annotated[float, _FRACTION] = 0.0
    """Decoupled weight decay, of the critic alone."""


@dataclasses.dataclass(frozen=True)
class ExplorationHypers:
    """The numbers of the entropy bonus."""

    entropy_coef: Annotated[float, _SIGNED_WEIGHT] = 0.0
    """Weight of the entropy bonus."""
    entropy_coef_final: Annotated[float, _WEIGHT] = 1.0
    """Entropy coefficient at the end, as a fraction of the first."""
    entropy_floor: Annotated[float, _FLOOR] = -math.inf
    """Entropy of a head below which its coefficient is raised, update by update."""
    entropy_limit: Annotated[float, _LIMIT] = math.inf
    """Largest mean change of entropy against the rollout policy; beyond it, stop."""
    head_entropy_coef: Annotated[dict[str, float], PerHead(_SIGNED_WEIGHT)] = (
        dataclasses.field(default_factory=dict)
    )
    """Entropy coefficient of single heads, by name; others have entropy_coef."""
    head_entropy_coef_final: Annotated[dict[str, float], PerHead(_WEIGHT)] = (
        dataclasses.field(default_factory=dict)
    )
    """entropy_coef_final of single heads, by name."""
    head_entropy_floor: Annotated[dict[str, float], PerHead(_FLOOR)] = (
        dataclasses.field(default_factory=dict)
    )
    """entropy_floor of single heads, by name."""


@dataclasses.dataclass(frozen=True)
class ImitationHypers:
    """The numbers of the KL anchor."""

    kl_coef: Annotated[float, _WEIGHT] = 0.0
    """Weight of the reverse KL to the frozen reference (the cloned policy)."""
    kl_coef_final: Annotated[float, _WEIGHT] = 1.0
    """KL coefficient at the end, as a fraction of the first."""


class Hypers(
    struct.PyTreeNode,
    ImitationHypers,
    ExplorationHypers,
    OptimiserHypers,
    UpdateHypers,
    frozen=True,
):
    """The numbers of PPO. Every leaf is traced, so `jax.vmap` runs over any of them.

    `inf` switches a limit off.
    """
