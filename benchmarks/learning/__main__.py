"""What policies learn, by the command line that users run, over several seeds.

    python -m benchmarks.learning hammer      # also cs224r, dense
    python -m benchmarks.learning pendulum    # by the defaults; see studies.toml
    python -m benchmarks.learning scheduler   # against baselines; also lifecycle, deck
    python -m benchmarks.learning memory      # a cue whose reward comes later
    python -m benchmarks.learning peers       # our defaults beside tuned peers

Each seed is one `python -m purejaxppo.train` of its own (of `memory` one vmapped
program for all). Writes benchmarks/results/learning_NAME.json after each seed, so that
an interrupt leaves whole seeds.
"""

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from benchmarks.harness import record, report
from benchmarks.learning import curves, matches, memory, peers

Json = dict[str, Any]
# Name -> (seeds, flags of the command line) -> results, after each seed that is a run.
STUDIES: dict[str, Callable[[int, list[str]], Iterable[Json]]] = {
    **{n: partial(curves.measure, curve) for n, curve in curves.CURVES.items()},
    **{n: partial(matches.measure, match) for n, match in matches.MATCHES.items()},
    "memory": lambda num_seeds, flags: [memory.measure(num_seeds)],
    "peers": peers.measure,
}


def main(argv: list[str] | None = None) -> None:
    """Measure a study, and print and write its results."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description="What policies learn."
    )
    flag = parser.add_argument
    flag("study", choices=STUDIES)
    flag("--seeds", type=int, default=5)
    flag("--first-seed", type=int, default=0, help="of the studies of curves")
    flag("--no-write", action="store_true", help="only print")
    flag(
        "--flags",
        nargs=argparse.REMAINDER,
        default=[],
        help="of purejaxppo.train; of peers: tasks",
    )
    arguments = parser.parse_args(argv)
    name = arguments.study
    study = STUDIES[name]
    if curve := curves.CURVES.get(name):
        first = arguments.first_seed
        study = partial(curves.measure, curve, first_seed=first)
    for results in study(arguments.seeds, arguments.flags):
        print(report.as_text(name, results), flush=True)
        if not arguments.no_write:
            record.write(f"learning_{name}", results)
    if not arguments.no_write:
        report.main()


if __name__ == "__main__":
    main()
