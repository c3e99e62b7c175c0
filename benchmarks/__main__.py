"""`python -m benchmarks [--quick] [--rounds N] [--no-write] [WORKLOAD ...]`.

Measures workloads, all of them if none is named, prints a table of each, writes
benchmarks/results/WORKLOAD_speed.json, and draws and writes what follows from these
files: results/benchmarks.png and the results in the READMEs (`harness.report`).
"""

import argparse
import functools
import os
import signal
import sys
import time
from pathlib import Path

from benchmarks.harness import record, report
from benchmarks.harness.options import Options
from benchmarks.workloads import QUICK_ROUNDS, ROUNDS, WORKLOADS, measure
from purejaxppo.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    ConfigError,
    UnknownName,
    whole_number,
)
from purejaxppo.run.progress import Progress

_QUICK_FLAGS = (
    # Compiled with less care: a third of the time.
    " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments.

    Raises:
      ConfigError: a workload that there is not, or no number of rounds.
      SystemExit: 2 on an unknown flag, 0 after --help.
    """
    names = "\n".join(f"  {name:<16}{w.about}" for name, w in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure speed, ours and that of peers.",
        epilog=f"workloads:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flag = parser.add_argument
    flag("workloads", nargs="*", metavar="WORKLOAD")
    flag("--quick", action="store_true", help="tiny sizes: does it run; writes nothing")
    flag("--rounds", type=int, help=f"timed rounds ({ROUNDS})")
    flag("--limit", type=float, default=float("inf"), help="seconds, of `gpu`")
    flag("--out", type=Path, help="another folder for the results; READMEs stay")
    flag("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args(argv)
    for name in arguments.workloads:
        if name not in WORKLOADS:
            raise UnknownName("workload", name, WORKLOADS)
    if arguments.rounds is None:
        arguments.rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
    whole_number("rounds", arguments.rounds, 1, 10_000)
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Measure, print, write."""
    progress = Progress()
    writes = not (arguments.quick or arguments.no_write)
    options = Options(
        arguments.rounds, arguments.quick, progress, time.monotonic() + arguments.limit
    )
    everything = [name for name, w in WORKLOADS.items() if not w.by_name]
    for name in arguments.workloads or everything:
        progress.line(f"{name}: {WORKLOADS[name].about}")
        file = report.file_of(name)
        if writes:
            stored = record.load(file, arguments.out) or {"results": {}}
            save = functools.partial(record.write, file, folder=arguments.out)
            options = options._replace(stored=stored["results"], save=save)
        figures = measure(WORKLOADS[name], options)
        print(report.as_text(name, figures), flush=True)
        if writes:
            print(record.write(file, figures, arguments.out), flush=True)
    if writes and arguments.out is None:
        report.main([])


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0, 2 for what cannot be asked for, 130 after Ctrl-C."""
    # However it is stopped it unwinds, so that no worker is left behind; a shell has
    # its background jobs ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # This process only looks at the devices; it must not take their memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        arguments = parse(sys.argv[1:] if argv is None else argv)
        if arguments.quick:
            os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + _QUICK_FLAGS
        run(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
