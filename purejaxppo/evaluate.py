"""`python -m purejaxppo.evaluate RUN`: a run's policy on its fixed seed blocks."""

import argparse
import sys
import types
from pathlib import Path
from typing import Any

from purejaxppo.errors import EXIT_OK, EXIT_USAGE, PurejaxppoError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m purejaxppo.evaluate", description=__doc__
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("--which", choices=("best", "latest"), default="best")
    parser.add_argument("--stochastic", action="store_true", help="sample actions")
    parser.add_argument("--episodes", type=int, help="per block; as in training")
    parser.add_argument("--seed-index", type=int, default=0, help="of a run of many")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Print the figures and write RUN/evaluation.json; the exit code is 0 or 2."""
    arguments = _parser().parse_args(argv)
    try:
        from purejaxppo.run import folder
        from purejaxppo.run.trained import evaluate

        metrics = evaluate(
            arguments.run,
            arguments.which,
            deterministic=not arguments.stochastic,
            episodes=arguments.episodes,
            seed_index=arguments.seed_index,
        )
    except PurejaxppoError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    width = max(map(len, metrics))
    for name, value in metrics.items():
        print(f"{name:<{width}}  {value:.4f}")
    folder.write_json(arguments.run / "evaluation.json", metrics)
    return EXIT_OK


class _Callable(types.ModuleType):
    """Importing this module sets `purejaxppo.evaluate`, which is a public function."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        from purejaxppo.run.trained import evaluate

        return evaluate(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable


if __name__ == "__main__":
    sys.exit(main())
