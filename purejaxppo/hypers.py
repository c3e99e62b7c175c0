"""The hyperparameters of PPO that are traced: `Hypers`, a pytree of scalars.

`jax.vmap` can map over any of its leaves. A field's allowed range is part of its type
annotation (see `ranges`), and `--help` prints the string under the field.
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
    """The most used hyperparameters of the update."""

    learning_rate: Annotated[float, _FRACTION] = 3e-4
    """Adam's step size at the start of training."""
    gamma: Annotated[float, _FRACTION] = 0.99
    """Discount per step."""
    gae_lambda: Annotated[float, _FRACTION] = 0.95
    """Lambda of generalised advantage estimation."""
    clip_eps: Annotated[float, Traced(1e-9, 1e6)] = 0.2
    """Clip range of the probability ratio."""
    target_kl: Annotated[float, _LIMIT] = math.inf
    """Stop the epochs when approx_kl exceeds 1.5 times this; inf for no limit."""


@dataclasses.dataclass(frozen=True)
class OptimiserHypers:
    """Further hyperparameters of the loss and the optimiser."""

    max_grad_norm: Annotated[float, _LIMIT] = 0.5
    """Global norm to which gradients are clipped."""
    value_coef: Annotated[float, _WEIGHT] = 0.5
    """Weight of the value loss."""
    value_clip: Annotated[float, _LIMIT] = math.inf
    """Clip range of value predictions, in units of return; inf for no clipping."""
    reward_clip: Annotated[float, _LIMIT] = 10.0
    """Bound on the size of rewards after normalize_rewards; inf for no bound."""
    dual_clip: Annotated[float, Traced(1.0, 1e9, off=math.inf)] = math.inf
    """Objective of negative advantages is at least this times A; inf for no bound."""
    learning_rate_final: Annotated[float, _WEIGHT] = 0.1
    """Final learning rate as a fraction of the first; not for constant and kl."""
    adam_eps: Annotated[float, _FRACTION] = 1e-5
    """Adam's epsilon."""
    critic_weight_decay: Annotated[float, _FRACTION] = 0.0
    """Decoupled weight decay of the critic; the policy has none."""


@dataclasses.dataclass(frozen=True)
class ExplorationHypers:
    """Hyperparameters of the entropy bonus."""

    entropy_coef: Annotated[float, _SIGNED_WEIGHT] = 0.0
    """Weight of each head's entropy, averaged over the steps where any head acts."""
    entropy_coef_final: Annotated[float, _WEIGHT] = 1.0
    """Final entropy coefficient as a fraction of the first."""
    entropy_floor: Annotated[float, _FLOOR] = -math.inf
    """Raise a head's entropy coefficient while its entropy is below this."""
    entropy_limit: Annotated[float, _LIMIT] = math.inf
    """Stop the epochs when the entropy has changed by more; inf for no limit."""
    head_entropy_coef: Annotated[dict[str, float], PerHead(_SIGNED_WEIGHT)] = (
        dataclasses.field(default_factory=dict)
    )
    """Entropy coefficient by head; heads not named here use entropy_coef."""
    head_entropy_coef_final: Annotated[dict[str, float], PerHead(_WEIGHT)] = (
        dataclasses.field(default_factory=dict)
    )
    """entropy_coef_final by head."""
    head_entropy_floor: Annotated[dict[str, float], PerHead(_FLOOR)] = (
        dataclasses.field(default_factory=dict)
    )
    """entropy_floor by head."""


@dataclasses.dataclass(frozen=True)
class ImitationHypers:
    """Hyperparameters of the KL anchor."""

    kl_coef: Annotated[float, _WEIGHT] = 0.0
    """Weight of the reverse KL to the frozen reference, if anchor is set."""
    kl_coef_final: Annotated[float, _WEIGHT] = 1.0
    """Final KL coefficient as a fraction of the first."""


class Hypers(
    struct.PyTreeNode,
    ImitationHypers,
    ExplorationHypers,
    OptimiserHypers,
    UpdateHypers,
    frozen=True,
):
    """The hyperparameters of PPO. Every leaf is traced, so `jax.vmap` can map over it.

    `inf` disables a limit.
    """
