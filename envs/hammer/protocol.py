"""The two ways of posing the task: Meta-World's hammer-v3 and the CS224R homework's."""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension has no stubs.)

from collections.abc import Callable
from typing import NamedTuple

import mujoco
import numpy as np

from . import start
from .observation import Goal

GOAL: Goal = (0.24, 0.74, 0.11)  # of the nail's head, metres
HIDDEN_GOAL: Goal = (0.0, 0.0, 0.0)


class Protocol(NamedTuple):
    """What the two ways of posing the task differ in.

    Attributes:
      action_repeat: control steps of one decision.
      max_episode_steps: decisions of an episode.
      reward: one of REWARDS, where none is asked for.
      goal: what the observation shows of it.
      sticky_success: whether `success` stays 1 once it was.
      outcome: the metric that says whether an episode succeeded.
      starts: computes the start states for a model.
    """

    action_repeat: int
    max_episode_steps: int
    reward: str
    goal: Goal
    sticky_success: bool
    outcome: str
    starts: Callable[[mujoco.MjModel], start.Starts[np.ndarray]]


PROTOCOLS = {
    "v3": Protocol(1, 500, "sparse", HIDDEN_GOAL, True, "hammered", start.official),
    "cs224r": Protocol(2, 50, "success", GOAL, False, "success", start.course),
}
