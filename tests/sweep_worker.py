"""A worker of a sweep whose trials only wait: `sweep_worker.py SECONDS FLAGS`."""

import sys
import time
from collections.abc import Callable

from purejaxppo.config import Config
from purejaxppo.run import process
from purejaxppo.sweep import __main__ as sweep
from purejaxppo.sweep.outcome import Outcome
from purejaxppo.sweep.training import GoOn, Trainer


def waiting(seconds: float) -> Callable[[Trainer, Config, GoOn], Outcome]:
    """Make the method that takes the place of `Trainer.train`.

    Args:
      seconds: that each trial takes.
    """

    def train(trainer: Trainer, config: Config, go_on: GoOn) -> Outcome:
        time.sleep(seconds)
        score = float(config.hypers.learning_rate)
        go_on(1, score)
        return Outcome((96, 192), ((score,), (score,)), 100.0, seconds)

    return train


if __name__ == "__main__":
    Trainer.train = waiting(float(sys.argv[1]))
    process.run(lambda: sweep.main(sys.argv[2:]))
