"""The two variants of the task: Meta-World's hammer-v3 and the CS224R homework's."""

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
    """The properties in which the two variants of the task differ.

    Attributes:
      action_repeat: control steps per decision.
      max_episode_steps: default time limit in decisions.
      reward: the default reward, one of REWARDS.
      goal: the goal in the observation, metres; zeros if it is hidden.
      sticky_success: whether the metric `success` stays 1 until the end of the episode.
      outcome: the metric that is 1 if an episode succeeded.
      starts: the function that computes the start states for a model.
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
