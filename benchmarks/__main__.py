"""`python -m benchmarks [--quick] [--rounds N] [--no-write] [WORKLOAD ...]`.

Measures workloads, all of them if none is named, prints a table of each, writes
benchmarks/results/WORKLOAD_speed.json, and draws and writes what follows from these
files: results/benchmarks.png and the results in the READMEs (`harness.report`).
"""

import argparse
import os
import signal
import sys

from benchmarks.harness import record, report
from benchmarks.workloads import QUICK_ROUNDS, ROUNDS, WORKLOADS, Options, measure
from purejaxppo.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    ConfigError,
    UnknownName,
    whole_number,
)
from purejaxppo.run.progress import Progress

_QUICK_FLAGS = " --xla_backend_optimization_level=0"  # compiles faster


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the arguments.

    Raises:
      ConfigError: a workload is unknown, or the number of rounds is out of range.
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
    flag("--rounds", type=int, default=ROUNDS, help=f"timed rounds ({ROUNDS})")
    flag("--no-write", action="store_true", help="only print")
    arguments = parser.parse_args(argv)
    for name in arguments.workloads:
        if name not in WORKLOADS:
            raise UnknownName("workload", name, WORKLOADS)
    whole_number("rounds", arguments.rounds, 1, 10_000)
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Measure the workloads, print and write their results."""
    rounds = QUICK_ROUNDS if arguments.quick else arguments.rounds
    options = Options(rounds, arguments.quick, Progress())
    writes = not (arguments.quick or arguments.no_write)
    unnamed = [name for name, workload in WORKLOADS.items() if not workload.by_name]
    for name in arguments.workloads or unnamed:
        options.progress.line(f"{name}: {WORKLOADS[name].about}")
        figures = measure(WORKLOADS[name], options)
        print(report.as_text(name, figures), flush=True)
        if writes:
            record.write(record.file_of(name), figures)
    if writes:
        report.main()


def main(argv: list[str] | None = None) -> int:
    """Run, and return the exit code: 0, 2 for wrong arguments, 130 after Ctrl-C."""
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
