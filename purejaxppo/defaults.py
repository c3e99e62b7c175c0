"""The default configuration of an environment that has no presets of its own.

There are two, one for environments with a continuous head and one for all others; the
heads decide, and nothing else. What is learned with them, by five seeds of each task,
stands in benchmarks/README.md.
"""

from collections.abc import Mapping

from purejaxppo.env import Box, Head

Values = Mapping[str, object]  # of Config and Hypers, by name

# Few samples an update, rewards of unit scale and a rate that decays are for both. With
# 32 environments 3 of 5 seeds kept Acrobot above -85 at 500k steps, with 16 all did.
# Small networks learn as well as wide ones on such tasks, at several times the speed.
_COMMON: Values = {
    "num_envs": 16,
    "num_steps": 128,
    "normalize_rewards": True,
    "learning_rate_schedule": "linear",
    "hidden_sizes": (64, 64),
    "critic_hidden_sizes": (64, 64),
}

# Many small steps on few samples (Andrychowicz et al. 2021, section 3.5). The standard
# deviation starts above the bound of the actions: where a reward is rare and actions
# cost something, 1 found it on 7 of 10 seeds and 1.5 on 10 (MountainCarContinuous).
# With a rate that ends at a tenth, single evaluations of Brax's double pendulum fell
# from 9,350 to 4,000 on 2 of 3 seeds; with one that ends at 0, on none. Where the
# reward is the same at every step, as of Brax's pendulum, the advantages of a good
# policy are noise, scaled to 1: its evaluations fell from 1,000 to about 900 now and
# then on 2 of 5 seeds. A limit of the KL leaves 1 of 5. With gamma .97 or .98 beside it
# single episodes of the double pendulum fell at the end of 4 of 6 runs, with .99 of 1
# of 5.
CONTINUOUS: Values = _COMMON | {
    "learning_rate_final": 0.0,
    "target_kl": 0.01,
    "num_epochs": 10,
    "num_minibatches": 32,
    "distribution": "normal",
    "init_std": 1.5,
    "max_std": 2.0,
}

# MinAtar's Breakout has two first states and no chance after them. A policy that stops
# exploring too early runs into a loop that breaks no brick: with tanh, a rate of 1e-3
# and an entropy coefficient of .01 it ended at 7 to 14, with these at 8 to 21.
DISCRETE: Values = _COMMON | {
    "activation": "relu",
    "num_epochs": 4,
    "num_minibatches": 8,
    "learning_rate": 5e-4,
    "entropy_coef": 0.02,
}


def of_heads(heads: Mapping[str, Head], recurrent: bool) -> tuple[str, Values]:
    """Choose the defaults for the heads of an environment.

    Args:
      heads: head name -> head.
      recurrent: whether the policy has a recurrent core. Then `num_epochs` keeps its
        own default, as the stored recurrent state fits the first epoch alone.

    Returns:
      the kind of its actions, "continuous" or "discrete", and the values.
    """
    is_continuous = any(isinstance(head, Box) for head in heads.values())
    values = dict(CONTINUOUS if is_continuous else DISCRETE)
    if recurrent:
        del values["num_epochs"]
    return "continuous" if is_continuous else "discrete", values
