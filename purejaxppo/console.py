"""Entry points of the installed commands, which import the commands on use."""

from typing import NoReturn

from purejaxppo.run import process


def train() -> NoReturn:
    """Run `purejaxppo-train`, the same as `python -m purejaxppo.train`."""
    process.end_on_signals()
    from purejaxppo.train import main

    process.run(main)
