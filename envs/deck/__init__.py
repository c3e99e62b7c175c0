"""The deck: a card battle with a choice of new cards after combats (README.md)."""

from purejaxppo.env import Env


def make(choice: str = "policy", num_offered: int = 5, num_taken: int = 2) -> Env:
    """Build the environment.

    Args:
      choice: how cards are chosen at a prompt: by the head `pick` ("policy"), or at
        random ("random"), in which case this head is never active.
      num_offered: number of kinds of cards that a prompt offers.
      num_taken: number of offered kinds that are taken.
    """
    from .env import make as make_deck

    return make_deck(choice, num_offered, num_taken)
