"""The workload `hammer` by its old name: `python -m benchmarks.hammer_speed`."""

import sys

from benchmarks.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["hammer", *sys.argv[1:]]))
