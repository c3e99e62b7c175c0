"""The best evaluation of each seed: how it is chosen, saved and said."""

import math

from purejaxppo.run import best
from purejaxppo.run.best import Best


def test_each_seed_has_its_own_and_the_last_of_equals_counts():
    bests = [None, None]
    bests = best.updated(bests, 1, [0.5, 0.2], [0.6, 0.3])
    bests = best.updated(bests, 2, [0.5, 0.1], [0.6, 0.9])
    bests = best.updated(bests, 3, [0.5, 0.2], [0.5, 0.4])
    assert bests == [Best(2, 0.5, 0.6), Best(3, 0.2, 0.4)]


def test_a_figure_that_is_not_a_number_is_never_the_best():
    bests = best.updated([None, Best(1, 0.0, 0.0)], 2, [math.nan] * 2, [math.nan] * 2)
    assert bests == [None, Best(1, 0.0, 0.0)]


def test_what_is_saved_is_read():
    bests = [None, Best(3, 0.25, 0.5)]
    assert best.from_json(best.to_json(bests), 2) == bests


def test_older_checkpoints_have_one_best_for_all_seeds():
    saved = {"update": 10, "worst": 1.0, "mean": 1.0}
    assert best.from_json(saved, 3) == [Best(10, 1.0, 1.0)] * 3
    assert best.from_json({}, 2) == [None, None]


def test_one_line_says_how_good_all_seeds_became():
    alone = [Best(2, 0.5, 0.75)]
    assert best.sentence([None], 100) is None
    assert best.sentence(alone, 1000) == (
        "best: worst block 0.500, mean 0.750, at 2,000 steps"
    )
    assert best.sentence([*alone, Best(4, 1.0, 1.0)], 1000) == (
        "best of each of 2 seeds: worst block 0.750 (lowest 0.500), "
        "mean 0.875 (lowest 0.750), at 2,000 to 4,000 steps"
    )
