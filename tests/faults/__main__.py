import argparse
from pathlib import Path

from faults import table

parser = argparse.ArgumentParser()
parser.add_argument("names", nargs="*")
parser.add_argument("--seed", type=int, default=100)
parser.add_argument("--num-seeds", type=int, default=3)
parser.add_argument("--keep", type=Path)
options = parser.parse_args()
table.main(options.names, options.seed, options.num_seeds, options.keep)
