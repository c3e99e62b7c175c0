"""The hammer task: a Sawyer arm picks up a hammer and drives a nail (README.md)."""

from purejaxppo.env import Env


def make(
    reward: str | None = None,
    protocol: str = "v3",
    engine: str = "auto",
    max_episode_steps: int | None = None,
) -> Env:
    """Build the environment.

    Args:
      reward: "sparse", "dense" or "success"; None for the protocol's default.
      protocol: "v3" (Meta-World's) or "cs224r" (of the Stanford homework).
      engine: "auto", "mujoco", "mjx" or "warp".
      max_episode_steps: time limit in decisions; None for the protocol's default.
    """
    # Imported here, so that reading the presets does not import MuJoCo.
    from .env import make as make_hammer

    return make_hammer(reward, protocol, engine, max_episode_steps)
