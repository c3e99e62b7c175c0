"""`python -m purejaxppo.evaluate RUN`: a run's policy on its fixed seed blocks.

The function is `purejaxppo.evaluate`. Importing this module would put the module in
the function's place, so it can only be run.
"""

from purejaxppo.run import process

if __name__ == "__main__":  # before the imports below, which take a second
    process.end_on_signals()

import sys
from pathlib import Path
from typing import Annotated

import tyro

from purejaxppo.errors import EXIT_OK, EXIT_USAGE, PurejaxppoError
from purejaxppo.run import folder
from purejaxppo.run.trained import Which, evaluate

if __name__ != "__main__":
    raise ImportError(
        "purejaxppo.evaluate is a command, `python -m purejaxppo.evaluate RUN`; "
        "the function is `from purejaxppo import evaluate`"
    )


def evaluate_run(
    run: Annotated[Path, tyro.conf.Positional],
    which: Which = "best",
    stochastic: bool = False,
    episodes: int | None = None,
    seed_index: int = 0,
) -> int:
    """Evaluate a run's policy on its fixed seed blocks, and write RUN/evaluation.json.

    Args:
      run: Folder of the run.
      which: Checkpoint: the best by its worst block, or the latest.
      stochastic: Sample actions, instead of taking the policy's mode.
      episodes: Episodes per block; as many as in training where not given.
      seed_index: Which seed of a run of several.
    """
    metrics = evaluate(
        run,
        which,
        deterministic=not stochastic,
        episodes=episodes,
        seed_index=seed_index,
    )
    folder.write_json(run / "evaluation.json", metrics)
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:<{width}}  {value:.4f}")
    return EXIT_OK


def main() -> int:
    """Run the command line; the exit code is 0 or 2 (usage)."""
    try:
        return tyro.cli(
            evaluate_run,
            prog="python -m purejaxppo.evaluate",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except PurejaxppoError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE


process.run(main)
