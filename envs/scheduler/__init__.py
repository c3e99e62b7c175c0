"""The scheduler: jobs with deadlines on machines with a capacity (README.md)."""

from purejaxppo.env import Env


def make(
    family: str = "mix",
    num_jobs: int = 32,
    num_machines: int = 2,
    capacity: int = 8,
    num_slots: int = 10,
) -> Env:
    """Build the environment.

    Args:
      family: mix, light, bursty, tight, heavy or toy.
      num_jobs: number of jobs per instance; ignored for the family "toy".
      num_machines: number of identical machines.
      capacity: units of resource per machine.
      num_slots: number of observed waiting jobs, those with the earliest deadlines.
    """
    from .env import make as make_scheduler

    return make_scheduler(family, num_jobs, num_machines, capacity, num_slots)
