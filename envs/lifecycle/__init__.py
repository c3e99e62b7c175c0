"""The lifecycle of seeds whose vigour and progress are hidden (README.md)."""

from purejaxppo.env import Env


def make(num_slots: int = 4, noise: float = 1.0) -> Env:
    """Build the environment.

    Args:
      num_slots: number of slots for seeds.
      noise: standard deviation of a reading of vigour, which is in [-1, 1].
    """
    from .env import make as make_lifecycle

    return make_lifecycle(num_slots, noise)
