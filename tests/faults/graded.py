"""Settings ever further from their defaults: flag -> task and values.

The ranges are those of muPRL (Testing and Analysis of PPO by mutation, ICSE 2025).
"""

from faults.tasks import TASKS

GRADED: dict[str, tuple[str, tuple[float, ...]]] = {
    "gamma": (TASKS["cartpole"], (0.9999, 0.99, 0.95, 0.9, 0.75, 0.6, 0.45)),
    "entropy-coef": (TASKS["cartpole"], (0.01, 0.05, 0.1, 0.2)),
    "num-steps": (TASKS["cartpole"], (3072, 512, 64, 8, 2)),
}
