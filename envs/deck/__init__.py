"""The deck: a small card battle with a card-choice prompt after combats (README.md)."""

from purejaxppo.env import Env


def make(choice: str = "policy", num_offered: int = 5, num_taken: int = 2) -> Env:
    """Build the environment.

    Args:
      choice: who takes cards at a prompt: the head `pick` ("policy"), or chance
        ("random"), and then that head is never active.
      num_offered: kinds of cards that a prompt offers.
      num_taken: how many of them are taken.
    """
    from .env import make as make_deck

    return make_deck(choice, num_offered, num_taken)
