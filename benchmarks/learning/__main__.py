"""What policies learn, by the command line that users run, over several seeds.

    python -m benchmarks.learning hammer      # sparse reward, six demonstrations
    python -m benchmarks.learning cs224r      # the course's protocol
    python -m benchmarks.learning dense --seeds 3
    python -m benchmarks.learning scheduler   # against baselines, family by family
    python -m benchmarks.learning lifecycle   # with and without memory
    python -m benchmarks.learning deck        # what the head that takes cards is worth
    python -m benchmarks.learning memory      # a cue whose reward comes later
    python -m benchmarks.learning NAME --again   # summaries anew, from what is stored

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
STUDIES = (*curves.CURVES, *matches.MATCHES, "memory")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description="What policies learn."
    )
    flag = parser.add_argument
    flag("study", choices=STUDIES)
    flag("--seeds", type=int, default=5)
    flag("--episodes", type=int, help="of each game, instead of the study's")
    flag("--again", action="store_true", help="train nothing: summaries anew")
    flag("--no-write", action="store_true", help="only print")
    flag("--flags", nargs=argparse.REMAINDER, default=[], help="of purejaxppo.train")
    return parser.parse_args(argv)


def measure(arguments: argparse.Namespace) -> Iterator[Json]:
    """The results of a study, after each seed where seeds are runs of their own."""
    name, num_seeds, flags = arguments.study, arguments.seeds, arguments.flags
    if name in curves.CURVES:
        yield from curves.measure(curves.CURVES[name], num_seeds, flags)
    elif name in matches.MATCHES:
        match = matches.MATCHES[name]
        match = match._replace(episodes=arguments.episodes or match.episodes)
        yield from matches.measure(match, num_seeds, flags)
    else:
        yield memory.measure(num_seeds)


def again(name: str) -> None:
    """Compute a study's summary anew from what is stored, and keep its origin."""
    stored = record.load(f"learning_{name}")
    if stored is None or name == "memory":
        return
    if name in curves.CURVES:
        stored["results"] = curves.again(curves.CURVES[name], stored["results"])
    else:
        stored["results"] = matches.again(matches.MATCHES[name], stored["results"])
    record.store(f"learning_{name}", stored)


def main(argv: list[str] | None = None) -> None:
    arguments = parse(argv)
    name = arguments.study
    if arguments.again:
        again(name)
    else:
        for results in measure(arguments):
            print(report.as_text(name, results), flush=True)
            if not arguments.no_write:
                record.write(f"learning_{name}", results)
    if not arguments.no_write:
        report.main([])


if __name__ == "__main__":
    main()
