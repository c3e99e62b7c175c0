"""What policies learn, by the command line that users run, over several seeds.

    python -m benchmarks.learning hammer      # sparse reward, six demonstrations
    python -m benchmarks.learning cs224r      # the course's protocol
    python -m benchmarks.learning dense --seeds 3
    python -m benchmarks.learning scheduler   # against baselines, family by family
    python -m benchmarks.learning lifecycle   # with and without memory
    python -m benchmarks.learning deck        # what the head that takes cards is worth
    python -m benchmarks.learning memory      # a cue whose reward comes later

Each seed is one `python -m purejaxppo.train` of its own (of `memory` one vmapped
program for all). Writes benchmarks/results/learning_NAME.json after each seed, so that
an interrupt leaves whole seeds.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import record, report
from benchmarks.learning import curves, matches, memory

Json = dict[str, Any]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description="What policies learn."
    )
    flag = parser.add_argument
    flag("study", choices=(*curves.CURVES, *matches.MATCHES, "memory"))
    flag("--seeds", type=int, default=5)
    flag("--no-write", action="store_true", help="only print")
    flag("--flags", nargs=argparse.REMAINDER, default=[], help="of purejaxppo.train")
    return parser.parse_args(argv)


def measure(name: str, num_seeds: int, flags: list[str]) -> Iterator[Json]:
    """Measure a study; yield results after each seed that is a run of its own.

    Args:
      name: of the study.
      num_seeds: trainings of each kind.
      flags: of the command line; `memory` has none.
    """
    if name in curves.CURVES:
        yield from curves.measure(curves.CURVES[name], num_seeds, flags)
    elif name in matches.MATCHES:
        yield from matches.measure(matches.MATCHES[name], num_seeds, flags)
    else:
        yield memory.measure(num_seeds)


def main(argv: list[str] | None = None) -> None:
    """Measure a study, and print and write its results."""
    arguments = parse(argv)
    name = arguments.study
    for results in measure(name, arguments.seeds, arguments.flags):
        print(report.as_text(name, results), flush=True)
        if not arguments.no_write:
            record.write(f"learning_{name}", results)
    if not arguments.no_write:
        report.main()


if __name__ == "__main__":
    main()
